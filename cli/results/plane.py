"""What `fewmatch plane` draws: the figure of an episode, or its page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fewmatch.cli import output
from fewmatch.cli.inputs.data import LabelledData, picture_of
from fewmatch.cli.inputs.encoder_choice import encoder_words

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.fewshot import EpisodePlane
    from fewmatch.fewshot.centering import ZeroVectorError
    from fewmatch.figures.page.plane import EpisodeImage

#: Pictures are shrunk to this many pixels on their long side as soon as they are read.
LONG_SIDE = 400


@dataclass(frozen=True)
class EpisodeDrawing:
    """What figure and page have alike.

    names: of the classes. support, query: the images as rows of the table. pictures: whether to show them. rule: words for what decides.
    """

    labelled: LabelledData
    names: list[str]
    support: list[list[int]]
    query: list[list[int]]
    pictures: bool
    rule: str

    def figure(self, result: EpisodePlane, out: Path) -> None:
        from fewmatch.figures import plane_figure, save_figure, telling_images

        thumbnails = {}
        for image in telling_images(result):
            row = (self.support if image.role == "support" else self.query)[image.way][image.number]
            picture = self._picture(row)
            if picture is not None:
                thumbnails[image] = picture
        figure = plane_figure(
            result,
            [output.printable(name) for name in self.names],
            thumbnails=thumbnails,
            title=output.printable(
                f"{self._title(result.ways)}, {result.shots} shot{'s' * (result.shots > 1)}, {_queries(result.queries)} per class"
            ),
            note=output.printable(
                f"{encoder_words(self.labelled.key)}; centre {result.center}"
                f"{' (uses the queries as a set)' if result.transductive else ''}, {self.rule}; {_softmax(result)}."
            ),
        )
        save_figure(figure, out)
        output.note(f"wrote {output.printable(out)}")

    def page(
        self, planes: dict[tuple[int, str], EpisodePlane | ZeroVectorError], start: tuple[int, str], out: Path
    ) -> None:
        from fewmatch.fewshot import EpisodePlane
        from fewmatch.figures.page.plane import plane_page
        from fewmatch.writing import write_atomically

        first = planes[start]
        if not isinstance(first, EpisodePlane):
            raise first
        text = plane_page(
            planes,
            [output.printable(name) for name in self.names],
            [[self._image(row) for row in of_class] for of_class in self.support],
            [[self._image(row) for row in of_class] for of_class in self.query],
            start=start,
            title=output.printable(f"{self._title(len(self.names))}, {_queries(len(self.query[0]))} per class"),
            note=output.printable(f"{encoder_words(self.labelled.key)}; {self.rule}; {_softmax(first)}."),
        ).encode()
        write_atomically(out, text)
        output.note(f"wrote {output.printable(out)} ({output.human_bytes(len(text))})")

    def _title(self, ways: int) -> str:
        return f"{self.labelled.table.name}: one episode, {ways} ways"

    def _image(self, row: int) -> EpisodeImage:
        from fewmatch.figures.page.plane import EpisodeImage

        rows = self.labelled.rows
        name = f"row {row}" if rows is None else output.printable(str(rows[row]["path"]))
        return EpisodeImage(name, self._picture(row))

    def _picture(self, row: int) -> np.ndarray | None:
        """The image behind a row, no larger than a thumbnail needs."""
        if self.labelled.rows is None or not self.pictures:
            return None
        picture = picture_of(self.labelled.rows[row])
        return None if picture is None else _shrunk(picture)


def _queries(count: int) -> str:
    return f"{count} {'query' if count == 1 else 'queries'}"


def _softmax(plane: EpisodePlane) -> str:
    return f"probabilities: softmax of −{plane.temperature:g}·distance²"


def _shrunk(picture: np.ndarray) -> np.ndarray:
    """An image no larger than a thumbnail needs."""
    import cv2

    height, width = picture.shape[:2]
    share = LONG_SIDE / max(height, width)
    if share >= 1:
        return picture
    shape = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(picture, shape, interpolation=cv2.INTER_AREA)
