"""Images, or a store that keeps patches, to feature maps; mirrored ones too."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewmatch.cli import output
from fewmatch.cli.inputs.data import image_file, is_store, picture_of
from fewmatch.cli.inputs.encoder_choice import EncodingChoice, decoded_fast, range_words

if TYPE_CHECKING:
    import numpy as np

    from fewmatch.encoders import Encoder, FeatureStore, Frame, ListedImage


@dataclass(frozen=True)
class ImageMaps:
    """The feature maps of images, in the order they were named; an image named twice is there twice.

    key: what encoded them. rows: their manifest lines (`path` is as the user wrote it). files: where the images lie.
    skipped: the manifest lines of those that could not be used. choice: what encodes more images as these were.
    """

    key: dict[str, Any]
    rows: list[dict[str, Any]]
    files: list[Path]
    skipped: list[dict[str, Any]]
    choice: EncodingChoice
    _store: FeatureStore
    _place: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def frame(self, index: int) -> Frame:
        return self._store.frame(self._place[index])

    def map(self, index: int) -> np.ndarray:
        """(h, w, D) float32; read from disk at every call."""
        return self._store.feature_map(self._place[index])

    def vectors(self) -> np.ndarray:
        """(n, D) float32: the global vectors, in the same order; read from disk at every call."""
        return self._store.global_repr()[self._place]

    @contextlib.contextmanager
    def mirrored(self, images: Sequence[int], description: str = "encoding mirrored") -> Iterator[ImageMaps]:
        """Some of these images as the encoder sees them mirrored; the i-th is `images[i]`. Only these are encoded, and cached.

        Columns go from left to right of the original and frames give its pixels, as everywhere (`fewmatch.encode_images`, `mirror`).

        Raises:
            InputError: an image is gone or has changed since, or the encoder at hand is not the one of the store.
        """
        from fewmatch.encoders.identity import key_difference
        from fewmatch.encoders.store.plan import plan_encoding
        from fewmatch.encoders.value_range import read_value_range
        from fewmatch.errors import InputError

        named = [(str(self.rows[i]["path"]), self.files[i].absolute()) for i in images]
        used, encoder = self.key["preprocessing"], self.choice.loaded
        turned = {name: value for name, value in used.items() if name != "mirror"}
        turned |= {} if "mirror" in used else {"mirror": True}
        size = None if used["dense"] == encoder.preprocessing.dense else used["dense"]
        how = {
            "size": size,
            "resize": used["rule"],
            "fast_decode": decoded_fast(self.key),
            "value_range": read_value_range(range_words(self.key)),
            "mirror": "mirror" in turned,
        }
        key = plan_encoding(list(_listed(named).values()), encoder, keep="patches", **how).key
        difference = key_difference(self.key | {"preprocessing": turned}, key)
        if difference:
            raise InputError(f"the images cannot be encoded mirrored as they were encoded before: {difference}")
        with _encoded(named, self.choice, description, **how) as found:
            if found.skipped:
                raise InputError(f"{found.skipped[0]['path']} cannot be encoded mirrored: {found.skipped[0]['reason']}")
            for i, row in zip(images, found.rows, strict=True):
                if row["sha256"] != self.rows[i]["sha256"]:
                    raise InputError(f"{row['path']} changed since it was encoded: encode it again")
            yield found

    def picture(self, index: int) -> np.ndarray | None:
        """The image itself; see `picture_of`."""
        return picture_of(self.rows[index], self.files[index])


@contextlib.contextmanager
def open_maps(
    paths: Sequence[Path],
    choice: EncodingChoice,
    description: str = "encoding",
    *,
    default_size: Callable[[Encoder], int | None] | None = None,
) -> Iterator[ImageMaps]:
    """Feature maps of images (files, folders, lists), or of a store that keeps patches.

    `default_size` gives the size for images where the user says none; without it, it is the encoder's.
    """
    from fewmatch.encoders import FeatureStore, list_images
    from fewmatch.errors import InputError

    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(f"{stores[0]} is a feature store: give it alone, not together with other images")
    if stores:
        store = FeatureStore.open(stores[0])
        choice.check(store.key, stores[0])
        if store.key["keep"] != "patches":
            raise InputError(f"the store {stores[0]} keeps one vector per image: encode with --keep patches")
        output.note_images(store.images)
        files = [image_file(row) for row in store.images]
        yield ImageMaps(
            store.key, store.images, files, store.skipped, choice.like(store.key), store, list(range(len(store)))
        )
        return
    named: list[tuple[str, Path]] = []
    for path in paths:
        for image in list_images([path]):
            name = path / image.name if path.is_dir() else path if image.path.samefile(path) else image.path
            named.append((name.as_posix(), image.path.absolute()))
    size = default_size(choice.loaded) if choice.size is None and default_size else choice.size
    with _encoded(
        named,
        choice,
        description,
        size=size,
        resize=choice.resize or "keep",
        fast_decode=choice.fast_decode,
        value_range=choice.values,
    ) as found:
        yield found


def _listed(named: Sequence[tuple[str, Path]]) -> dict[Path, ListedImage]:
    """Each file once, under a name that no other has."""
    from fewmatch.encoders import ListedImage

    return {file: ListedImage(file, file.as_posix().lstrip("/")) for _, file in named}


@contextlib.contextmanager
def _encoded(
    named: Sequence[tuple[str, Path]], choice: EncodingChoice, description: str, **how: Any
) -> Iterator[ImageMaps]:
    """The maps of files under the names that the user gave them; `how` goes to `encode_images`."""
    from fewmatch.encoders import encode_images

    listed = _listed(named)
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(output.progress(description))
        out = None if choice.cache else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewmatch-")))
        images = list(listed.values())
        store = encode_images(images, choice.loaded, out=out, keep="patches", progress=update, **how)
        place = {row["path"]: i for i, row in enumerate(store.images)}
        all_rows = {row["path"]: row for row in store.rows}
        rows = [(all_rows[listed[file].name] | {"path": name}, file) for name, file in named]
        usable = [(row, file) for row, file in rows if row["status"] == "ok"]
        output.note_images(row for row, _ in usable)
        yield ImageMaps(
            store.key,
            [row for row, _ in usable],
            [file for _, file in usable],
            [row for row, _ in rows if row["status"] != "ok"],
            choice,
            store,
            [place[listed[file].name] for _, file in usable],
        )
