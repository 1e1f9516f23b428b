"""What happens to each pair of images in `fewmatch match`, step by step."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewmatch.cli.inputs.maps import ImageMaps
from fewmatch.cli.inputs.views import View, Views, masks_of, open_views

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.matching import Flow, Matches, MirrorChoice, Transferred


@dataclass(frozen=True)
class MatchSteps:
    """What the user asks for, each as the option of that name; None is the room's own choice."""

    foreground: Literal["none", "pca", "cls"] = "none"
    masks: Sequence[Path] = ()
    mirror: Literal["never", "nearest", "mutual"] = "never"
    min_score: float | None = None
    max_ratio: float | None = None
    exclusion: float | None = None
    max_cycle: float = 0.0
    coarse_to_fine: int | None = None
    fine_size: int | None = None
    refine: Literal["none", "soft-argmax"] = "none"
    window: int | None = None
    temperature: float | None = None
    verify: Literal["none", "homography", "affine", "fundamental"] = "none"
    threshold: float | None = None
    inliers: bool = False
    count: int | None = None
    select: Literal["spread", "buddies"] | None = None
    seed: int | None = None
    points: Sequence[tuple[float, float]] = ()
    flow: bool = False
    warp: bool = False
    heat: bool = False

    def check(self) -> None:
        """Refuse what would be ignored, before anything is encoded."""
        from fewmatch.errors import InputError

        for given, option, needed, there in (
            (self.exclusion, "--exclusion", "--max-ratio", self.max_ratio is not None),
            (self.window, "--window", "--refine soft-argmax", self.refine != "none"),
            (self.temperature, "--temperature", "--refine soft-argmax", self.refine != "none"),
            (self.threshold, "--threshold", "--verify", self.verify != "none"),
            (self.inliers or None, "--inliers", "--verify", self.verify != "none"),
            (self.select, "--select", "--count", self.count is not None),
            (self.seed, "--seed", "--verify or --select buddies", self.verify != "none" or self.select == "buddies"),
        ):
            if given is not None and not there:
                raise InputError(f"{option} is for {needed}, which is not asked for")
        if self.masks and self.foreground != "none":
            raise InputError("--mask and --foreground together: expected one of them")
        if self.coarse_to_fine is not None and self.fine_size is not None:
            raise InputError("--coarse-to-fine and --fine-size together: expected one of them")
        if self.coarse_to_fine is not None and self.coarse_to_fine < 2:
            raise InputError(f"expected --coarse-to-fine of 2 patches or more, got {self.coarse_to_fine}")
        if self.threshold is not None and not 0 < self.threshold < float("inf"):
            raise InputError(f"expected --threshold of more than 0 pixels, got {self.threshold}")
        if self.count is not None and self.count < 1:
            raise InputError(f"expected --count of 1 or more, got {self.count}")

    def to_json(self) -> dict[str, Any]:
        """What was asked for, for results; None is the default, which the documentation names."""
        return {
            "foreground": "mask" if self.masks else self.foreground,
            "mirror": self.mirror,
            "min_score": self.min_score,
            "max_ratio": self.max_ratio,
            "exclusion": self.exclusion,
            "max_cycle": self.max_cycle,
            "coarse_to_fine": self.coarse_to_fine,
            "fine_size": self.fine_size,
            "refine": self.refine,
            "window": self.window,
            "temperature": self.temperature,
            "verify": self.verify,
            "threshold": self.threshold,
            "inliers": self.inliers,
            "count": self.count,
            "select": self.select,
            "seed": self.seed,
        }

    @property
    def words(self) -> str:
        """What the matches are, for captions."""
        words = "matches that lead back" if self.max_cycle else "mutual nearest patches"
        words += "" if self.fine_size is None else f", looked for again at {self.fine_size} px"
        words += (
            "" if self.coarse_to_fine is None else f", by way of {self.coarse_to_fine} × {self.coarse_to_fine} patches"
        )
        chosen = self.inliers or (self.verify != "none" and self.count is not None)
        return words + (f" that agree with the {self.verify}" if chosen else "")

    @property
    def window_options(self) -> dict[str, Any]:
        given = {"half_width": self.window, "temperature": self.temperature}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class FoundPair:
    """What was found in images a and b (indices).

    mirror: how the image and its mirror image compare. points: where the given points are. heat: (K, h, w) cosines with each point.
    flow: of A to B. carried: of B to A, which carries A's colours. Each is None where it was not asked for.
    """

    a: int
    b: int
    matches: Matches
    mirror: MirrorChoice | None = None
    points: Transferred | None = None
    heat: np.ndarray | None = None
    flow: Flow | None = None
    carried: Flow | None = None


@dataclass(frozen=True)
class PairFinder:
    """Matches pairs of images. masks: of each image, the patches that take part in matching at `--size`, None for all."""

    steps: MatchSteps
    _views: Views
    _fine: Views | None

    @property
    def masks(self) -> list[np.ndarray | None]:
        return self._views.masks

    def find(self, pairs: Sequence[tuple[int, int]]) -> Iterator[FoundPair]:
        """One result for each pair; an image is read once for all pairs in a row that begin with it."""
        s, last = self.steps, -1
        for a, b in pairs:
            if a != last:
                as_it_is, fine_a = self._views.view(a), {}
                turned = None if s.mirror == "never" else self._views.view(a, mirrored=True)
                last = a
            view_a, view_b, choice = as_it_is, self._views.view(b), None
            if turned is not None:
                choice = self._mirror(view_a, turned, view_b)
                view_a = turned if choice.mirrored else view_a
            mirrored = choice is not None and choice.mirrored
            coarse = fine = view_a, view_b
            if s.coarse_to_fine is not None:
                coarse = self._pooled(view_a), self._pooled(view_b)
            matches = dataclasses.replace(self._match(*coarse), mirrored=mirrored)
            if self._fine is not None:
                if mirrored not in fine_a:
                    fine_a[mirrored] = self._fine.view(a, mirrored)
                fine = fine_a[mirrored], self._fine.view(b)
            if coarse is not fine:
                matches = self._finer(matches, coarse, fine)
            matches = self._chosen(self._verified(self._refined(matches, *fine), fine[1]), *fine)
            yield FoundPair(
                a,
                b,
                matches,
                choice,
                self._points(coarse, fine) if s.points else None,
                self._heat(view_a, view_b) if s.heat else None,
                self._flow(view_a, view_b) if s.flow else None,
                self._flow(view_b, view_a) if s.warp else None,
            )

    def _mirror(self, a: View, turned: View, b: View) -> MirrorChoice:
        from fewmatch.matching import choose_mirror

        assert self.steps.mirror != "never"
        return choose_mirror(
            a.map,
            a.frame,
            turned.map,
            turned.frame,
            b.map,
            b.frame,
            valid_a=a.valid,
            valid_b=b.valid,
            by=self.steps.mirror,
        )

    def _match(self, a: View, b: View) -> Matches:
        from fewmatch.matching import match
        from fewmatch.matching.matches import EXCLUSION

        s = self.steps
        return match(
            a.map,
            a.frame,
            b.map,
            b.frame,
            valid_a=a.valid,
            valid_b=b.valid,
            min_score=s.min_score,
            max_ratio=s.max_ratio,
            max_cycle=s.max_cycle,
            exclusion=EXCLUSION if s.exclusion is None else s.exclusion,
        )

    def _pooled(self, view: View) -> View:
        from fewmatch.matching import pooled

        assert self.steps.coarse_to_fine is not None
        return View(*pooled(view.map, view.frame, self.steps.coarse_to_fine, valid=view.valid), None)

    def _finer(self, matches: Matches, coarse: tuple[View, View], fine: tuple[View, View]) -> Matches:
        from fewmatch.matching import coarse_to_fine

        a, b = fine
        return coarse_to_fine(
            matches,
            coarse[0].frame,
            coarse[1].frame,
            a.map,
            a.frame,
            b.map,
            b.frame,
            valid_a=a.valid,
            valid_b=b.valid,
        )

    def _refined(self, matches: Matches, a: View, b: View) -> Matches:
        from fewmatch.matching import refine

        if self.steps.refine == "none":
            return matches
        return refine(matches, a.map, a.frame, b.map, b.frame, valid_b=b.valid, **self.steps.window_options)

    def _verified(self, matches: Matches, b: View) -> Matches:
        from fewmatch.matching import inliers_of, patch_length, verified

        s = self.steps
        if s.verify == "none":
            return matches
        threshold = patch_length(b.frame) if s.threshold is None else s.threshold
        matches = verified(matches, s.verify, threshold=threshold, seed=s.seed or 0)
        return inliers_of(matches) if s.inliers else matches

    def _chosen(self, matches: Matches, a: View, b: View) -> Matches:
        """At most `--count`, of those that agree with the model where there is one."""
        from fewmatch.matching import best_buddies, inliers_of

        s = self.steps
        if s.count is None:
            return matches
        if matches.geometry is not None and matches.geometry.matrix is not None:
            matches = inliers_of(matches)
        if s.select == "buddies":
            return best_buddies(matches, a.map, a.frame, b.map, b.frame, s.count, seed=s.seed or 0)
        return matches.spread(s.count)

    def _points(self, coarse: tuple[View, View], fine: tuple[View, View]) -> Transferred:
        from fewmatch.matching import transfer_points
        from fewmatch.matching.coarse import transfer_coarse_to_fine
        from fewmatch.matching.transfer import checked_points

        s = self.steps
        a, b = fine
        options = {"valid_b": b.valid, "refine": s.refine, **s.window_options}
        if coarse is fine:
            return transfer_points(s.points, a.map, a.frame, b.map, b.frame, **options)
        first, second = coarse
        if s.coarse_to_fine is not None and a.valid is not None:
            first = self._pooled(
                dataclasses.replace(a, valid=None)
            )  # a mask says where to match, not what may be asked
        return transfer_coarse_to_fine(
            checked_points(s.points, a.frame),
            (first.map, first.frame),
            (second.map, second.frame),
            (a.map, a.frame),
            (b.map, b.frame),
            coarse_valid_b=second.valid,
            **options,
        )

    def _heat(self, a: View, b: View) -> np.ndarray:
        from fewmatch.matching import similarity_maps

        return similarity_maps(self.steps.points, a.map, a.frame, b.map, b.frame, valid_b=b.valid)

    def _flow(self, a: View, b: View) -> Flow:
        from fewmatch.matching import dense_flow

        s = self.steps
        return dense_flow(
            a.map,
            a.frame,
            b.map,
            b.frame,
            valid_a=a.valid,
            valid_b=b.valid,
            refine=s.refine,
            **s.window_options,
        )


@contextlib.contextmanager
def prepared(
    maps: ImageMaps, images: Sequence[Path], pairs: Sequence[tuple[int, int]], steps: MatchSteps
) -> Iterator[PairFinder]:
    """What pairs need besides the maps: foregrounds, mirrored images, finer maps. What has to be encoded for that is, here.

    images: what the user named.

    Raises:
        InputError: masks that do not fit the images, a store where images are needed, or a fine size that is no larger.
    """
    turned = list(dict.fromkeys(a for a, _ in pairs)) if steps.mirror != "never" else []
    masks = masks_of(maps, steps.masks, steps.foreground)
    with open_views(maps, images, masks, mirrored=turned, fine_size=steps.fine_size) as (views, fine):
        yield PairFinder(steps, views, fine)
