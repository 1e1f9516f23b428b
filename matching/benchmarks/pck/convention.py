"""Everything that decides a PCK number besides the features: published numbers of the same features differ by it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from fewmatch.encoders.frame import RESIZE_RULES, ResizeRule
from fewmatch.errors import InputError
from fewmatch.matching.matches import EXCLUSION, check_filters
from fewmatch.matching.mirror import MirrorRule

#: What a distance is measured against, T. The target is the image in which points are looked for, in whichever direction.
#: bbox: the longer side of the object's box, right − left or bottom − top. image: the longer side of the image. keypoints: the longer side
#: of the box around the points of the pair. fixed: so many pixels.
Threshold = Literal[
    "bbox-target", "bbox-source", "image-target", "image-source", "keypoints-target", "keypoints-source", "fixed"
]
THRESHOLDS: tuple[Threshold, ...] = get_args(Threshold)
#: Which image's points are looked for in the other; both pools the points of the two.
Direction = Literal["a-to-b", "b-to-a", "both"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
#: The descriptor of a given point; see `locate`.
SourceRule = Literal["bilinear", "patch", "align-corners", "pixel", "covering"]
SOURCE_RULES: tuple[SourceRule, ...] = get_args(SourceRule)
#: Where a found patch lies; see `locate`.
TargetRule = Literal["centre", "offset", "pixel", "displacement"]
TARGET_RULES: tuple[TargetRule, ...] = get_args(TargetRule)
#: What the cells around a window of the soft-argmax count as.
Outside = Literal["-inf", "zero"]
OUTSIDES: tuple[Outside, ...] = get_args(Outside)
#: When the source is looked up in its mirror image; see `choose_mirror`.
Flip = Literal["none", "nearest", "mutual"]
FLIPS: tuple[Flip, ...] = get_args(Flip)
#: Which patches take part, besides those on the image: all, those of a foreground (`foreground_masks`), or of given masks.
Where = Literal["everywhere", "pca", "cls", "masks"]
WHERES: tuple[Where, ...] = get_args(Where)
#: image: over pairs the mean of each pair's share. point: of all points the share. category: the mean over categories of the share of
#: their points; category-weighted: that mean weighted by the pairs of the category. category-image: the mean over categories of their `image`.
Average = Literal["image", "point", "category", "category-weighted", "category-image"]
AVERAGES: tuple[Average, ...] = get_args(Average)

#: What tells how right points are counted, and changes nothing about where they are found.
_COUNTING = ("name", "note", "alphas", "alpha", "inclusive", "average")


@dataclass(frozen=True)
class Convention:
    """How points are found from features, and how right ones are counted.

    name, note: of the preset that it began as, and what that does differently.
    threshold, fixed: T, and its pixels where it is `fixed`. alphas: a point is right within α·T, each α in turn. alpha: the one of the
        headline. inclusive: whether a point at exactly α·T is right (`<=`) or not (`<`).
    direction: one of `DIRECTIONS`. average: that of the headline; all are reported.
    size, resize: of the encoder's input (see `fewmatch.encode_images`), None for the encoder's own size. layer, raw, facet, stride: the tap
        (see `fewmatch.tapped`), None for the stride of whole patches. dtype: in which the encoder ran, None where it is not known yet.
    source: of `SOURCE_RULES`. target: of `TARGET_RULES`. offset: with `offset`, where in a patch its place is: a share of its side and
        pixels of the encoder's input that are added.
    exclude_padding: whether padding can be found. window: half the side of the window of the soft-argmax in patches, None for none.
        temperature, outside: of that.
    flip: one of `FLIPS`.
    where: one of `WHERES`. fine_size: of a second encoding, in which each point is looked for again near the place that the first one finds.
        coarse_to_fine: means of so many patches in each direction tell where to look among the patches.
    min_score, max_ratio, max_cycle: which points count as found, by the cosine, the ratio and `returned` of `transfer_points`; others are
        wrong, wherever they are. None asks for nothing. exclusion: radius of the ratio in patches.

    Raises:
        InputError: a rule that there is not, numbers out of range, or rules that exclude each other.
    """

    name: str = "exact"
    note: str = ""
    threshold: Threshold = "bbox-target"
    fixed: float | None = None
    alphas: tuple[float, ...] = (0.01, 0.05, 0.1)
    alpha: float = 0.1
    inclusive: bool = True
    direction: Direction = "a-to-b"
    average: Average = "image"
    size: int | None = None
    resize: ResizeRule = "keep"
    layer: str = "last"
    raw: bool = False
    facet: str = "token"
    stride: int | None = None
    dtype: str | None = None
    source: SourceRule = "bilinear"
    target: TargetRule = "centre"
    offset: tuple[float, float] = (0.5, 0.0)
    exclude_padding: bool = True
    window: int | None = None
    temperature: float = 0.02
    outside: Outside = "-inf"
    flip: Flip = "none"
    where: Where = "everywhere"
    fine_size: int | None = None
    coarse_to_fine: int | None = None
    min_score: float | None = None
    max_ratio: float | None = None
    exclusion: float = EXCLUSION
    max_cycle: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (
            ("threshold", THRESHOLDS),
            ("direction", DIRECTIONS),
            ("average", AVERAGES),
            ("source", SOURCE_RULES),
            ("target", TARGET_RULES),
            ("outside", OUTSIDES),
            ("flip", FLIPS),
            ("where", WHERES),
            ("resize", RESIZE_RULES),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"expected {name} to be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.resize == "crop":
            raise InputError("resize crop would cut off points that count: expected keep, pad or squash")
        if (self.threshold == "fixed") != (self.fixed is not None):
            raise InputError(
                f"expected a number of pixels with threshold fixed and with no other, got threshold {self.threshold} and {self.fixed}"
            )
        for name, value in (("fixed", self.fixed), ("temperature", self.temperature)):
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"expected {name} above 0, got {value}")
        if not self.alphas or not all(0 <= alpha < math.inf for alpha in self.alphas):
            raise InputError(f"expected alphas of 0 or more, at least one, got {self.alphas}")
        if len({key_of(alpha) for alpha in self.alphas}) < len(self.alphas):
            raise InputError(f"expected alphas that differ in six digits, got {self.alphas}")
        if self.alpha not in self.alphas:
            raise InputError(f"expected the headline's alpha among {self.alphas}, got {self.alpha}")
        if not all(math.isfinite(part) for part in self.offset):
            raise InputError(f"expected an offset of two finite numbers, got {self.offset}")
        if self.window is not None and self.window < 0:
            raise InputError(f"expected a window of half-width 0 or more, got {self.window}")
        if (self.source == "covering") != (self.target == "displacement"):
            raise InputError(
                f"source covering and target displacement belong together, got {self.source} and {self.target}"
            )
        if self.window is not None and self.target in ("pixel", "displacement"):
            raise InputError(f"a window soft-argmax ends between patches: it does not go with target {self.target}")
        check_filters(self.min_score, self.max_ratio, self.exclusion, 0.0 if self.max_cycle is None else self.max_cycle)
        if self.fine_size is not None and self.coarse_to_fine is not None:
            raise InputError("fine_size and coarse_to_fine together: expected one of them")
        if self.fine_size is not None and self.size is not None and self.fine_size <= self.size:
            raise InputError(f"expected a fine size above the size, which is {self.size}, got {self.fine_size}")
        if self.coarse_to_fine is not None and self.coarse_to_fine < 2:
            raise InputError(f"expected coarse_to_fine of 2 patches or more, got {self.coarse_to_fine}")
        if not self.exact_places and (self.fine_size is not None or self.coarse_to_fine is not None or self.filters):
            raise InputError(
                "a fine size, coarse to fine, and filters by score, ratio and cycle go with exact places alone: source bilinear, target "
                "centre, no padding found, and a window, if any, with -inf outside"
            )

    @property
    def exact_places(self) -> bool:
        """Whether points are found as `transfer_points` has it."""
        return (
            (self.source, self.target) == ("bilinear", "centre")
            and self.exclude_padding
            and (self.window is None or self.outside == "-inf")
        )

    @property
    def filters(self) -> bool:
        """Whether a point may count as not found."""
        return any(limit is not None for limit in (self.min_score, self.max_ratio, self.max_cycle))

    @property
    def flip_rule(self) -> MirrorRule | None:
        """The rule for `choose_mirror`, None where nothing is mirrored."""
        return None if self.flip == "none" else self.flip

    def fitted(self, patch: int) -> Convention:
        """The same with the multiple of the encoder's patch that is nearest to the size, the larger of two."""
        if self.size is None:
            return self
        return dataclasses.replace(self, size=max(1, math.floor(self.size / patch + 0.5)) * patch)

    def finding(self) -> dict[str, Any]:
        """What decides distances and T, for keys: counting the same distances in another way needs no encoder."""
        return {name: value for name, value in self._fields().items() if name not in _COUNTING}

    def to_json(self) -> dict[str, Any]:
        """Every field by name, and `in_words` the same for a reader."""
        return self._fields() | {"in_words": self.in_words()}

    def _fields(self) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}

    def in_words(self) -> dict[str, str]:
        """What to print next to a number: one line for each thing that decides it."""
        sign = "≤" if self.inclusive else "<"
        base = self.threshold.partition("-")[0]
        what = {
            "bbox": "longer side of the {}'s box",
            "image": "longer side of the {} image",
            "keypoints": "longer side of the box around the {}'s points",
            "fixed": f"{self.fixed} px",
        }[base].format(self.threshold.rpartition("-")[2])
        block = f"{self.layer} {'block' if self.layer == 'last' else '(layer)'}"
        tap = f"{block}, {self.facet}, {'before the final norm' if self.raw else 'after the final norm'}"
        stride = "" if self.stride is None else f", stride {self.stride}"
        source = {
            "bilinear": "bilinear between the centres of patches, unit descriptors",
            "patch": "the patch floor(x·n/size)",
            "align-corners": "bilinear with the corners of the image at the centres of the outermost patches",
            "pixel": "of the pixel, features enlarged bilinearly",
            "covering": "each patch that covers the point",
        }[self.source]
        share, pixels = self.offset
        target = {
            "centre": "exact centre of the patch",
            "offset": f"patch's corner + {share:g} of its side {'−' if pixels < 0 else '+'} {abs(pixels):g} px, in pixels of the input",
            "pixel": "best pixel of features enlarged bilinearly",
            "displacement": "the point's own place in its patch, kept in the patch found; the mean over patches that cover it",
        }[self.target]
        window = "none"
        if self.window is not None:
            side = 2 * self.window + 1
            window = f"soft-argmax over {side}×{side} patches, temperature {self.temperature:g}, {self.outside} outside"
        finer = "none"
        if self.fine_size is not None:
            finer = f"looked for again at {self.fine_size} px, near the place found"
        elif self.coarse_to_fine is not None:
            finer = f"by way of means of {self.coarse_to_fine} × {self.coarse_to_fine} patches"
        filters = [
            f"{words} {limit:g}"
            for words, limit in (
                ("cosine ≥", self.min_score),
                (f"ratio to the best more than {self.exclusion:g} patches away ≤", self.max_ratio),
                ("patches between a point and where it leads back to ≤", self.max_cycle),
            )
            if limit is not None
        ]
        direction = {
            "a-to-b": "source to target",
            "b-to-a": "target to source (the benchmark's target is the source here)",
            "both": "both, points pooled",
        }[self.direction]
        size = "the encoder's own" if self.size is None else f"{self.size} px"
        return {
            "threshold": f"error {sign} α·T, T = {what}",
            "direction": direction,
            "size": f"{size}, {self.resize}",
            "tap": tap + stride,
            "average": _AVERAGE_WORDS[self.average],
            "source": source,
            "half_patch": target,
            "padding": "cannot be found" if self.exclude_padding else "can be found",
            "window": window,
            "where": _WHERE_WORDS[self.where],
            "finer": finer,
            "filters": ", ".join(filters) or "none",
            "flip": "none" if self.flip == "none" else f"source or its mirror image, whichever is nearer ({self.flip})",
            "dtype": self.dtype or "not stated",
        }


def key_of(alpha: float) -> str:
    """An alpha as results name it: `0.1`."""
    return f"{alpha:g}"


_AVERAGE_WORDS: dict[Average, str] = {
    "image": "per image: mean over pairs",
    "point": "per point",
    "category": "per point in each category, then the mean of categories",
    "category-weighted": "per point in each category, then the mean of categories weighted by their pairs",
    "category-image": "per image in each category, then the mean of categories",
}
_WHERE_WORDS: dict[Where, str] = {
    "everywhere": "all of the image",
    "pca": "foreground by principal components of all images' patches",
    "cls": "foreground by similarity to the image's global vector",
    "masks": "given masks",
}
