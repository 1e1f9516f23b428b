"""What `fewmatch pca` prints and writes: pages of maps beside their images, a map for each image, one JSON document."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import encoder_json, encoder_words
from fewmatch.cli.inputs.maps import ImageMaps

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.figures import MappedImage
    from fewmatch.matching import PatchPCA

#: Pictures are shrunk as soon as they are read: one alone to this many pixels on its long side, n to this many over √n, but no further than the
#: least, which is twice what a picture has on a full page.
PICTURE, LEAST_PICTURE = 2400, 310
LARGEST_PICTURE = 1200
#: Components that are fitted and kept where no strips are asked for.
COLOURS = 3


def summary(found: ImageMaps, basis: PatchPCA) -> str:
    named = "" if basis.style == "fewmatch" else f"style {basis.style}; "
    count, patches = len(found), sum(int(found.frame(i).real.sum()) for i in range(len(found)))
    return (
        f"{count:,} image{'s' * (count != 1)}, {patches:,} patches; {encoder_words(found.key)}; {named}centre {basis.center}; "
        f"components 1, 2, 3: {_shares(basis)} of the {'foreground’s ' * (basis.foreground_rule is not None)}variance"
    )


def _shares(basis: PatchPCA) -> str:
    return "+".join(f"{100 * share:.0f}" for share in basis.explained[:COLOURS]) + " %"


def _caption(found: ImageMaps, basis: PatchPCA) -> str:
    """What the figure shows, in full."""
    rule = basis.foreground_rule
    less = {
        "all": "less one mean",
        "image": "less their image’s mean",
        "position": "less what goes with their position",
        "image+position": "less their image’s mean and what goes with their position",
    }
    ends = {
        "fewmatch": "percentiles 1 and 99 of them are dark and bright",
        "dinov2": "style of DINOv2: the least and the largest score of all patches are dark and bright",
        "dinov3": "style of DINOv3: whitened, then sigmoid(2 · score)",
        "capi": "style of CAPI: whitened, from −2.3 to 2.3",
    }
    text = (
        f"{encoder_words(found.key)}. Red, green, blue: principal components 1, 2, 3 of {basis.patches:,} "
        f"{'foreground ' * (rule is not None)}patches of {basis.images:,} image{'s' * (basis.images != 1)}, {less[basis.center]}; "
        f"{_shares(basis)} of the variance; {ends[basis.style]}; one range for all images."
    )
    if rule is not None:
        how = (
            "the side of the mean of the first component of all patches that touches borders less"
            if basis.style == "dinov2"
            else "of Otsu’s splits of the first three components, the one that tells most about borders, and its side that touches them less"
        )
        text += f" Foreground: {how} ({100 * rule.share:.0f} % of the patches)."
    return text


def pca_json(
    found: ImageMaps,
    basis: PatchPCA,
    file: Path | None,
    pages: list[Path],
    targets: list[Path] | None,
    differs: Mapping[str, tuple[Any, Any]],
) -> dict[str, Any]:
    rule = basis.foreground_rule
    images = []
    for i, row in enumerate(found.rows):
        frame = found.frame(i)
        share = None
        if rule is not None:
            share = float(basis.foreground(found.map(i), frame).sum() / frame.real.sum())
        images.append(
            {
                "path": row["path"],
                "width": frame.width,
                "height": frame.height,
                "grid": list(frame.grid),
                "foreground": share,
                "map": None if targets is None else str(targets[i]),
            }
        )
    return output.document(
        encoder=encoder_json(found.key),
        images=images,
        style=basis.style,
        center=basis.center,
        fitted={"images": basis.images, "patches": basis.patches},
        explained_variance_ratio=basis.explained.tolist(),
        components=[
            {"colour": colour, "low": low, "high": high}
            for colour, low, high in itertools.zip_longest(
                ("red", "green", "blue"), basis.low.tolist(), basis.high.tolist()
            )
        ],
        foreground=None
        if rule is None
        else {"threshold": rule.threshold, "side": "above" if rule.above else "below", "share": rule.share},
        basis=None if file is None else str(file),
        basis_differs={name: list(pair) for name, pair in differs.items()},
        figure=str(pages[0]) if pages else None,
        pages=[str(page) for page in pages],
        skipped=output.skipped_json(found.skipped),
        **output.drawing_json(),
    )


def map_targets(found: ImageMaps, folder: Path) -> list[Path]:
    """Where each map goes: under its image's name, with a number where others have it too."""
    taken: set[str] = set()
    targets = []
    for file in found.files:
        name, number = file.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{file.stem}-{number}"
        taken.add(name.casefold())
        targets.append(folder / f"{name}.png")
    return targets


def write_maps(found: ImageMaps, basis: PatchPCA, targets: list[Path]) -> None:
    import io

    from PIL import Image

    from fewmatch.writing import write_atomically

    with output.progress("writing maps") as update:
        for i, target in enumerate(targets):
            file = io.BytesIO()
            Image.fromarray(_enlarged(basis, found, i)).save(file, "png")
            write_atomically(target, file.getvalue())
            update(i + 1, len(targets))


def _enlarged(basis: PatchPCA, found: ImageMaps, index: int) -> np.ndarray:
    """A map of exactly its image's size, each pixel in the colour of its patch; white where the encoder did not see the image."""
    import numpy as np

    frame = found.frame(index)
    colours = np.rint(255 * basis.colours(found.map(index), frame)).astype(np.uint8)
    row, _ = frame.to_grid(np.zeros(frame.height), np.arange(frame.height))
    _, column = frame.to_grid(np.arange(frame.width), np.zeros(frame.width))
    rows, columns = (np.floor(place + 0.5).astype(int) for place in (row, column))
    picture = np.full((frame.height, frame.width, 3), 255, np.uint8)
    y, x = (
        np.flatnonzero((place >= 0) & (place < size)) for place, size in zip((rows, columns), frame.grid, strict=True)
    )
    picture[np.ix_(y, x)] = colours[np.ix_(rows[y], columns[x])]
    return picture


def figure_pages(out: Path, count: int, strips: bool) -> list[Path]:
    """A file for each page of the figure: FILE, FILE-2, FILE-3…, as few as hold the images."""
    return [out] + [out.with_name(f"{out.stem}-{k + 2}{out.suffix}") for k in range((count - 1) // _on_a_page(strips))]


def _on_a_page(strips: bool) -> int:
    from fewmatch.figures.component_strips import MOST_STRIPS
    from fewmatch.figures.feature_maps import MOST_IMAGES

    return MOST_STRIPS if strips else MOST_IMAGES


def draw_pages(found: ImageMaps, basis: PatchPCA, smooth: bool, strips: int | None, pages: list[Path]) -> list[Path]:
    """Page after page, so that the pictures of one are held at a time; returns the pages that were drawn.

    Raises:
        NotDrawnError: no image is there any more.
    """
    from fewmatch.figures import feature_map_figure, save_figure
    from fewmatch.figures.component_strips import strips_figure

    most = _on_a_page(strips is not None)
    caption = output.printable(_caption(found, basis))
    if strips is not None:
        caption += " Columns: components one by one, the sign of each such that its scores are skewed to the right."
    drawn: list[Path] = []
    with output.progress("drawing") as update:
        for number, page in enumerate(pages):
            shown = range(number * most, min((number + 1) * most, len(found)))
            items = _items(found, basis, shown)
            update(number + 1, len(pages))
            if not items:
                continue
            text = caption if len(pages) == 1 else f"Page {number + 1} of {len(pages)}. {caption}"
            if strips is None:
                figure = feature_map_figure([item for _, item in items], caption=text, smooth=smooth)
            else:
                figure = strips_figure(
                    [item for _, item in items],
                    [basis.strips(found.map(i), found.frame(i))[..., :strips] for i, _ in items],
                    explained=basis.explained[:strips],
                    limit=basis.limit[:strips],
                    caption=text,
                )
            save_figure(figure, page)
            drawn.append(page)
    if not drawn:
        raise output.NotDrawnError("the images are no longer where they were encoded")
    return drawn


def _items(found: ImageMaps, basis: PatchPCA, shown: range) -> list[tuple[int, MappedImage]]:
    """The images of a page that are still there, with their numbers."""
    from fewmatch.figures import MappedImage

    items = []
    for i in shown:
        picture = found.picture(i)
        if picture is None:
            continue
        feature_map, frame = found.map(i), found.frame(i)
        # In our own style the image shows where there is no foreground; in those of the papers that is black.
        through = basis.foreground_rule is not None and basis.style == "fewmatch"
        item = MappedImage(
            _shrunk(picture, len(shown)),
            basis.colours(feature_map, frame),
            frame,
            output.printable(found.files[i].name),
            basis.foreground(feature_map, frame) if through else None,
        )
        items.append((i, item))
    return items


def _shrunk(picture: np.ndarray, count: int) -> np.ndarray:
    import cv2

    height, width = picture.shape[:2]
    share = min(LARGEST_PICTURE, max(LEAST_PICTURE, PICTURE / count**0.5)) / max(height, width)
    if share >= 1:
        return picture
    shape = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
