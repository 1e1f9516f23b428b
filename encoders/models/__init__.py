"""Networks: the plain vision transformer, and one module for each encoder that is something else."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewmatch.encoders.features import Features
from fewmatch.errors import InputError


class Backbone(nn.Module, ABC):
    """What `FrozenEncoder` needs of a network, besides being a `torch.nn.Module` whose forward pass returns `Features`.

    embed_dim: D of its features. patch_size: pixels per step of its feature map; heights and widths must be multiples of it.
    depth: how many layers can be tapped.
    stride: pixels from one patch to the next where patches overlap; None is the patch size.
    facets: what can be tapped of a layer: `token` is its output; `key`, `query` and `value` are the projections in its attention.
    image_dtype: what images come in; None is the dtype of the weights.
    smallest: height and width of a small image that it takes; None is one patch.
    """

    embed_dim: int
    patch_size: int
    depth: int
    stride: int | None = None
    facets: tuple[str, ...] = ("token",)
    image_dtype: torch.dtype | None = None
    compiles: bool = False
    smallest: tuple[int, int] | None = None

    @abstractmethod
    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True, facet: str = "token"
    ) -> list[Features]:
        """Features after the layers with these indices (0-based, negative from the end), in the order asked for.

        norm: whether the final norm is applied to them (to `token` only).
        facet: `token`; or `key`, `query`, `value`: what that layer's attention projects every token to, heads concatenated.

        Raises:
            ValueError: a layer that is not there.
            InputError: a facet that this network does not have (see `require_facet`).
        """

    @abstractmethod
    def describe(self) -> str:
        """The sizes in a line, for messages."""

    def facts(self) -> dict[str, Any]:
        """Every option that the network was built with, by name: what decides its numbers apart from the weights."""
        architecture: Any = self.architecture
        return dataclasses.asdict(architecture)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the feature map of an image of this size in pixels.

        With a `stride` below the patch size, what is left over at the right and the bottom is not seen.

        Raises:
            ValueError: the size is no multiple of the patch size; with a stride, it is below the patch size.
        """
        patch, step = self.patch_size, self.stride or self.patch_size
        if step == patch and (height % patch or width % patch or not (height and width)):
            raise ValueError(
                f"expected height and width to be multiples of the patch size {patch}, got {height}×{width}"
            )
        if min(height, width) < patch:
            raise ValueError(f"expected height and width of at least the patch size {patch}, got {height}×{width}")
        return (height - patch) // step + 1, (width - patch) // step + 1

    def require_facet(self, facet: str) -> None:
        """Refuse a facet that this network does not have.

        Raises:
            InputError: naming those that it has.
        """
        if facet not in self.facets:
            expected = ", ".join(self.facets[:-1]) + (" or " if len(self.facets) > 1 else "") + self.facets[-1]
            raise InputError(f"{type(self).__name__} has no facet {facet}: expected {expected}")

    def take_weights(self, entries: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        """Take in entries that match `state_dict()` exactly, in this dtype. The entries themselves stay as they are.

        A network may keep them in another form that gives the same features faster.
        """
        self.load_state_dict({key: value.to(dtype) for key, value in entries.items()}, strict=True, assign=True)


def layer_indices(layers: Sequence[int], depth: int) -> list[int]:
    """Layers counted from 0.

    Raises:
        ValueError: a layer that is not there.
    """
    wanted = [layer + depth if layer < 0 else layer for layer in layers]
    for layer, index in zip(layers, wanted, strict=True):
        if not 0 <= index < depth:
            raise ValueError(f"expected layers from {-depth} to {depth - 1}, got {layer}")
    return wanted
