"""What the families of vision transformers share: building one by a family's rules, and biases that files leave out."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fewmatch.encoders.families import State
from fewmatch.encoders.models.vit import VisionTransformer, read_architecture

#: What most families do not have. Entries of it are then refused by name instead of making another network than the family's.
_ABSENT: dict[str, Any] = {"layer_scale": False, "registers": 0, "ffn": "mlp", "projection": 0}


def vision_transformer(*, reads: tuple[str, ...] = (), **rules: Any) -> Callable[..., VisionTransformer]:
    """`Family.build` for a vision transformer.

    Args:
        reads: which of `layer_scale`, `registers`, `ffn` and `projection` the entries decide; a family without them has none.
        rules: fields of `ViTArchitecture` in which the family differs from its defaults. Options of the caller override them.
    """
    absent = {name: value for name, value in _ABSENT.items() if name not in reads}

    def build(state: State, **options: Any) -> VisionTransformer:
        return VisionTransformer(read_architecture(state, **{**absent, **rules, **options}))

    return build


def with_zero_bias(state: State, pattern: str) -> dict[str, Tensor]:
    """The entries, with a bias of zeros beside each weight whose key matches and that has none."""
    out = dict(state)
    for key, value in state.items():
        if re.fullmatch(pattern, key):
            zeros = torch.zeros(len(value), dtype=value.dtype, device=value.device)
            out.setdefault(key.removesuffix("weight") + "bias", zeros)
    return out


def with_zero_key_bias(state: State, pattern: str, name: str) -> dict[str, Tensor]:
    """The entries, with a key bias of zeros beside each query bias, where projections of keys have none.

    Args:
        pattern: of the keys of query biases. name: of the key bias, with references to the groups of the pattern.
    """
    out = dict(state)
    for key, value in state.items():
        match = re.fullmatch(pattern, key)
        if match:
            out.setdefault(match.expand(name), torch.zeros_like(value))
    return out
