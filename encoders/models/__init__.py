"""Networks: the plain vision transformer, and one module for each encoder that is something else."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from encoders.features import Features


class Backbone(nn.Module):
    """What `FrozenEncoder` needs of a network, besides being a `torch.nn.Module` whose forward pass returns `Features`.

    embed_dim: D of its features. patch_size: pixels per step of its feature map; heights and widths must be multiples of it.
    depth: how many layers can be tapped.
    """

    embed_dim: int
    patch_size: int
    depth: int

    def intermediate(
        self, images: Float[Tensor, "b 3 H W"], layers: Sequence[int], norm: bool = True
    ) -> list[Features]:
        """Features after the layers with these indices (0-based, negative from the end), in the order asked for.

        Raises:
            ValueError: a layer that is not there.
        """
        raise NotImplementedError  # abstract

    def describe(self) -> str:
        """The sizes in a line, for messages."""
        raise NotImplementedError  # abstract


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
