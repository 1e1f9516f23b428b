"""BEiT (Bao et al. 2021), as it comes from self-supervised training."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed, stacked, without
from fewmatch.encoders.families.vision_transformers import vision_transformer, with_zero_key_bias
from fewmatch.encoders.models.vit import VisionTransformer
from fewmatch.encoders.preprocessing import Preprocessing

_OWN_TABLES = "blocks.0.attn.relative_position_bias_table"


def _recognises(state: State) -> bool:
    return "blocks.0.gamma_1" in state and (
        "rel_pos_bias.relative_position_bias_table" in state or _OWN_TABLES in state
    )


def _official(state: State) -> dict[str, Tensor]:
    state = without(state, "mask_token", "*relative_position_index")
    state = with_zero_key_bias(state, r"blocks\.(\d+)\.attn\.q_bias", r"blocks.\1.attn.k_bias")
    parts = ("q_bias", "k_bias", "v_bias")
    state = stacked(state, r"blocks\.(\d+)\.attn\.(?P<part>[qkv]_bias)", parts, r"blocks.\1.attn.qkv.bias")
    return renamed(state, ((r"blocks\.(\d+)\.gamma_([12])", r"blocks.\1.ls\2.gamma"),))


_BUILD = vision_transformer(reads=("layer_scale",), positions="relative")


def _build(state: State, **options: Any) -> VisionTransformer:
    if _OWN_TABLES in state:
        raise ValueError(
            "its blocks have position tables of their own, as after fine-tuning on labels: expected the self-supervised weights"
        )
    return _BUILD(state, **options)


FAMILIES = (
    Family(
        name="beit",
        paper="Bao et al. 2021",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        anchors=("patch_embed.proj.weight",),
        recognises=_recognises,
        official=_official,
        build=_build,
    ),
)
