"""What `fewmatch keypoints` writes and prints: annotation files, overlays, a contact sheet, a page of review, a table, JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fewmatch.cli import output
from fewmatch.cli.inputs.encoder_choice import encoder_words
from fewmatch.cli.inputs.keypoint_sources import SizedMaps, VideoFrames

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.labels import Keypoints
    from fewmatch.labels.layouts import Layout
    from fewmatch.matching.keypoints.score import KeypointScores


@dataclass(frozen=True)
class KeypointOutputs:
    """What is to be written; as the options of those names."""

    out: Path | None = None
    format: Literal["deeplabcut", "coco", "csv"] | None = None
    likelihood: bool | None = None
    overlays: Path | None = None
    sheet: Path | None = None
    sheet_images: int | None = None
    review: Path | None = None
    review_images: int | None = None

    def check(self, overwrite: bool) -> None:
        """Refuse what cannot be written, or would be ignored, before anything is encoded."""
        from fewmatch.errors import InputError, OutputExistsError

        for path, types in ((self.out, (".csv", ".json")), (self.review, (".html",))):
            output.check_target(path, overwrite)
            if path is not None and path.suffix.lower() not in types:
                raise InputError(f"expected a name ending in {' or '.join(types)}, got {path.name}")
        output.check_figure(self.sheet, overwrite)
        if self.overlays is not None and self.overlays.exists() and not overwrite:
            raise OutputExistsError(f"{self.overlays} exists: give another folder, or --overwrite")
        for given, option, needed, there in (
            (self.format, "--format", "--out", self.out),
            (self.likelihood, "--likelihood", "--out", self.out),
            (self.sheet_images, "--sheet-images", "--sheet", self.sheet),
            (self.review_images, "--review-images", "--review", self.review),
        ):
            if given is not None and there is None:
                raise InputError(f"{option} is for {needed}, which is not asked for")
        for option, count in (("--sheet-images", self.sheet_images), ("--review-images", self.review_images)):
            if count is not None and count < 1:
                raise InputError(f"expected {option} of 1 or more, got {count}")
        if (
            self.out is not None
            and self.format is not None
            and (self.format == "coco") != (self.out.suffix.lower() == ".json")
        ):
            raise InputError(
                f"--format {self.format} and {self.out.name}: expected .json for coco and .csv for the others"
            )

    def layout(self, like: Layout) -> Layout:
        """That of the labels, where the name fits it and nothing else is asked for."""
        from fewmatch.errors import InputError
        from fewmatch.labels.layouts import format_of, layout_for

        assert self.out is not None
        json, own = self.out.suffix.lower() == ".json", format_of(like)
        name = self.format or ("coco" if json else own if own != "coco" else "csv")
        if self.likelihood is not None and name != "deeplabcut":
            raise InputError(f"--likelihood is for the format deeplabcut, not {name}")
        return layout_for(name, like=like)


class Pictures(Sequence["np.ndarray"]):
    """The pictures of what was looked at, each read when it is asked for; grey where it is gone."""

    def __init__(self, source: SizedMaps | VideoFrames, sizes: Sequence[tuple[int, int]], used: Sequence[int]) -> None:
        self._source, self._sizes = source, sizes
        self._there = False
        self._frames = source.pictures(used) if isinstance(source, VideoFrames) else {}

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        import numpy as np

        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        found = self._frames.get(index) if isinstance(self._source, VideoFrames) else self._source.picture(index)
        self._there |= found is not None
        width, height = self._sizes[index]
        return np.full((height, width, 3), 128, np.uint8) if found is None else found

    def require_any(self) -> None:
        """Refuse a figure of grey images alone.

        Raises:
            NotDrawnError: none of the pictures that were asked for is there any more.
        """
        if not self._there:
            raise output.NotDrawnError("the images are no longer where they were encoded")


@dataclass(frozen=True)
class KeypointResult:
    """All that was found. sizes: width and height of each image. key: what encoded them. labelled: images that were learnt from.

    scores: against the truth, of the images that have it. suggested: names of the images most worth labelling next.
    """

    found: Keypoints
    sizes: list[tuple[int, int]]
    source: SizedMaps | VideoFrames
    key: dict[str, Any]
    encoded_at: list[int]
    labelled: int
    thresholds: np.ndarray
    truth: Keypoints | None = None
    scores: KeypointScores | None = None
    suggested: Sequence[str] = ()

    @property
    def caption(self) -> str:
        words = encoder_words(self.key)
        if len(self.encoded_at) > 1:
            words = words.replace(f"at {self.encoded_at[0]} px", f"at {' and '.join(map(str, self.encoded_at))} px")
        return f"{self.labelled} labelled images; {words}"


def write_keypoint_files(wanted: KeypointOutputs, result: KeypointResult, like: Layout) -> list[Path]:
    """Everything that is wanted; the paths written."""
    from fewmatch.figures import keypoint_figure, keypoint_sheet, review_page, save_figure
    from fewmatch.figures.keypoints import review_order
    from fewmatch.labels.writing import write_keypoints
    from fewmatch.writing import write_atomically

    written, found = [], result.found
    order = review_order(found)
    if wanted.out is not None:
        wanted.out.parent.mkdir(parents=True, exist_ok=True)
        layout = wanted.layout(like)
        written.append(write_keypoints(wanted.out, found, layout, sizes=result.sizes, likelihood=wanted.likelihood))
    caption = output.printable(result.caption)
    if wanted.overlays is not None:
        count = 0
        for n, picture in enumerate(_all(result)):
            if picture is None:
                continue
            truth = None if result.truth is None else result.truth.take([n])
            figure = keypoint_figure([picture], found.take([n]), truth=truth, caption=caption)
            save_figure(figure, wanted.overlays / f"{n:05d}-{Path(found.paths[n]).stem}.png")
            count += 1
        with output.drawing(wanted.overlays):
            if not count:
                raise output.NotDrawnError("the images are no longer where they were encoded")
            written.append(wanted.overlays)
    if wanted.sheet is not None:
        most = wanted.sheet_images or 60
        pictures = Pictures(result.source, result.sizes, order[:most])
        with output.drawing(wanted.sheet):
            figure = keypoint_sheet(pictures, found, truth=result.truth, caption=caption, most=most)
            pictures.require_any()
            written.append(save_figure(figure, wanted.sheet))
    if wanted.review is not None:
        most = wanted.review_images or 100
        pictures = Pictures(result.source, result.sizes, order[:most])
        with output.drawing(wanted.review):
            page = review_page(pictures, found, title="Keypoints", note=caption, most=most)
            pictures.require_any()
            written.append(write_atomically(wanted.review, page.encode()))
    return written


def _all(result: KeypointResult) -> Iterator[np.ndarray | None]:
    """Every picture in turn, none of them kept; None where it is gone."""
    if isinstance(result.source, VideoFrames):
        yield from (frame.rgb for frame in result.source.frames())
    else:
        yield from map(result.source.picture, range(len(result.source)))


def keypoint_document(
    result: KeypointResult,
    options: dict[str, Any],
    written: Sequence[Path],
    skipped: Sequence[dict[str, Any]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The JSON of a run."""
    import math

    from fewmatch.cli.inputs.encoder_choice import encoder_json

    return output.document(
        encoder=(encoder_json(result.key) or {}) | {"sizes": result.encoded_at},
        labelled=result.labelled,
        parts=list(result.found.parts),
        options=options,
        thresholds={
            part: float(value) if math.isfinite(value) else None
            for part, value in zip(result.found.parts, result.thresholds, strict=True)
        },
        keypoints=result.found.to_json(),
        score=None if result.scores is None else result.scores.to_json(),
        suggested=list(result.suggested),
        written=[str(path) for path in written],
        skipped=list(skipped),
        notes=list(notes),
        **output.drawing_json(),
    )


def emit_keypoints(result: KeypointResult) -> None:
    """A line for each part."""
    import numpy as np

    found, scores = result.found, result.scores
    columns = [("part", "left"), ("visible in", "right"), ("score", "right")]
    if scores is not None:
        columns += [
            ("labelled", "right"),
            *((f"PCK@{alpha:g}", "right") for alpha in scores.alphas),
            ("median px", "right"),
        ]
    rows = []
    for p, part in enumerate(found.parts):
        known = found.score[np.isfinite(found.score[:, p]), p]
        row = [
            part,
            f"{int(found.visible[:, p].sum()):,} of {len(found):,}",
            f"{known.mean():.2f}" if len(known) else "–",
        ]
        if scores is not None:
            row += _scores(int(scores.n[p]), scores.pck[p], float(scores.median_error[p]))
        rows.append(row)
    if scores is not None:
        rows.append(["all", "", "", *_scores(scores.overall_n, scores.overall_pck, scores.overall_median_error)])
    notes = "score: mean cosine at the place found"
    if scores is not None:
        notes += "; PCK: share of the labelled points within that share of the longer image side; "
        notes += f"visible or not is right for {100 * scores.visible_accuracy:.0f} %"
    output.emit_table(f"{len(found):,} images; {result.caption}", tuple(columns), rows, notes)
    if result.suggested:
        print("label next: " + ", ".join(output.printable(name) for name in result.suggested))


def _scores(n: int, pck: Sequence[float] | np.ndarray, error: float) -> list[str]:
    import math

    shares = [f"{share:.2f}" if math.isfinite(share) else "–" for share in pck]
    return [f"{n:,}", *shares, f"{error:.1f}" if math.isfinite(error) else "–"]
