"""What labelled images say of each part: unit descriptors at its labelled points, centred and whitened as those that are searched."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewmatch.errors import InputError
from fewmatch.matching.keypoints.maps import View, centred_descriptors, descriptors_at, differences
from fewmatch.matching.nearest.nearest import as_tensor

#: The sum of unit vectors is shorter than this where they cancel out.
_CANCELLED = 1e-6

#: Which mean of raw descriptors is subtracted. none: nothing. image: each image's own. labelled: that of all patches of the labelled images.
KeypointCenter = Literal["none", "image", "labelled"]
KEYPOINT_CENTERS: tuple[KeypointCenter, ...] = get_args(KeypointCenter)

#: How the shots of a part are used. mean: the mean of their descriptors. nearest: each by itself, and the best of them counts at every place.
ShotUse = Literal["mean", "nearest"]
SHOT_USES: tuple[ShotUse, ...] = get_args(ShotUse)


@dataclass(frozen=True, eq=False)
class Prototypes:
    """The labelled points of one encoding: what to do with raw descriptors, and those of the parts after that.

    center: see `KeypointCenter`. mean: (D,) float64, with `labelled`.
    whitening: (D, D) symmetric, by which centred descriptors are multiplied before they are made unit vectors; None for no whitening.
    shots: (N, P, D) unit descriptors of P parts in N labelled images; NaN where a part is not labelled.
    """

    center: KeypointCenter
    mean: Float[Tensor, "D"] | None
    whitening: Float[Tensor, "D D"] | None
    shots: Float[Tensor, "N P D"]

    def descriptors(self, view: View, name: str = "the map") -> Float[Tensor, "h w D"]:
        """The unit descriptors of a map, centred and whitened as the shots are; zero at padding and where there is no direction.

        Raises:
            InputError: a map that does not fit its frame or the shots, or with features that are not finite.
        """
        x = centred_descriptors(view, self.subtracted, self.whitening, name)
        if x.shape[2] != self.shots.shape[2]:
            raise InputError(f"expected descriptors of {self.shots.shape[2]} dimensions in {name}, got {x.shape[2]}")
        return x

    @property
    def subtracted(self) -> Float[Tensor, "D"] | str | None:
        """The mean, as `centred_descriptors` takes it."""
        return "image" if self.center == "image" else self.mean

    def vectors(self, use: ShotUse, images: Bool[np.ndarray, "N"] | None = None) -> Float[Tensor, "K P D"]:
        """The unit vectors that are compared with every place: K is 1 with `mean`, the number of images with `nearest`.

        A mean is made a unit vector, so that its product with a unit descriptor is a cosine; shots that cancel out give zeros. NaN where a
        part is not labelled in these images.
        """
        shots = self.shots if images is None else self.shots[torch.from_numpy(images)]
        if use == "nearest":
            return shots
        total = torch.nansum(shots, dim=0, keepdim=True)
        norm = torch.linalg.vector_norm(total, dim=2, keepdim=True)
        unit = torch.where(norm > _CANCELLED, total / norm.clamp_min(_CANCELLED), 0.0)
        labelled = torch.isfinite(shots).any(dim=0, keepdim=True)
        return torch.where(labelled, unit, torch.nan)


def part_prototypes(
    views: Sequence[View],
    xy: Float[np.ndarray, "N P 2"],
    *,
    center: KeypointCenter = "labelled",
    whitening: float | None = None,
    names: Sequence[str] | None = None,
) -> Prototypes:
    """The prototypes of one encoding of N labelled images, from the points of P parts in each.

    Descriptors are centred by a mean of raw ones and made unit vectors; the descriptor at a point is the bilinear mixture of those of the
    patches around it, made a unit vector (`keypoint_maps.descriptors_at`). With whitening they are, between the two, multiplied by
    (C + λ·c·I)^(−½), where C is the covariance of all patches of the labelled images (with `image`, after each image's own mean is
    subtracted), and c the mean of its diagonal.

    Args:
        views: the map and the frame of each labelled image, by the same encoder and at the same size.
        xy: pixels of the original images; NaN where a part is not labelled.
        whitening: λ, larger for less of it; None for none.
        names: of the images, for errors.

    Raises:
        InputError: options out of range, no image, a point that the encoder did not see, or maps that do not fit together.

    Source: the whitening of discriminative decorrelation (Hariharan, Malik and Ramanan 2012), which tells one example from the
    statistics of all patches.
    """
    if center not in KEYPOINT_CENTERS:
        raise InputError(f"expected center to be one of {', '.join(KEYPOINT_CENTERS)}, got {center!r}")
    if whitening is not None and not 0 < whitening < np.inf:
        raise InputError(f"expected a whitening above 0, got {whitening:g}")
    if not len(views) or len(views) != len(xy):
        raise InputError(f"expected a view of each labelled image, got {len(views)} for {len(xy)} images")
    names = names or [f"labelled image {i}" for i in range(1, len(views) + 1)]
    empty = Prototypes(center, None, None, torch.zeros(len(views), xy.shape[1], as_tensor(views[0][0]).shape[-1]))
    if center == "labelled" or whitening is not None:
        mean, covariance = _moments(views, "image" if center == "image" else None, names)
        if center == "labelled":
            empty = dataclasses.replace(empty, mean=mean)
        if whitening is not None:
            empty = dataclasses.replace(empty, whitening=_inverse_root(covariance, whitening))
    shots = []
    for view, points, name in zip(views, xy, names, strict=True):
        at = descriptors_at(points, empty.descriptors(view, name), view[1])
        lost = np.isfinite(points).all(axis=1) & ~torch.isfinite(at).all(dim=1).cpu().numpy()
        if lost.any():
            x, y = points[int(np.flatnonzero(lost)[0])]
            raise InputError(
                f"{name}: no descriptor at ({x:g}, {y:g}): the place was cut off before encoding (another resize rule, as keep, "
                "sees it), or the patches there do not differ from the mean that is subtracted"
            )
        shots.append(at.cpu())
    return dataclasses.replace(empty, shots=torch.stack(shots))


def _inverse_root(covariance: Float[Tensor, "D D"], shrinkage: float) -> Float[Tensor, "D D"] | None:
    """(C + λ·c·I)^(−½); None where all patches are the same."""
    values, axes = torch.linalg.eigh(covariance)
    floor = shrinkage * values.mean()
    if not floor > 0:
        return None
    root: Tensor = axes @ torch.diag((values.clamp_min(0) + floor) ** -0.5) @ axes.T
    return root


def _moments(
    views: Sequence[View], subtracted: Float[Tensor, "D"] | str | None, names: Sequence[str]
) -> tuple[Float[Tensor, "D"], Float[Tensor, "D D"]]:
    """Mean and covariance, in float64, of all patches that take part, after a mean is subtracted."""
    total, products, count = torch.zeros(0), torch.zeros(0), 0
    for view, name in zip(views, names, strict=True):
        x, usable, _ = differences(view, subtracted, name)
        x = x[torch.from_numpy(usable).to(x.device)].double().cpu()
        if count and x.shape[1] != len(total):
            raise InputError(f"expected descriptors of {len(total)} dimensions in {name}, got {x.shape[1]}")
        total = x.sum(dim=0) + (total if count else 0)
        products = x.T @ x + (products if count else 0)
        count += len(x)
    if not count:
        raise InputError("no patch of the labelled images has a descriptor other than zero")
    mean = total / count
    return mean, products / count - mean[:, None] * mean
