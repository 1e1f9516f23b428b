"""Other outputs of an encoder than its last: chosen blocks, before or after the final norm, or what their attention projects."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fewmatch.encoders.features import Features
from fewmatch.encoders.loading import FrozenEncoder
from fewmatch.errors import InputError

FACETS = ("token", "key", "query", "value")


@dataclass(frozen=True)
class Tap:
    """What is taken of an encoder.

    layers: blocks counted from 0, whose features are put side by side; None is the encoder's own output.
    norm: whether the final norm is applied. facet: the blocks' output (`token`), or the `key`, `query` or `value` of their attention.
    """

    layers: tuple[int, ...] | None = None
    norm: bool = True
    facet: str = "token"

    @property
    def words(self) -> str:
        """As in results and stores: `last`, `8`, `8+9+10+11`, `8, raw`, `8, key`. `read_tap` reads it back."""
        if self.layers is None:
            return "last"
        blocks = "+".join(map(str, self.layers))
        return blocks + ("" if self.norm else ", raw") + ("" if self.facet == "token" else f", {self.facet}")


def read_tap(text: str) -> Tap:
    """The tap of these words.

    Raises:
        InputError: they are not of the form that `Tap.words` has.
    """
    if text == "last":
        return Tap()
    blocks, *rest = text.split(", ")
    facet = next((word for word in rest if word in FACETS[1:]), "token")
    if not re.fullmatch(r"\d+(\+\d+)*", blocks) or set(rest) - {"raw", facet} or len(rest) > 2:
        raise InputError(f"no layer called {text}: expected such as last, 8, 8+9+10+11, or 8, key")
    return Tap(tuple(int(block) for block in blocks.split("+")), "raw" not in rest, facet)


def choose_tap(layer: str, depth: int, *, raw: bool = False, facet: str = "token") -> Tap:
    """The tap that a user asks for.

    Args:
        layer: `last`; `8` or `-4`, a block counted from 0 or from the end; `last4`, the last four; `3,7,11` or `3+7+11`, several.
        depth: how many blocks the encoder has.
        raw: before the final norm. facet: one of `FACETS`.

    Raises:
        InputError: another form, a block that is not there, or `raw` with a facet, to which no norm is applied anyway.
    """
    if facet not in FACETS:
        raise InputError(f"no facet called {facet}: expected one of {', '.join(FACETS)}")
    if raw and facet != "token":
        raise InputError(f"no norm is applied to a {facet}: leave out --raw")
    if layer == "last" and not raw and facet == "token":
        return Tap()
    found = re.fullmatch(r"last(\d*)", layer)
    if found:
        count = int(found[1] or 1)
        if not 1 <= count <= depth:
            raise InputError(f"no layer {layer}: the encoder has {depth} blocks")
        return Tap(tuple(range(depth - count, depth)), not raw, facet)
    if not re.fullmatch(r"-?\d+([,+]-?\d+)*", layer):
        raise InputError(f"no layer {layer}: expected last, last4, a block such as 8 or -4, or several such as 3,7,11")
    blocks = []
    for number in map(int, re.split("[,+]", layer)):
        if not -depth <= number < depth:
            raise InputError(f"no layer {number}: the encoder has blocks 0 to {depth - 1} (or -{depth} to -1)")
        blocks.append(number % depth)
    return Tap(tuple(blocks), not raw, facet)


class TappedEncoder:
    """An encoder that gives what a tap takes; it keeps the `Encoder` contract, and `layer` says which tap.

    Several blocks are put side by side: D is the sum of theirs.
    """

    def __init__(self, encoder: FrozenEncoder, tap: Tap) -> None:
        if tap.layers is None:
            raise ValueError("expected a tap with layers: the encoder's own output needs none")
        encoder.model.require_facet(tap.facet)
        self.encoder, self.tap = encoder, tap
        self.name, self.digest, self.layer = encoder.name, encoder.digest, tap.words
        self.patch_size, self.stride, self.preprocessing = encoder.patch_size, encoder.stride, encoder.preprocessing
        self.dtype, self.device = encoder.dtype, encoder.device
        self.family, self.architecture, self.model = encoder.family, encoder.architecture, encoder.model
        self.source = encoder.source
        # Widths of blocks may differ (Swin, RegNet): a forward pass on a small image tells.
        blank = torch.zeros(2, 3, *(encoder.model.smallest or (encoder.patch_size, encoder.patch_size)))
        self.embed_dim = int(self(blank).global_repr.shape[1])

    def __call__(self, images: Float[Tensor, "b 3 H W"], /) -> Features:
        layers = self.tap.layers or ()
        parts = self.encoder(images, layers=layers, norm=self.tap.norm, facet=self.tap.facet)
        grids = {part.feature_map.shape[1:3] for part in parts}
        if len(grids) > 1:
            raise InputError(f"the maps of layers {self.tap.words} differ in size: choose layers of one stage")
        registers = [part.registers for part in parts if part.registers is not None]
        return Features(
            global_repr=torch.cat([part.global_repr for part in parts], dim=-1),
            registers=torch.cat(registers, dim=-1) if len(registers) == len(parts) else None,
            feature_map=torch.cat([part.feature_map for part in parts], dim=-1),
        )


def tapped(
    encoder: FrozenEncoder, layer: str = "last", *, raw: bool = False, facet: str = "token"
) -> FrozenEncoder | TappedEncoder:
    """The encoder with another output; see `choose_tap`. The encoder itself where it is its own output.

    Raises:
        InputError: a layer or facet that the encoder does not have.
    """
    tap = choose_tap(layer, encoder.model.depth, raw=raw, facet=facet)
    return encoder if tap.layers is None else TappedEncoder(encoder, tap)
