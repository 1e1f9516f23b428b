"""Named points in images: marked by people, or found by similarity to what they marked."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fewmatch.errors import InputError
from fewmatch.names import same_name


@dataclass(frozen=True, eq=False)
class Keypoints:
    """The same P parts in N images.

    paths: (N,) names of the images, as the labels or the user wrote them; no two are equal.
    parts: (P,) names of the parts; no two are the same, also not in another spelling (`fewmatch.names.same_name`).
    xy: (N, P, 2) pixels of the original images, x then y, pixel centres at integers; NaN where nothing is known of the place.
    visible: (N, P) whether the part can be seen there; where it can, its place is known.
    score: (N, P) how sure that is; NaN for what people marked, and where nothing is known.
    skeleton: pairs of indices into `parts` between which lines are drawn.
    examined: (N,) whether somebody said of an image which parts it shows, even if it shows none; None where nobody said that no part
        is there. See `labelled`.

    Raises:
        InputError: shapes that do not fit together, names that are not unique, a visible part without a place, or an edge
            of the skeleton to a part that is not there.
    """

    paths: tuple[str, ...]
    parts: tuple[str, ...]
    xy: Float[np.ndarray, "N P 2"]
    visible: Bool[np.ndarray, "N P"]
    score: Float[np.ndarray, "N P"]
    skeleton: tuple[tuple[int, int], ...] = ()
    examined: Bool[np.ndarray, "N"] | None = None

    def __post_init__(self) -> None:
        shape = (len(self.paths), len(self.parts))
        if self.xy.shape != (*shape, 2) or self.visible.shape != shape or self.score.shape != shape:
            raise InputError(
                f"expected places, visibility and scores of {shape[0]} images and {shape[1]} parts, got "
                f"{self.xy.shape}, {self.visible.shape} and {self.score.shape}"
            )
        if self.examined is not None and self.examined.shape != shape[:1]:
            raise InputError(f"expected examined of {shape[0]} images, got {self.examined.shape}")
        parts = [same_name(name) for name in self.parts]
        for what, names in (("image", self.paths), ("part", parts)):
            twice = (
                next((name for i, name in enumerate(names) if name in names[:i]), None)
                if len(set(names)) < len(names)
                else None
            )
            if twice is not None:
                raise InputError(f"the {what} {twice} is there twice")
        if (self.visible & ~np.isfinite(self.xy).all(axis=2)).any():
            n, p = np.argwhere(self.visible & ~np.isfinite(self.xy).all(axis=2))[0]
            raise InputError(f"{self.parts[p]} in {self.paths[n]} is visible but has no place")
        if any(not 0 <= end < len(self.parts) for edge in self.skeleton for end in edge):
            raise InputError(f"expected a skeleton between parts 0 to {len(self.parts) - 1}, got {self.skeleton}")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def placed(self) -> Bool[np.ndarray, "N P"]:
        """Where a place is known, whether the part can be seen there or not."""
        return np.asarray(np.isfinite(self.xy).all(axis=2))

    @property
    def labelled(self) -> Bool[np.ndarray, "N"]:
        """Images of which something is known: some part has a place, or somebody said that none is there. The others nobody looked at."""
        placed = self.placed.any(axis=1)
        return np.asarray(placed if self.examined is None else placed | self.examined)

    def take(self, images: Sequence[int] | Int[np.ndarray, "n"] | Bool[np.ndarray, "N"]) -> Keypoints:
        """Some of the images, in this order."""
        index = np.arange(len(self))[np.asarray(images)] if len(images) else np.zeros(0, np.int64)
        return dataclasses.replace(
            self,
            paths=tuple(self.paths[i] for i in index),
            xy=self.xy[index],
            visible=self.visible[index],
            score=self.score[index],
            examined=None if self.examined is None else self.examined[index],
        )

    def in_order(self, parts: Sequence[str]) -> Keypoints:
        """The same with the parts in this order, and spelled like this.

        Raises:
            InputError: not the same parts.
        """
        wanted, own = [same_name(part) for part in parts], [same_name(part) for part in self.parts]
        if sorted(wanted) != sorted(own):
            odd = sorted(set(wanted) ^ set(own))
            raise InputError(
                f"expected the parts {', '.join(parts)}, got {', '.join(self.parts)}: {odd[0]} is in one of them only"
            )
        index = [own.index(part) for part in wanted]
        place = {old: new for new, old in enumerate(index)}
        return dataclasses.replace(
            self,
            parts=tuple(parts),
            xy=self.xy[:, index],
            visible=self.visible[:, index],
            score=self.score[:, index],
            skeleton=tuple((place[a], place[b]) for a, b in self.skeleton),
        )

    def for_images(self, images: Sequence[int | None], paths: Sequence[str]) -> Keypoints:
        """Images in this order under these names; nothing is known of those whose index is None."""
        known = np.array([i is not None for i in images], bool)
        index = np.array([i or 0 for i in images], np.int64)
        return dataclasses.replace(
            self,
            paths=tuple(paths),
            xy=np.where(known[:, None, None], self.xy[index], np.nan),
            visible=self.visible[index] & known[:, None],
            score=np.where(known[:, None], self.score[index], np.nan),
            examined=None if self.examined is None else self.examined[index] & known,
        )

    def to_json(self) -> list[dict[str, Any]]:
        """One entry for each image and part: path, part, x, y, score, visible; null for what is not known."""
        return [
            {
                "path": path,
                "part": part,
                "x": _number(self.xy[n, p, 0]),
                "y": _number(self.xy[n, p, 1]),
                "score": _number(self.score[n, p]),
                "visible": bool(self.visible[n, p]),
            }
            for n, path in enumerate(self.paths)
            for p, part in enumerate(self.parts)
        ]


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
