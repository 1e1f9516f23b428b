"""EsViT (Li et al. 2022): Swin transformers in the official layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from encoders.families import Family, State, without
from encoders.models.swin import Swin, read_architecture
from encoders.preprocessing import Preprocessing


def _official(state: State) -> dict[str, Tensor]:
    """The heads of the training are dropped, and the index of relative positions, which follows from the window."""
    return without(state, "head.*", "head_dense.*", "*.relative_position_index")


def _recognises(state: State) -> bool:
    return any(key.endswith("layers.0.blocks.0.attn.relative_position_bias_table") for key in state)


def _build(state: State, **options: Any) -> Swin:
    return Swin(read_architecture(state, **options))


FAMILIES = (
    Family(
        name="esvit",
        paper="Li et al. 2022",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        recognises=_recognises,
        official=_official,
        build=_build,
        options=("heads", "image_size"),
    ),
)
