"""Paths on the command line to features: a store is read, images are encoded and kept, an .npz is a table already."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli import output
from cli.download import shown
from cli.options import DEFAULT_ENCODER

if TYPE_CHECKING:
    import numpy as np

    from encoders import Encoder, FeatureStore, Frame, FrozenEncoder, ListedImage, TappedEncoder
    from fewshot import FeatureTable


@dataclass(frozen=True)
class EncodingChoice:
    """What the user said about encoding; None is the default, or what a store already used."""

    encoder: str | None = None
    device: str = "auto"
    dtype: str | None = None
    size: int | None = None
    cache: bool = True
    trust_digest: bool = False
    resize: str | None = None
    layer: str | None = None
    raw: bool = False
    facet: str = "token"
    stride: int | None = None
    fast_decode: bool = False
    compile: bool = False
    crops: int | None = None
    said: EncodingChoice | None = None  # before `like` filled in what the user left open
    #: The encoder by what it was loaded from and for; `dataclasses.replace` hands it on.
    _loaded: dict[tuple[Any, ...], FrozenEncoder | TappedEncoder] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def loaded(self) -> FrozenEncoder | TappedEncoder:
        """The encoder with the output that is asked for, loaded once, whatever the size."""
        tap = self.layer or "last", self.raw, self.facet
        key = self.encoder, self.device, self.dtype, self.trust_digest, self.stride, self.compile, *tap
        if key not in self._loaded:
            self._loaded.clear()  # two large encoders need not fit into the memory
            self._loaded[key] = self._load()
        return self._loaded[key]

    def _load(self) -> FrozenEncoder | TappedEncoder:
        from encoders import load, tapped

        name = self.encoder or DEFAULT_ENCODER
        with shown(name) as (note, progress):
            encoder = load(
                name,
                device=self.device,
                dtype=self.dtype or "auto",
                trust_digest=self.trust_digest,
                stride=self.stride,
                compile=self.compile,
                note=note,
                progress=progress,
            )
        return tapped(encoder, self.layer or "last", raw=self.raw, facet=self.facet)

    def like(self, key: dict[str, Any]) -> EncodingChoice:
        """The same with a store's encoder, output, dtype and size wherever the user said nothing."""
        from encoders.taps import read_tap

        facts = key["encoder"]
        tap = read_tap(key["layer"])
        told = self.layer is not None or self.raw or self.facet != "token"
        return replace(
            self,
            encoder=self.encoder or facts["name"],
            dtype=self.dtype or facts["dtype"],
            size=self.size or key["preprocessing"].get("crop"),
            stride=self.stride or facts.get("stride"),
            layer=self.layer if told or tap.layers is None else "+".join(map(str, tap.layers)),
            raw=self.raw if told else not tap.norm,
            facet=self.facet if told else tap.facet,
            fast_decode=self.fast_decode or decoded_fast(key),
            crops=self.crops or key["preprocessing"].get("crops"),
            said=self.said or self,
        )

    def check(self, key: dict[str, Any], path: Path) -> None:
        """Refuse a store that was made with something else than what the user asks for."""
        from encoders import InputError
        from encoders.taps import read_tap

        facts, said, tap = key["encoder"], self.said or self, read_tap(key["layer"])
        for option, asked, got in (
            ("--encoder", said.encoder, facts["name"]),
            ("--dtype", None if said.dtype == "auto" else said.dtype, facts["dtype"]),
            ("--size", said.size, key["preprocessing"].get("crop", key["preprocessing"].get("dense"))),
            ("--resize", said.resize, key["preprocessing"]["rule"]),
            ("--stride", said.stride, facts.get("stride", facts["patch_size"])),
            ("--layer", said.layer, "last" if tap.layers is None else "+".join(map(str, tap.layers))),
            ("--raw", said.raw or None, not tap.norm),
            ("--facet", None if said.facet == "token" else said.facet, tap.facet),
            ("--crops", said.crops, key["preprocessing"].get("crops", 1)),
            ("--fast-decode", said.fast_decode or None, decoded_fast(key)),
        ):
            if asked is not None and got not in (asked, Path(str(asked)).stem, Path(str(asked)).name):
                raise InputError(
                    f"the store {path} was made with {option} {got}, not {asked}: leave {option} out, or encode again"
                )


@dataclass(frozen=True)
class FeatureSource:
    """Features on their way in: what made them, how many images, and their portions of (manifest lines, vectors)."""

    key: dict[str, Any]
    count: int
    portions: Iterator[tuple[list[dict[str, Any]], np.ndarray]]


def image_file(row: dict[str, Any]) -> Path:
    """The file that a manifest line is of; it may be gone since."""
    return Path(str(row["root"]), str(row["path"]))


def picture_of(row: dict[str, Any], file: Path | None = None) -> np.ndarray | None:
    """(H, W, 3) uint8 RGB of a manifest line; None, with a note, where the image is gone or no longer the one that was encoded."""
    from encoders import ImageError, read_image

    file = file or image_file(row)
    try:
        image = read_image(file)
    except ImageError as error:  # a store may have been carried away from its images
        output.note(f"not drawn: {output.printable(file)}: {error}")
        return None
    if image.sha256 != row["sha256"]:
        output.note(f"not drawn: {output.printable(file)}: changed since it was encoded")
        return None
    return image.rgb


def is_store(path: Path) -> bool:
    return (path / "meta.json").is_file()


@contextlib.contextmanager
def open_features(paths: Sequence[Path], choice: EncodingChoice, description: str) -> Iterator[FeatureSource]:
    """Features of a store, or of images, which are encoded while the portions are taken."""
    from encoders import FeatureStore, InputError
    from encoders.encode import encode_shards
    from encoders.plan import cache_folder, plan_encoding

    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(f"{stores[0]} is a feature store: give it alone, not together with other images")
    if stores:
        store = FeatureStore.open(stores[0])
        choice.check(store.key, stores[0])
        yield FeatureSource(store.key, len(store.rows), store.portions())
        return
    plan = plan_encoding(
        paths,
        choice.loaded,
        size=choice.size,
        fast_decode=choice.fast_decode,
        crops=1 if choice.crops is None else choice.crops,
    )
    with contextlib.ExitStack() as stack:
        update = stack.enter_context(output.progress(description))
        folder = (
            cache_folder(plan)
            if choice.cache
            else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fewmatch-")))
        )
        yield FeatureSource(plan.key, len(plan.images), encode_shards(plan, folder, wait=True, progress=update))


def read_features(
    paths: Sequence[Path], choice: EncodingChoice, description: str
) -> tuple[dict[str, Any], list[dict[str, Any]], np.ndarray]:
    """All at once: the key, the manifest lines of every image, and the vectors of the usable ones."""
    import numpy as np

    with open_features(paths, choice, description) as source:
        portions = list(source.portions)
    rows = [row for part, _ in portions for row in part]
    vectors = [part for _, part in portions if len(part)]
    return (
        source.key,
        rows,
        np.concatenate(vectors) if vectors else np.zeros((0, source.key["encoder"]["embed_dim"]), np.float32),
    )


@dataclass(frozen=True)
class LabelledData:
    """A labelled table and where it comes from.

    key: what encoded it, None for an .npz. skipped: manifest lines of the images that could not be used.
    rows: the manifest line behind each row of the table, None for an .npz.
    """

    table: FeatureTable
    key: dict[str, Any] | None
    skipped: list[dict[str, Any]]
    rows: list[dict[str, Any]] | None


def read_table(data: Path, choice: EncodingChoice, *, unlabelled: bool = False) -> LabelledData:
    """The table of DATA: a folder of class folders (or a CSV list with labels), a feature store with labels, or an .npz.

    With `unlabelled`, images without a label are taken too, under the label "": a split file may give theirs.
    """
    from encoders import InputError
    from fewshot import read_npz, table_of_images

    if data.suffix.lower() == ".npz":
        if choice.encoder is not None:
            output.note(f"note: {output.printable(data)} holds features already, so --encoder is not used")
        return LabelledData(read_npz(data), None, [], None)
    key, rows, vectors = read_features([data], choice, f"encoding {output.printable(data.name)}")
    usable = [row for row in rows if row["status"] == "ok"]
    labelled = [i for i, row in enumerate(usable) if unlabelled or row["label"] is not None]
    if not labelled:
        reason = (
            "holds no usable image"
            if not usable
            else f"has no labels: expected class folders, {data.name}/<class>/<image>"
        )
        output.list_skipped([row for row in rows if row["status"] != "ok"])
        raise InputError(f"{data} {reason}")
    skipped = [row for row in rows if row["status"] != "ok"]
    if not unlabelled:
        skipped += [row | {"reason": "no-label: not in a class folder"} for row in usable if row["label"] is None]
    table = table_of_images(
        vectors[labelled],
        [usable[i]["label"] or "" for i in labelled],
        [usable[i]["path"] for i in labelled],
        data.resolve().name,
    )
    return LabelledData(table, key, skipped, [usable[i] for i in labelled])


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

        Columns go from left to right of the original and frames give its pixels, as everywhere (`encoders.encode_images`, `mirror`).

        Raises:
            InputError: an image is gone or has changed since, or the encoder at hand is not the one of the store.
        """
        from encoders import InputError
        from encoders.plan import key_difference, plan_encoding

        named = [(str(self.rows[i]["path"]), self.files[i].absolute()) for i in images]
        used, encoder = self.key["preprocessing"], self.choice.loaded
        turned = {name: value for name, value in used.items() if name != "mirror"}
        turned |= {} if "mirror" in used else {"mirror": True}
        size = None if used["dense"] == encoder.preprocessing.dense else used["dense"]
        how = {
            "size": size,
            "resize": used["rule"],
            "fast_decode": decoded_fast(self.key),
            "mirror": "mirror" in turned,
        }
        key = plan_encoding(list(_listed(named).values()), encoder, keep="patches", **how).key
        if key != self.key | {"preprocessing": turned}:
            difference = key_difference(self.key | {"preprocessing": turned}, key)
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
    from encoders import FeatureStore, InputError, list_images

    stores = [path for path in paths if is_store(path)]
    if stores and len(paths) > 1:
        raise InputError(f"{stores[0]} is a feature store: give it alone, not together with other images")
    if stores:
        store = FeatureStore.open(stores[0])
        choice.check(store.key, stores[0])
        if store.key["keep"] != "patches":
            raise InputError(f"the store {stores[0]} keeps one vector per image: encode with --keep patches")
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
        named, choice, description, size=size, resize=choice.resize or "keep", fast_decode=choice.fast_decode
    ) as found:
        yield found


def _listed(named: Sequence[tuple[str, Path]]) -> dict[Path, ListedImage]:
    """Each file once, under a name that no other has."""
    from encoders import ListedImage

    return {file: ListedImage(file, file.as_posix().lstrip("/")) for _, file in named}


@contextlib.contextmanager
def _encoded(
    named: Sequence[tuple[str, Path]], choice: EncodingChoice, description: str, **how: Any
) -> Iterator[ImageMaps]:
    """The maps of files under the names that the user gave them; `how` goes to `encode_images`."""
    from encoders import encode_images

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
        yield ImageMaps(
            store.key,
            [row for row, _ in usable],
            [file for _, file in usable],
            [row for row, _ in rows if row["status"] != "ok"],
            choice,
            store,
            [place[listed[file].name] for _, file in usable],
        )


def read_base(base: Path | None, choice: EncodingChoice) -> np.ndarray | None:
    """The features of a base set; labels do not matter."""
    from encoders import InputError
    from fewshot import read_npz

    if base is None:
        return None
    if base.suffix.lower() == ".npz":
        return read_npz(base).features
    _, rows, vectors = read_features([base], choice, f"encoding {output.printable(base.name)}")
    output.list_skipped([row for row in rows if row["status"] != "ok"])
    if not len(vectors):
        raise InputError(f"{base} holds no usable image")
    return vectors


def decoded_fast(key: dict[str, Any]) -> bool:
    """Whether features were made with --fast-decode."""
    return "fast" in str(key["decoder"])


def encoder_json(key: dict[str, Any] | None) -> dict[str, Any] | None:
    """The entry `encoder` of results; None where features came without one."""
    if key is None:
        return None
    facts, preprocessing = key["encoder"], key["preprocessing"]
    return (
        {
            "name": facts["name"],
            "digest": facts["digest"],
            "dtype": facts["dtype"],
            "size": preprocessing.get("crop", preprocessing.get("dense")),
            "layer": key["layer"],
        }
        | ({"resize": preprocessing["rule"]} if key["keep"] == "patches" else {})
        | ({"stride": facts["stride"]} if "stride" in facts else {})
        | ({"fast_decode": True} if decoded_fast(key) else {})
        | ({"crops": preprocessing["crops"]} if "crops" in preprocessing else {})
        | ({"mirror": True} if "mirror" in preprocessing else {})
    )


def encoder_words(key: dict[str, Any] | None) -> str:
    """The encoder for captions."""
    return encoder_facts_words(encoder_json(key))


def encoder_facts_words(facts: dict[str, Any] | None) -> str:
    """The same of the entry `encoder` of a result."""
    if facts is None:
        return "given features"
    rule = facts.get("resize", "keep")
    layer = "" if facts["layer"] == "last" else f", layer {facts['layer']}"
    layer += f", stride {facts['stride']}" if "stride" in facts else ""
    layer += f", {facts['crops']} crops" if "crops" in facts else ""
    layer += ", fast decode" if "fast_decode" in facts else ""
    layer += ", mirrored" if "mirror" in facts else ""
    return f"{facts['name']} at {facts['size']} px{'' if rule == 'keep' else f' ({rule})'}{layer}, {facts['dtype']}"
