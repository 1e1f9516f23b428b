"""SEER (Goyal et al. 2021): RegNetY in the official layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fewmatch.encoders.families import Family, State, without
from fewmatch.encoders.models.regnet import RegNet, read_architecture
from fewmatch.encoders.preprocessing import Preprocessing


def _official(state: State) -> dict[str, Tensor]:
    """The counters of the training are dropped."""
    return without(state, "*.num_batches_tracked")


def _recognises(state: State) -> bool:
    return "_feature_blocks.conv1.stem.0.weight" in state


def _build(state: State, **options: Any) -> RegNet:
    return RegNet(read_architecture(state, **options))


FAMILIES = (
    Family(
        name="seer",
        paper="Goyal et al. 2021",
        preprocessing=Preprocessing(resize=256, crop=224, dense=224),
        anchors=("_feature_blocks.conv1.stem.0.weight",),
        recognises=_recognises,
        official=_official,
        build=_build,
        options=("heads",),
    ),
)
