"""What `fewmatch keypoints` learns from and looks in: label files, images at several sizes, videos."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fewmatch.cli import output
from fewmatch.cli.inputs.data import is_store, picture_of
from fewmatch.cli.inputs.encoder_choice import EncodingChoice
from fewmatch.cli.inputs.maps import ImageMaps, open_maps

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.encoders import Encoder
    from fewmatch.encoders.video import VideoFrame
    from fewmatch.labels.labels import Labels
    from fewmatch.matching.keypoints.maps import View

#: Images are encoded at these short sides where the encoder's own is smaller: several sizes find parts better than one (docs/keypoints.md).
SMALL_SIZES = (256, 384)


@dataclass(frozen=True)
class LabelChoice:
    """How files of labels are read; as the options of those names."""

    images_root: Path | None = None
    rescale_labels: bool = False
    visible: Literal[1, 2] | None = None

    def read(self, path: Path) -> Labels:
        from fewmatch.labels.reading import read_labels

        return read_labels(path, visible=self.visible)

    def located(self, path: Path, other: Path | None = None) -> Labels:
        """With the files of the images; see `locate_images`."""
        from fewmatch.matching.keypoints.locating import locate_images

        return locate_images(self.read(path), self.images_root, other=other, rescale=self.rescale_labels)

    def fitted(self, labels: Labels, sizes: Sequence[tuple[int, int]]) -> Labels:
        """Labels of images that are no files, compared with their sizes."""
        from fewmatch.matching.keypoints.locating import compare_sizes

        return compare_sizes(labels, sizes, rescale=self.rescale_labels)

    def check(self, every: Sequence[Labels]) -> None:
        """Refuse what none of these files would use."""
        from fewmatch.errors import InputError
        from fewmatch.labels.layouts import format_of

        if self.visible is not None and not any(format_of(labels.layout) == "coco" for labels in every):
            raise InputError("--visible is for COCO's files, and none of these is one: leave it out")


def read_all_labels(labels: Path, corrections: Sequence[Path], how: LabelChoice) -> list[Labels]:
    """The labels of a file and its corrections, each with its images."""
    first = how.located(labels)
    return [first, *(how.located(path, first.root) for path in corrections)]


def labelled_images(every: Sequence[Labels]) -> Labels:
    """The labelled images of a file, with corrections that take the place of what it says; images that nobody looked at are left out.

    Raises:
        InputError: no image with a point, or no point that is visible.
    """
    from fewmatch.errors import InputError
    from fewmatch.labels.merging import merge_labels

    merged = merge_labels(every, replace=True) if len(every) > 1 else every[0]
    if not merged.keypoints.placed.any():
        raise InputError(f"{merged.source} has no point in an image that can be used")
    if not merged.keypoints.visible.any():
        raise InputError(
            f"{merged.source}: all points in images that can be used are hidden, so there is nothing to learn from: mark visible "
            "ones; for a COCO file, --visible 1 reads hidden points as visible"
        )
    return merged.take(merged.labelled)


def truth_of_files(
    truth: Labels, files: Sequence[Path], names: Sequence[str], sizes: Sequence[tuple[int, int]]
) -> Labels:
    """The labels of these images, under these names; those with a point outside their image join the skipped ones.

    Raises:
        InputError: labels of none of the images.
    """
    place = {_real(file): i for i, file in enumerate(truth.files or ())}
    return _truth(truth, [place.get(_real(file)) for file in files], names, sizes, None)


def truth_of_frames(truth: Labels, names: Sequence[str], sizes: Sequence[tuple[int, int]], how: LabelChoice) -> Labels:
    """The labels of these frames of a video, which they name by the last part of their path without its ending.

    Raises:
        InputError: labels of none of the frames, or two images that are named like one frame.
    """
    from fewmatch.errors import InputError
    from fewmatch.names import same_name

    place: dict[str, int] = {}
    for i, path in enumerate(truth.keypoints.paths):
        stem = same_name(Path(path.replace("\\", "/")).stem)
        if stem in map(same_name, names) and truth.labelled[i] and place.setdefault(stem, i) != i:
            raise InputError(f"{truth.source}: {truth.keypoints.paths[place[stem]]} and {path} name the same frame")
    return _truth(truth, [place.get(same_name(name)) for name in names], names, sizes, how)


def _truth(
    truth: Labels,
    index: Sequence[int | None],
    names: Sequence[str],
    sizes: Sequence[tuple[int, int]],
    how: LabelChoice | None,
) -> Labels:
    """The labels `index` of the images `names`; compared with their sizes as `how` says, if that is still to be done."""
    from fewmatch.errors import InputError
    from fewmatch.matching.keypoints.locating import keep_inside

    there = [(n, i) for n, i in enumerate(index) if i is not None and truth.labelled[i]]
    if not there:
        raise InputError(f"{truth.source} has labels of none of the images in which parts are looked for")
    size = {names[n]: sizes[n] for n, _ in there}
    found = truth.take([i for _, i in there])
    found = dataclasses.replace(found, keypoints=dataclasses.replace(found.keypoints, paths=tuple(size)))
    if how is not None:
        found = how.fitted(found, [size[name] for name in found.keypoints.paths])
    return keep_inside(found, [size[name] for name in found.keypoints.paths])


def parse_sizes(text: str | None, encoder: Encoder) -> list[int]:
    """`256,384` as numbers, ascending; None is the default.

    Raises:
        InputError: not whole numbers, or one twice.
    """
    from fewmatch.errors import InputError

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

    def names(self, root: Path | None) -> list[str]:
        """The images' paths: relative to `root`, where they lie below it, else as the user wrote them."""
        typed = [str(self.of_size[0].rows[i]["path"]) for i in self.place[0]]
        below = [None if root is None else _below(root, file) for file in self.files]
        names = [name if path is None else path for name, path in zip(typed, below, strict=True)]
        count = Counter(names)
        # A path that was typed can read like one below the root.
        return [
            file.as_posix() if path is None and count[name] > 1 else name
            for name, path, file in zip(names, below, self.files, strict=True)
        ]

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


def _below(root: Path, file: Path) -> str | None:
    """The path of a file relative to a folder above it; None where the folder is not."""
    for folder, path in ((root.absolute(), file.absolute()), (_real(root), _real(file))):
        if path.is_relative_to(folder):
            return path.relative_to(folder).as_posix()
    return None


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


@contextlib.contextmanager
def sized_maps(
    paths: Sequence[Path], choice: EncodingChoice, sizes: Sequence[int], description: str
) -> Iterator[SizedMaps]:
    """Encode images at every size, or read the one size of a store."""
    from fewmatch.errors import InputError

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
        from fewmatch.encoders.frame_maps import encode_frames, plan_frames

        with contextlib.ExitStack() as stack:
            streams = []
            for number, size in enumerate(sizes):
                frames = self.frames(output.note if number == 0 else None)
                plan = plan_frames(self.path, choice.loaded, size=size, resize=choice.resize or "keep")
                streams.append(stack.enter_context(contextlib.closing(encode_frames(frames, plan))))
            for encoded in zip(*streams, strict=True):
                yield encoded[0].source.name, [(one.feature_map, one.frame) for one in encoded]

    def frames(self, note: Callable[[str], None] | None = None) -> Iterator[VideoFrame]:
        from fewmatch.encoders.video import read_frames

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
