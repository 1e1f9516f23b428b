"""The image encoder of data2vec 2.0 (Baevski et al. 2022)."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed, without
from fewmatch.encoders.families.vision_transformers import vision_transformer
from fewmatch.encoders.preprocessing import Preprocessing

_IMAGE = "modality_encoders.IMAGE."
_NAMES = (
    (r"modality_encoders\.IMAGE\.extra_tokens", r"cls_token"),
    (r"modality_encoders\.IMAGE\.fixed_positional_encoder\.positions", r"pos_embed"),
    (r"modality_encoders\.IMAGE\.local_encoder\.proj\.(.*)", r"patch_embed.proj.\1"),
    (r"modality_encoders\.IMAGE\.context_encoder\.norm\.(.*)", r"norm_pre.\1"),
    (r"modality_encoders\.IMAGE\.context_encoder\.(blocks\..*)", r"\1"),
)


def _recognises(state: State) -> bool:
    return any(key.startswith(_IMAGE) for key in state)


def _official(state: State) -> dict[str, Tensor]:
    state = without(state, _IMAGE + "decoder.*", "_ema*")
    first = re.compile(re.escape(_IMAGE) + r"context_encoder\.blocks\.(\d+)\.")
    before = 1 + max((int(match[1]) for match in map(first.match, state) if match), default=-1)

    def later(match: re.Match[str]) -> str:
        return f"blocks.{int(match[1]) + before}."  # the modality's own blocks come first

    out = renamed({re.sub(r"^blocks\.(\d+)\.", later, key): value for key, value in state.items()}, _NAMES)
    table = out.get("pos_embed")
    if table is not None and table.dim() == 3:
        out["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)  # CLS has no position
    return out


FAMILIES = (
    Family(
        name="data2vec2",
        paper="Baevski et al. 2022",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        anchors=("modality_encoders.IMAGE.local_encoder.proj.weight",),
        recognises=_recognises,
        official=_official,
        build=vision_transformer(positions="size-plain", norms="post", pool="mean"),
    ),
)
