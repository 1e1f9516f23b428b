"""The page of one few-shot episode: every image at the pointer, its distances and probabilities, other shots and centrings at a click."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.colors import to_hex

from fewmatch.fewshot.plane import EpisodePlane
from fewmatch.figures.notable import explain
from fewmatch.figures.page.document import html_document
from fewmatch.figures.page.thumbnails import thumbnail, thumbnail_side
from fewmatch.figures.plane import region
from fewmatch.figures.style.palette import class_colours, mixed

#: Distances and probabilities are shown with so many decimals; the page holds what it shows.
_DECIMALS = 3
#: Places are kept to this power of ten below the extent of the points: well below a pixel.
_FINENESS = 4
#: Regions reach so many times the largest extent of the points from their middle: further than a plot of twice the width shows.
_REACH = 1.8


@dataclass(frozen=True)
class EpisodeImage:
    """A support or query as the page shows it. name: of its file. picture: (h, w, 3) uint8 RGB, or None where there is none."""

    name: str
    picture: UInt8[np.ndarray, "_h _w 3"] | None = None


def plane_page(
    planes: Mapping[tuple[int, str], EpisodePlane | Exception],
    class_names: Sequence[str],
    supports: Sequence[Sequence[EpisodeImage]],
    queries: Sequence[Sequence[EpisodeImage]],
    *,
    start: tuple[int, str],
    title: str,
    note: str = "",
) -> str:
    """One HTML document that draws an episode as `plane_figure` does, for people to explore; it needs no network and no server.

    Pointing at an image (or Tab and the arrow keys, or a touch) shows it with its squared distance to every class mean and the
    probabilities, both of all dimensions. A table of all settings, with how many queries each gets right, changes shots and centring.
    Everything in it is computed here; the page only draws.

    Args:
        planes: by (shots k, centring), the episode with the first k supports of each class; or why there is none. See
            `fewmatch.episode_planes`.
        class_names: the W classes.
        supports: (W, K) images, K the most shots. queries: (W, Q) images.
        start: the setting that is shown first.
        title: the heading. note: said below.

    Returns:
        The document; the same text for the same arguments.

    Raises:
        ValueError: names, images and planes do not fit each other, or there is no plane to start with.
    """
    first = planes.get(start)
    if not isinstance(first, EpisodePlane):
        raise ValueError(f"expected a plane to start with at {start}, got {first}")
    shots, centers = sorted({k for k, _ in planes}), list(dict.fromkeys(center for _, center in planes))
    if set(planes) != {(k, center) for k in shots for center in centers}:
        raise ValueError("expected every number of shots with every centring")
    for what, got, wanted in (
        ("class names", len(class_names), first.ways),
        ("supports by class", [len(images) for images in supports], [shots[-1]] * first.ways),
        ("queries by class", [len(images) for images in queries], [first.queries] * first.ways),
    ):
        if got != wanted:
            raise ValueError(f"expected {what}: {wanted}, got {got}")
    return html_document(
        "plane.html.j2",
        title=title,
        styles=["document.css", "plane.css"],
        script="plane.js",
        data={
            "classes": _classes(class_names),
            "images": _images(supports, queries),
            "decimals": _DECIMALS,
            "shots": shots,
            "centers": centers,
            "settings": [_setting(planes[k, center], k, center, shots[-1]) for center in centers for k in shots],
            "start": {"shots": start[0], "center": start[1]},
        },
        count=first.right.size,
        note=note,
    )


def _classes(names: Sequence[str]) -> list[dict[str, str]]:
    """Names and colours: of marks, of their edges, and of text on light and on dark paper."""
    return [
        {
            "name": name,
            "colour": to_hex(colour),
            "edge": to_hex(mixed(colour, 0.0, 0.5)),
            "onlight": to_hex(mixed(colour, 0.0, 0.55)),
            "ondark": to_hex(mixed(colour, 1.0, 0.55)),
        }
        for name, colour in zip(names, class_colours(len(names)), strict=True)
    ]


def _images(
    supports: Sequence[Sequence[EpisodeImage]], queries: Sequence[Sequence[EpisodeImage]]
) -> list[dict[str, Any]]:
    """All images, supports first, by class; `number` counts within a class from 0."""
    listed = [
        (role, way, number, image)
        for role, part in (("support", supports), ("query", queries))
        for way, images in enumerate(part)
        for number, image in enumerate(images)
    ]
    side = thumbnail_side(sum(image.picture is not None for *_, image in listed))
    out = []
    for role, way, number, image in listed:
        entry: dict[str, Any] = {"role": role, "way": way, "number": number, "name": image.name}
        if image.picture is not None:
            small = thumbnail(image.picture, side)
            entry |= {"picture": small.uri, "width": small.width, "height": small.height}
        out.append(entry)
    return out


def _setting(plane: EpisodePlane | Exception, shots: int, center: str, most_shots: int) -> dict[str, Any]:
    """What the page shows at one setting; the lists by image go as `_images` does, null where a support is not used."""
    if not isinstance(plane, EpisodePlane):
        return {"shots": shots, "center": center, "reason": str(plane)}
    points = np.concatenate([plane.means, plane.support.reshape(-1, 2), plane.query.reshape(-1, 2)])
    extent = float(np.ptp(points, axis=0).max()) or 1.0
    digits = max(0, _FINENESS - int(np.floor(np.log10(extent))))
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    (left, bottom), (right, top) = middle - _REACH * extent, middle + _REACH * extent
    box = float(left), float(bottom), float(right), float(top)

    def by_image(support: np.ndarray, query: np.ndarray, decimals: int) -> list[Any]:
        unused = [None] * (most_shots - plane.shots)
        of_supports = [entry for of_class in _rounded(support, decimals) for entry in [*of_class, *unused]]
        return of_supports + [entry for of_class in _rounded(query, decimals) for entry in of_class]

    words = explain(plane).partition(". ")
    return {
        "shots": shots,
        "center": center,
        "transductive": plane.transductive,
        "score": words[0],
        "words": words[2],
        "right": plane.right.sum(axis=1).tolist(),
        "means": _rounded(plane.means, digits),
        "regions": [_rounded(region(plane, way, box), digits) for way in range(plane.ways)],
        "places": by_image(plane.support, plane.query, digits),
        "predicted": [None] * (plane.ways * most_shots) + plane.predicted.reshape(-1).tolist(),
        "distances": by_image(plane.support_distances, plane.distances, _DECIMALS),
        "probabilities": by_image(plane.support_probabilities, plane.probabilities, _DECIMALS),
    }


def _rounded(values: Float[np.ndarray, "*shape"], decimals: int) -> list[Any]:
    """Nested lists of the numbers that text with so many decimals would show."""
    rounded = [float(f"{value:.{decimals}f}") + 0.0 for value in values.ravel().tolist()]  # no -0.0
    nested: list[Any] = np.array(rounded).reshape(values.shape).tolist()
    return nested
