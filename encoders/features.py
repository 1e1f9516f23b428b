"""What an encoder is and what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from fewmatch.encoders.preprocessing import Preprocessing


@dataclass(frozen=True)
class Features:
    """The outputs of a vision encoder for a batch of images.

    global_repr: one vector per image (DINOv2: `x_norm_clstoken`).
    registers: the register tokens (DINOv2: `x_norm_regtokens`), or None where the model has none.
    feature_map: one vector per patch, channels last, row-major from the top left (DINOv2: `x_norm_patchtokens`).
    projected: the image embedding in a joint image-text space (CLIP family), else None.
    """

    global_repr: Float[Tensor, "b d"]
    registers: Float[Tensor, "b r d"] | None
    feature_map: Float[Tensor, "b h w d"]
    projected: Float[Tensor, "b p"] | None = None


@runtime_checkable
class Encoder(Protocol):
    """The plug-in contract: any object with these works wherever fewmatch asks for an encoder.

    Called on a normalised `(B, 3, H, W)` float tensor, H and W multiples of `patch_size`, it returns `Features`.
    It is frozen: evaluation mode, no gradients, the same output for the same input.
    Optional attributes that are used where present: `digest` (str, of everything in it that changes its numbers, such as the
    weights; without it, stored features are identified by `name` and by the output for one fixed image), `family` and `architecture`
    (a dict of every option it was built with), `dtype` and `device` (where inputs go), `stride` (pixels from one patch to the next,
    where that is not `patch_size`), `layer` (which output it gives, in words, where that is not its last).
    """

    name: str
    embed_dim: int
    patch_size: int
    preprocessing: Preprocessing

    def __call__(self, images: Float[Tensor, "b 3 H W"], /) -> Features: ...
