"""How alike every patch of an image is to given points of another, and the same made to be seen."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.encoders.frame import Frame
from fewmatch.errors import InputError
from fewmatch.matching.matches import unit_descriptors
from fewmatch.matching.transfer import checked_points, grid_places, mixed_descriptors

#: How cosines become brightness, for raw ones are flat. softmax: exp((s − largest) / temperature), a softmax over the image as a share
#: of its largest value. percentile: straight from the image's median, and all below it, at 0 to its largest at 1.
Sharpening = Literal["softmax", "percentile"]
SHARPENINGS: tuple[Sharpening, ...] = get_args(Sharpening)

#: Of the softmax.
SOFTMAX_TEMPERATURE = 0.05
#: What becomes 0 with `percentile`.
MEDIAN = 50.0


def similarity_maps(
    points: Any,
    map_a: Float[np.ndarray, "ha wa D"] | Float[Tensor, "ha wa D"],
    frame_a: Frame,
    map_b: Float[np.ndarray, "hb wb D"] | Float[Tensor, "hb wb D"],
    frame_b: Frame,
    *,
    valid_b: Bool[np.ndarray, "hb wb"] | None = None,
) -> Float[np.ndarray, "K hb wb"]:
    """The cosines of the descriptors at K points of A with the descriptor of every patch of B.

    The descriptor at a point is that of `transfer_points`, whose answer is the patch of the largest cosine here.

    Args:
        points: (K, 2) pixels of A, x then y, pixel centres at integers; anything that NumPy makes such an array of.
        map_a, map_b: feature maps of the two images, by the same encoder. frame_a, frame_b: their geometry.
        valid_b: patches of B to look at. None is all.

    Returns:
        (K, hb, wb); NaN at padding, at what `valid_b` leaves out, and at descriptors of zeros.

    Raises:
        InputError: a point that is not in A or in a part that the encoder did not see, or maps that do not fit.
    """
    xy = checked_points(points, frame_a)
    a, real_a = unit_descriptors(map_a, frame_a, None, "a")
    b, real_b = unit_descriptors(map_b, frame_b, valid_b, "b")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"expected maps of one length of descriptor, got {a.shape[1]} and {b.shape[1]}")
    precision = torch.promote_types(a.dtype, b.dtype)
    queries = mixed_descriptors(grid_places(xy, frame_a), xy, a.to(b.device, precision), real_a.reshape(frame_a.grid))
    cosines = (queries @ b.to(precision).T).clamp(-1, 1).cpu().numpy()
    return np.asarray(np.where(real_b, cosines, np.nan)).reshape(len(xy), *frame_b.grid)


def sharpened(
    similarity: Float[np.ndarray, "h w"],
    rule: Sharpening = "softmax",
    *,
    temperature: float = SOFTMAX_TEMPERATURE,
) -> Float[np.ndarray, "h w"]:
    """Cosines as brightness from 0 to 1, which is that of the largest; 0 where there is none (NaN).

    With `percentile`, 1 everywhere that the cosine is the largest one, if that is the median too.

    Raises:
        InputError: an unknown rule, or a temperature that is not positive.
    """
    if rule not in SHARPENINGS:
        raise InputError(f"no sharpening called {rule}: expected one of {', '.join(SHARPENINGS)}")
    if not temperature > 0:
        raise InputError(f"expected a temperature above 0, got {temperature:g}")
    known = np.isfinite(similarity)
    if not known.any():
        return np.zeros(similarity.shape)
    values = np.where(known, similarity, -np.inf).astype(np.float64)
    largest = values.max()
    if rule == "softmax":
        return np.asarray(np.exp((values - largest) / temperature))
    middle = np.percentile(values[known], MEDIAN)
    if largest == middle:
        return np.asarray((values == largest).astype(np.float64))
    return np.asarray(np.clip((values - middle) / (largest - middle), 0, 1))
