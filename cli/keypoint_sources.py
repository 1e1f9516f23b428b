"""What `fewmatch keypoints` learns from and looks in: label files, images at several sizes, videos."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import output
from cli.data import is_store, picture_of
from cli.encoder_choice import EncodingChoice
from cli.maps import ImageMaps, open_maps

if TYPE_CHECKING:
    import numpy as np

    from encoders import Encoder
    from encoders.video import VideoFrame
    from matching.annotations.labels import Labels
    from matching.keypoint_maps import View

#: Images are encoded at these short sides where the encoder's own is smaller: several sizes find parts better than one (docs/keypoints.md).
SMALL_SIZES = (256, 384)


def read_all_labels(labels: Path, corrections: Sequence[Path], root: Path | None) -> Labels:
    """The labelled images of a file, with corrections that take the place of what it says; images without any point are left out.

    Raises:
        InputError: what cannot be read, or no image with a point.
    """
    from encoders import InputError
    from matching.annotations.locating import locate_images
    from matching.annotations.merging import merge_labels
    from matching.annotations.reading import read_labels

    every = [locate_images(read_labels(path), root) for path in (labels, *corrections)]
    merged = merge_labels(every, replace=True) if corrections else every[0]
    if not merged.marked.any():
        raise InputError(f"{labels} has no point in an image that can be used")
    return merged.take(merged.marked)


def parse_sizes(text: str | None, encoder: Encoder) -> list[int]:
    """`256,384` as numbers, ascending; None is the default.

    Raises:
        InputError: not whole numbers, or one twice.
    """
    from encoders import InputError

    own = encoder.preprocessing.dense
    if text is None:
        return list(SMALL_SIZES) if own < min(SMALL_SIZES) else [own]
    try:
        sizes = sorted(int(part) for part in text.split(","))
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1 or len(set(sizes)) < len(sizes):
        raise InputError(f"expected --sizes such as 256,384, got {text}")
    return sizes


@dataclass(frozen=True)
class SizedMaps:
    """The maps of the same images at several sizes. skipped: manifest lines of the images that cannot be used at any of them.

    files: the usable ones, in order; place: where each is in `of_size`.
    """

    of_size: list[ImageMaps]
    files: list[Path]
    skipped: list[dict[str, Any]]
    place: list[list[int]]

    def __len__(self) -> int:
        return len(self.files)

    @property
    def names(self) -> list[str]:
        """As the user wrote them."""
        return [str(self.of_size[0].rows[i]["path"]) for i in self.place[0]]

    def views(self, index: int) -> list[View]:
        return [
            (maps.map(place[index]), maps.frame(place[index]))
            for maps, place in zip(self.of_size, self.place, strict=True)
        ]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of the original."""
        frame = self.of_size[0].frame(self.place[0][index])
        return frame.width, frame.height

    def vectors(self) -> np.ndarray:
        """(n, D) global vectors at the first size."""
        return self.of_size[0].vectors()[self.place[0]]

    def picture(self, index: int) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB; None, with a note, where the image is gone or has changed since."""
        return picture_of(self.of_size[0].rows[self.place[0][index]], self.files[index])

    def only(self, files: Sequence[Path]) -> SizedMaps:
        """The images that are these files, in this order."""
        index = [self.files.index(file.absolute()) for file in files]
        return dataclasses.replace(
            self, files=[self.files[i] for i in index], place=[[place[i] for i in index] for place in self.place]
        )

    def without(self, files: set[Path]) -> SizedMaps:
        """The images that are none of these files."""
        kept = [i for i, file in enumerate(self.files) if _real(file) not in files]
        return dataclasses.replace(
            self, files=[self.files[i] for i in kept], place=[[place[i] for i in kept] for place in self.place]
        )


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def sized_maps(
    paths: Sequence[Path], choice: EncodingChoice, sizes: Sequence[int], description: str
) -> Iterator[SizedMaps]:
    """Encode images at every size, or read the one size of a store."""
    from encoders import InputError

    with contextlib.ExitStack() as stack:
        if any(is_store(path) for path in paths):
            found = [stack.enter_context(open_maps(paths, choice))]
        else:
            found = [
                stack.enter_context(
                    open_maps(paths, dataclasses.replace(choice, size=size), f"{description} at {size} px")
                )
                for size in sizes
            ]
        usable = [{file: i for i, file in enumerate(maps.files)} for maps in found]
        files = [file for file in usable[0] if all(file in places for places in usable)]
        skipped = {row["path"]: row for maps in found for row in maps.skipped}
        if not files:
            bad = "; ".join(f"{row['path']}: {row['reason']}" for row in list(skipped.values())[:3])
            raise InputError("none of the images can be used" + (f" ({bad})" if bad else ""))
        yield SizedMaps(found, files, list(skipped.values()), [[places[file] for file in files] for places in usable])


@dataclass(frozen=True)
class VideoFrames:
    """Which frames of a video to look at."""

    path: Path
    every: int = 1
    start: int = 0
    stop: int | None = None

    def views(self, choice: EncodingChoice, sizes: Sequence[int]) -> Iterator[tuple[str, list[View]]]:
        """Name and views of one frame after the other; the video is read once for each size."""
        from encoders.frame_maps import encode_frames, plan_frames

        with contextlib.ExitStack() as stack:
            streams = []
            for number, size in enumerate(sizes):
                frames = self.frames(output.note if number == 0 else None)
                plan = plan_frames(self.path, choice.loaded, size=size, resize=choice.resize or "keep")
                streams.append(stack.enter_context(contextlib.closing(encode_frames(frames, plan))))
            for encoded in zip(*streams, strict=True):
                yield encoded[0].source.name, [(one.feature_map, one.frame) for one in encoded]

    def frames(self, note: Callable[[str], None] | None = None) -> Iterator[VideoFrame]:
        from encoders.video import read_frames

        return read_frames(self.path, every=self.every, start=self.start, stop=self.stop, note=note)

    def pictures(self, places: Sequence[int]) -> dict[int, np.ndarray]:
        """Some of the frames, by their place among those that are looked at."""
        wanted, found = set(places), {}
        for place, frame in enumerate(self.frames()):
            if place in wanted:
                found[place] = frame.rgb
            if len(found) == len(wanted):
                break
        return found
