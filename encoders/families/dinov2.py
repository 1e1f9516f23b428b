"""DINOv2 (Oquab et al. 2023), and with registers (Darcet et al. 2023): official and Hugging Face layout."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed, stacked, without
from fewmatch.encoders.models.vit import VisionTransformer, read_architecture
from fewmatch.encoders.preprocessing import Preprocessing

_HUGGING_FACE = (
    (r"embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
    (r"embeddings\.position_embeddings", r"pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"encoder\.layer\.(\d+)\.(norm[12]\..*)", r"blocks.\1.\2"),
    (r"encoder\.layer\.(\d+)\.attention\.(?:output\.dense|o_proj)\.(.*)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layer\.(\d+)\.layer_scale([12])\.lambda1", r"blocks.\1.ls\2.gamma"),
    (r"encoder\.layer\.(\d+)\.mlp\.(fc[12]\..*)", r"blocks.\1.mlp.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.weights_in\.(.*)", r"blocks.\1.mlp.w12.\2"),
    (r"encoder\.layer\.(\d+)\.mlp\.(?:weights_out|down_proj)\.(.*)", r"blocks.\1.mlp.w3.\2"),
    (r"layernorm\.(.*)", r"norm.\1"),
)
#: In files, and in the memory of transformers 5.
_QKV = (
    (
        r"encoder\.layer\.(\d+)\.attention\.attention\.(?P<part>query|key|value)\.(weight|bias)",
        ("query", "key", "value"),
    ),
    (r"encoder\.layer\.(\d+)\.attention\.(?P<part>[qkv]_proj)\.(weight|bias)", ("q_proj", "k_proj", "v_proj")),
)
_GATED = r"encoder\.layer\.(\d+)\.mlp\.(?P<part>gate_proj|up_proj)\.(weight|bias)"


def _official(state: State) -> dict[str, Tensor]:
    """The Hugging Face layout of the same weights gives the official features (reference/encoders.md 3.6)."""
    if "embeddings.cls_token" in state:
        for pattern, parts in _QKV:
            state = stacked(state, pattern, parts, r"blocks.\1.attn.qkv.\3")
        state = stacked(state, _GATED, ("gate_proj", "up_proj"), r"blocks.\1.mlp.w12.\3")
        state = renamed(state, _HUGGING_FACE)
    return without(_from_timm(state), "mask_token")


def _from_timm(state: State) -> dict[str, Tensor]:
    """timm's names of the same: registers, whose model has the position of CLS added to CLS, and the gated layer of the giants."""
    out = dict(state)
    if "reg_token" in out:
        out["register_tokens"] = out.pop("reg_token")
        table = out.get("pos_embed")
        if table is not None and table.dim() == 3 and math.isqrt(table.shape[1]) ** 2 == table.shape[1]:
            out["pos_embed"] = torch.cat([torch.zeros_like(table[:, :1]), table], dim=1)
    one, two = out.get("blocks.0.mlp.fc1.weight"), out.get("blocks.0.mlp.fc2.weight")
    if one is not None and two is not None and one.dim() == two.dim() == 2 and len(one) == 2 * two.shape[1]:
        names = ((r"(blocks\.\d+\.mlp)\.fc1\.(.*)", r"\1.w12.\2"), (r"(blocks\.\d+\.mlp)\.fc2\.(.*)", r"\1.w3.\2"))
        out = renamed(out, names)
    return out


def _recognises(registers: bool) -> Any:
    def recognises(state: State) -> bool:
        official = {"blocks.0.ls1.gamma", "pos_embed"} <= state.keys()
        hugging_face = {"encoder.layer.0.layer_scale1.lambda1", "embeddings.position_embeddings"} <= state.keys()
        has_registers = any(key in state for key in ("register_tokens", "reg_token", "embeddings.register_tokens"))
        return (official or hugging_face) and has_registers == registers

    return recognises


def _build(positions: str, registers: bool) -> Any:
    def build(state: State, **options: Any) -> VisionTransformer:
        a = read_architecture(state, **{"positions": positions, "projection": 0, **options})
        if bool(a.registers) != registers:
            other = "dinov2_reg" if a.registers else "dinov2"
            raise ValueError(f"got {a.registers} registers; is it {other}?")
        return VisionTransformer(a)

    return build


_PREPROCESSING = Preprocessing(resize=256, crop=224, dense=518)

FAMILIES = tuple(
    Family(
        name=name,
        paper=paper,
        preprocessing=_PREPROCESSING,
        anchors=("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
        recognises=_recognises(registers),
        official=_official,
        build=_build(positions, registers),
    )
    for name, paper, positions, registers in (
        ("dinov2", "Oquab et al. 2023", "scale-factor", False),
        ("dinov2_reg", "Darcet et al. 2023", "size", True),
    )
)
