"""SAM (Kirillov et al. 2023): the image encoder, in the official and the Hugging Face layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewmatch.encoders.families import Family, State, renamed
from fewmatch.encoders.models.sam import SAM, read_architecture
from fewmatch.encoders.preprocessing import Preprocessing

_OFFICIAL = ((r"blocks\.(\d+)\.mlp\.lin([12])\.(.*)", r"blocks.\1.mlp.fc\2.\3"),)
_HUGGING_FACE = (
    (r"patch_embed\.projection\.(.*)", r"patch_embed.proj.\1"),
    (r"layers\.(\d+)\.layer_norm([12])\.(.*)", r"blocks.\1.norm\2.\3"),
    (r"layers\.(\d+)\.mlp\.lin([12])\.(.*)", r"blocks.\1.mlp.fc\2.\3"),
    (r"layers\.(\d+)\.(attn\..*)", r"blocks.\1.\2"),
    (r"neck\.conv1\.(.*)", r"neck.0.\1"),
    (r"neck\.layer_norm1\.(.*)", r"neck.1.\1"),
    (r"neck\.conv2\.(.*)", r"neck.2.\1"),
    (r"neck\.layer_norm2\.(.*)", r"neck.3.\1"),
)


def _official(state: State) -> dict[str, Tensor]:
    return renamed(state, _OFFICIAL + _HUGGING_FACE)


def _recognises(state: State) -> bool:
    return "blocks.0.attn.rel_pos_h" in state or "layers.0.attn.rel_pos_h" in state


def _build(state: State, **options: Any) -> SAM:
    return SAM(read_architecture(state, **options))


FAMILIES = (
    Family(
        name="sam",
        paper="Kirillov et al. 2023",
        # The one size that its position table covers. SAM itself pads images to it, here they are cropped or left as they are.
        preprocessing=Preprocessing(resize=1024, crop=1024, dense=1024),
        anchors=("patch_embed.proj.weight", "patch_embed.projection.weight"),
        recognises=_recognises,
        official=_official,
        build=_build,
        options=("heads",),
    ),
)
