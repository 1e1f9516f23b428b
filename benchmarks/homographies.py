"""Photos under known homographies, and a stereo pair: matches of patches by fewmatch against SIFT with OpenCV's matcher.

    python benchmarks/homographies.py
    python benchmarks/homographies.py --sizes 256 --draws 1 --figures DIR

The photos come with scikit-image. Image A is the photo; image B is a window of it, turned, slanted, enlarged or in another light, so
that every pixel of B is in A and the true homography is known.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from machine import add_numbers, machine, options_parser, parse_numbers
from PIL import Image

import fewmatch
from fewmatch.encoders import FeatureStore
from fewmatch.matching import Matches, disparity_error
from fewmatch.matching.geometry.geometry import fit_geometry, geometry_error, project
from fewmatch.matching.geometry.verification import log_false_alarms, patch_length, verified

PHOTOS = ("astronaut", "camera", "chelsea", "coffee", "gravel", "immunohistochemistry", "motorcycle", "rocket")
KINDS = ("viewpoint", "rotation", "scale", "light")
STRENGTHS = ("mild", "strong")
#: A SIFT keypoint is this exact, in pixels: the threshold of its geometry, as usual.
SIFT_THRESHOLD = 3.0
#: Lowe's ratio of the Euclidean distances to the nearest and the second nearest descriptor.
RATIO = 0.8
#: Bounds of a right match and of a right homography, in pixels.
MATCH_PIXELS = 3.0
CORNER_PIXELS = (1.0, 3.0, 5.0)


@dataclass(frozen=True)
class Pair:
    """Two images of one photo; truth takes pixels of A to those of B, and is None for the stereo pair and for different photos."""

    name: str
    kind: str
    a: str
    b: str
    truth: np.ndarray | None


@dataclass(frozen=True)
class Result:
    """One method on one pair. error and patch are in pixels of B; corner, the error of the homography, and patch_a in pixels of A."""

    pair: Pair
    error: np.ndarray
    patch: float
    corner: float
    patch_a: float
    accepted: bool


# ----------------------------------------------------------------------------------------------------------------------
# The pairs


def photo(name: str) -> np.ndarray:
    """uint8 RGB."""
    image = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3])


def window(kind: str, strong: bool, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The four corners (4, 2) of a window in an image of this size, as distances from its left and top edge, clockwise."""
    width, height = size
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    if kind in ("viewpoint", "light"):  # each corner moves inwards by itself
        most = 0.35 if strong and kind == "viewpoint" else 0.15
        inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        return corners + inward * rng.uniform(0, most, (4, 2)) * [width, height]
    if kind == "rotation":  # the largest window of the same shape that fits
        angle = math.radians(rng.uniform(*((30, 60) if strong else (10, 30)))) * rng.choice([-1, 1])
        c, s = math.cos(angle), math.sin(angle)
        shrink = min(width / (width * c + height * abs(s)), height / (width * abs(s) + height * c))
        centre = np.array([width / 2, height / 2])
        return (corners - centre) * shrink @ np.array([[c, s], [-s, c]]) + centre
    share = 1 / rng.uniform(*((1.6, 2.5) if strong else (1.2, 1.6)))
    return (corners + rng.uniform(0, 1, 2) * (1 / share - 1) * [width, height]) * share


def relit(image: np.ndarray, strong: bool, rng: np.random.Generator) -> np.ndarray:
    """Another exponent, tint and brightness; when strong also brighter to one side, with noise."""
    x = (image / 255) ** (2 ** (rng.uniform(0.4, 0.8) * (1.5 if strong else 1) * rng.choice([-1, 1])))
    x *= rng.uniform(0.8, 1.2, 3) * rng.uniform(0.7, 1.1)
    if strong:
        across = np.linspace(-1, 1, image.shape[1])[None, :, None] * rng.choice([-1, 1])
        x = x * (1 + 0.5 * across) + rng.normal(0, 8 / 255, image.shape)
    return np.rint(255 * x.clip(0, 1)).astype(np.uint8)


def make_pairs(folder: Path, draws: int, seed: int) -> list[Pair]:
    """All pairs, their images written as PNG; each from a generator of its own, so that more draws leave the others as they are."""
    pairs = []
    for p, name in enumerate(PHOTOS):
        image = photo(name)
        height, width = image.shape[:2]
        Image.fromarray(image).save(folder / f"{name}.png")
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
        for k, kind in enumerate(KINDS):
            for s, strength in enumerate(STRENGTHS):
                for draw in range(draws):
                    rng = np.random.default_rng((seed, p, k, s, draw))
                    inside = window(kind, strength == "strong", (width, height), rng)
                    # Pixel centres lie half a pixel from the edges.
                    truth = cv2.getPerspectiveTransform(*((c - 0.5).astype(np.float32) for c in (inside, corners)))
                    view = cv2.warpPerspective(
                        image, truth, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
                    )
                    if kind == "light":
                        view = relit(view, strength == "strong", rng)
                    title = f"{name}-{kind}-{strength}-{draw}"
                    Image.fromarray(view).save(folder / f"{title}.png")
                    pairs.append(Pair(title, kind, name, title, truth))
    Image.fromarray(skimage.data.stereo_motorcycle()[1]).save(folder / "motorcycle-right.png")
    pairs.append(Pair("motorcycle", "stereo", "motorcycle", "motorcycle-right", None))
    for a in PHOTOS:
        pairs += [Pair(f"{a} and {b}", "different photos", a, b, None) for b in PHOTOS if a < b]
    return pairs


# ----------------------------------------------------------------------------------------------------------------------
# The methods


class Sift:
    """SIFT keypoints of all images, each found once, matched by OpenCV's brute force."""

    def __init__(self, images: dict[str, np.ndarray]) -> None:
        sift = cv2.SIFT.create()
        self.found = {
            name: sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for name, image in images.items()
        }

    def match(self, pair: Pair, ratio: float | None) -> tuple[np.ndarray, np.ndarray]:
        """Mutual nearest keypoints; with a ratio those whose second nearest in B is that much farther."""
        (points_a, x), (points_b, y) = self.found[pair.a], self.found[pair.b]
        matcher = cv2.BFMatcher(cv2.NORM_L2)
        back = {m.queryIdx: m.trainIdx for m in matcher.match(y, x)}
        kept = [
            nearest
            for nearest, second in matcher.knnMatch(x, y, k=2)
            if back[nearest.trainIdx] == nearest.queryIdx
            and (ratio is None or nearest.distance < ratio * second.distance)
        ]
        return (
            np.array([points_a[m.queryIdx].pt for m in kept], np.float64).reshape(-1, 2),
            np.array([points_b[m.trainIdx].pt for m in kept], np.float64).reshape(-1, 2),
        )


class Maps:
    """The feature maps and frames of all images at one size, each encoded once."""

    def __init__(self, folder: Path, size: int) -> None:
        self.size = size
        encoder = fewmatch.load("mini")
        self.store: FeatureStore = fewmatch.encode_images(
            [folder], encoder, out=folder / f".{size}", keep="patches", size=size
        )
        self.rows = {Path(name).stem: i for i, name in enumerate(self.store.names)}

    def match(self, pair: Pair) -> tuple[Matches, float, float]:
        """The matches, and the side of a patch in pixels of A and of B."""
        (map_a, frame_a), (map_b, frame_b) = (
            (self.store.feature_map(self.rows[name]), self.store.frame(self.rows[name])) for name in (pair.a, pair.b)
        )
        return fewmatch.match(map_a, frame_a, map_b, frame_b), patch_length(frame_a), patch_length(frame_b)


def measure(
    pair: Pair,
    images: dict[str, np.ndarray],
    xy: tuple[np.ndarray, np.ndarray],
    threshold: float,
    patch_a: float,
    patch_b: float,
) -> Result:
    """Errors of the matches, of the homography fitted to them, and whether it is more than chance."""
    (height, width), corner = images[pair.b].shape[:2], math.inf
    if pair.kind == "stereo":
        error = disparity_error(*xy, skimage.data.stereo_motorcycle()[2])
        return Result(pair, error, patch_b, math.nan, patch_a, False)
    fitted = fit_geometry(*xy, "homography", threshold=threshold)
    count = int(fitted.inliers.sum())
    accepted = (
        fitted.matrix is not None
        and log_false_alarms(count, len(xy[0]), "homography", threshold=threshold, size_b=(width, height)) < 0
    )
    if pair.truth is None:
        return Result(pair, np.zeros(0), patch_b, math.nan, patch_a, accepted)
    if fitted.matrix is not None:
        edges = np.array([[0, 0], [width, 0], [width, height], [0, height]]) - 0.5
        there = [project(np.linalg.inv(h), edges) for h in (fitted.matrix, pair.truth)]
        corner = float(np.hypot(*(there[0] - there[1]).T).mean())
    return Result(
        pair,
        geometry_error(pair.truth, *xy, "homography"),
        patch_b,
        corner if math.isfinite(corner) else math.inf,
        patch_a,
        accepted,
    )


# ----------------------------------------------------------------------------------------------------------------------
# The table


def interval(values: Sequence[float]) -> str:
    """A mean in percent with its 95 % interval over pairs, 1.96·s/√n."""
    x = 100 * np.asarray(values, float)
    x = x[np.isfinite(x)]
    if not len(x):
        return "–"
    return f"{x.mean():.0f} ± {1.96 * x.std(ddof=1) / math.sqrt(len(x)):.0f}" if len(x) > 1 else f"{x.mean():.0f}"


def share(error: np.ndarray, most: float) -> float:
    known = error[~np.isnan(error)]
    return float((known <= most).mean()) if len(known) else math.nan


def table(results: dict[str, list[Result]]) -> list[list[str]]:
    rows = []
    for kind in ("all", *KINDS, "stereo"):
        for method, found in results.items():
            some = [r for r in found if r.pair.kind == kind or (kind == "all" and r.pair.kind in KINDS)]
            corners = [r.corner for r in some]
            bounds = [[bound] * len(some) for bound in CORNER_PIXELS] + [[r.patch_a for r in some]]
            known = [c for c in corners if not math.isnan(c)]
            rows.append(
                [
                    f"{kind} ({len(some)})",
                    method,
                    f"{np.mean([r.patch for r in some]):.0f}",
                    f"{np.mean([(~np.isnan(r.error)).sum() for r in some]):,.0f}",
                    interval([share(r.error, r.patch) for r in some]),
                    interval([share(r.error, MATCH_PIXELS) for r in some]),
                    f"{np.median(known):.1f}" if known else "–",
                    *(
                        interval([float(c <= m) for c, m in zip(corners, most, strict=True)] if known else [])
                        for most in bounds
                    ),
                ]
            )
    return rows


def print_table(rows: list[list[str]]) -> None:
    names = [
        *("pairs", "method", "patch px", "matches", "≤ patch %", f"≤ {MATCH_PIXELS:g} px %", "median corner px"),
        *(f"corner ≤ {bound:g} px %" for bound in CORNER_PIXELS),
        "corner ≤ patch %",
    ]
    widths = [max(len(row[i]) for row in [names, *rows]) for i in range(len(names))]
    rule = ["-" * width if i < 2 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    for row in (names, rule, *rows):
        cells = zip(row, widths, strict=True)
        print("| " + " | ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(cells)) + " |")


def draw(maps: Maps, pairs: Sequence[Pair], images: dict[str, np.ndarray], folder: Path) -> None:
    """The first draw of every photo and kind, inliers of the homography only."""
    from fewmatch.figures import MatchedPair, match_figure, save_figure
    from fewmatch.matching.geometry.verification import inliers_of

    folder.mkdir(parents=True, exist_ok=True)
    for pair in pairs:
        if pair.truth is None or not pair.name.endswith("-0"):
            continue
        matches, _, patch_b = maps.match(pair)
        kept = verified(matches, "homography", threshold=patch_b)
        assert kept.geometry is not None
        caption = (
            f"{pair.name}: {int(kept.geometry.inliers.sum())} of {len(kept)} mutual nearest patches agree with one homography; "
            f"mini at {maps.size} px{'; ' + kept.geometry.reason if kept.geometry.reason else ''}"
        )
        drawn = MatchedPair(images[pair.a], images[pair.b], inliers_of(kept), 60, caption)
        save_figure(match_figure([drawn]), folder / f"{pair.name}.png")


def parse() -> argparse.Namespace:
    parser = options_parser(__doc__)
    parser.add_argument("--sizes", default="128,256,384", help="short sides at which mini sees the images, in pixels")
    numbers = (("--draws", 2, "homographies of each photo, kind and strength"), ("--seed", 0, "of the homographies"))
    add_numbers(parser, numbers)
    parser.add_argument("--figures", type=Path, help="a folder for pictures of fewmatch's matches at the last size")
    options = parse_numbers(parser, ("draws",))
    try:
        options.sizes = [int(size) for size in options.sizes.split(",")]
    except ValueError:
        parser.error(f"expected --sizes like 128,256, got {options.sizes}")
    return options


def main() -> int:
    options = parse()
    print(machine(cv2.getNumThreads(), "opencv-python", "scikit-image"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = make_pairs(folder, options.draws, options.seed)
        images = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
        counted = sum(pair.truth is not None for pair in pairs)
        print(
            f"{len(PHOTOS)} photos, {len(KINDS)} kinds × {len(STRENGTHS)} strengths × {options.draws} draws: {counted} pairs; "
            f"seed {options.seed}\n"
        )
        results: dict[str, list[Result]] = {}
        sides: dict[str, tuple[float, float]] = {}
        for size in options.sizes:
            maps = Maps(folder, size)
            print(f"matching at {size} px", file=sys.stderr)
            for pair in pairs:
                matches, patch_a, patch_b = maps.match(pair)
                sides.setdefault(pair.name, (patch_a, patch_b))
                points = (matches.xy_a, matches.xy_b)
                results.setdefault(f"mini {size}", []).append(measure(pair, images, points, patch_b, patch_a, patch_b))
        if options.figures is not None:
            draw(maps, pairs, images, options.figures)
        print("matching with SIFT", file=sys.stderr)
        sift = Sift(images)
        for method, ratio in (("SIFT", None), (f"SIFT, ratio {RATIO}", RATIO)):
            results[method] = [
                measure(pair, images, sift.match(pair, ratio), SIFT_THRESHOLD, *sides[pair.name]) for pair in pairs
            ]
    print_table(table(results))
    print(
        f"\nmatches: mutual nearest patches of mini, mutual nearest SIFT keypoints; the mean number. ratio {RATIO}: and Lowe's ratio test.\n"
        f"patch: the longer side of mini's patch in pixels of B; for SIFT that of {options.sizes[0]} px.\n"
        "≤ patch, ≤ 3 px: the share of a pair's matches so near their true place in B, and the mean over pairs.\n"
        "corner: the mean distance of the four corners of B, taken to A by the fitted homography, from where they should be; the\n"
        f"homography is fitted with a threshold of one patch (SIFT: {SIFT_THRESHOLD:g} px); none found counts as an infinite error.\n"
        "± is the 95 % interval of the mean over pairs, 1.96·s/√n."
    )
    for method, found in results.items():
        same = [r.accepted for r in found if r.pair.truth is not None]
        other = [r.accepted for r in found if r.pair.kind == "different photos"]
        print(
            f"{method}: a homography that is more than chance in {sum(same)} of {len(same)} pairs of one photo, "
            f"and in {sum(other)} of {len(other)} pairs of different photos"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
