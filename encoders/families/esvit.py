"""EsViT (Li et al. 2022): Swin transformers in the official layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewmatch.encoders.families import Family, State, without
from fewmatch.encoders.models.swin import Swin, read_architecture
from fewmatch.encoders.preprocessing import Preprocessing


def _official(state: State) -> dict[str, Tensor]:
    """The index of relative positions is dropped: it follows from the window."""
    return without(state, "*.relative_position_index")


def _is_swin(state: State) -> bool:
    return "layers.0.blocks.0.attn.relative_position_bias_table" in state


def _has_its_head(state: State) -> bool:
    """Swin transformers trained on labels have the same layout, and another epsilon; the head for regions is EsViT's alone."""
    return any(key.startswith("head_dense.") for key in state)


def _build(state: State, **options: Any) -> Swin:
    return Swin(read_architecture(state, **options))


FAMILIES = (
    Family(
        name="esvit",
        paper="Li et al. 2022",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        anchors=("patch_embed.proj.weight",),
        recognises=lambda state: _is_swin(state) and _has_its_head(state),
        official=_official,
        build=_build,
        possible=lambda state: _is_swin(state) and not _has_its_head(state),
        hint="a Swin transformer of EsViT",
        options=("heads", "image_size"),
    ),
)
