"""CAPI (Darcet et al. 2025): official layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewmatch.encoders.families import Family, State
from fewmatch.encoders.models.capi import CAPI, read_architecture
from fewmatch.encoders.preprocessing import Preprocessing

_READ_OUT = "decoder.blocks.0."


def _official(state: State) -> dict[str, Tensor]:
    """Encoder and first decoder block; what only pre-training used is dropped (reference/encoders.md 4.1)."""
    return {key: value for key, value in state.items() if not key.startswith("decoder.") or key.startswith(_READ_OUT)}


def _recognises(state: State) -> bool:
    return "encoder.blocks.0.residual1.norm.weight" in state


def _build(state: State, **options: Any) -> CAPI:
    return CAPI(read_architecture(state, **options))


FAMILIES = (
    Family(
        name="capi",
        paper="Darcet et al. 2025",
        preprocessing=Preprocessing(resize=256, crop=224, dense=448),
        anchors=("patch_embed.weight",),
        recognises=_recognises,
        official=_official,
        build=_build,
        options=("heads",),
    ),
)
