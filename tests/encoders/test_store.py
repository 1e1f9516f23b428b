"""Shards, manifests and the files they lie in: written whole, read back exactly, and refused when anything is altered."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder

from fewmatch.encoders import FeatureStore, encode_images
from fewmatch.encoders.frame import dense_frame
from fewmatch.encoders.store.store import (
    CHECKSUM,
    MANIFEST,
    META,
    Shard,
    canonical,
    is_store_file,
    key_digest,
    leftovers,
    read_header,
    shard_key,
    write_manifest,
    write_meta,
)
from fewmatch.errors import InputError, StoreDamagedError
from fewmatch.writing import ATTEMPTS, replacing, write_atomically

Contents = Callable[[Path], dict[str, bytes]]
KEY = key_digest({"encoder": "made up"})


def made_up(grids: list[tuple[int, int] | None], dim: int = 3, patches: bool = False, seed: int = 0) -> Shard:
    """A shard with one image per grid; None is a skipped one."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    for i, grid in enumerate(grids):
        row = {"path": f"ü/{i}.png", "size": 10**i, "mtime_ns": 2**62 + i, "sha256": "0" * 64, "note": None}
        if grid is None:
            rows.append(row | {"frame": None, "status": "skipped", "reason": "empty: the file has no content"})
        else:
            frame = dense_frame(grid[1] * 4, grid[0] * 4, size=4 * min(grid), patch=4).to_json()
            rows.append(row | {"frame": frame, "status": "ok", "reason": None})
    usable = [grid for grid in grids if grid is not None]
    vectors = torch.randn(len(usable), dim, generator=generator)
    count = sum(h * w for h, w in usable)
    return Shard(rows, vectors, torch.randn(count, dim, generator=generator).half() if patches else None)


def same(a: Shard, b: Shard) -> bool:
    maps = (a.feature_map, b.feature_map)
    return (
        a.rows == b.rows
        and a.global_repr.dtype == b.global_repr.dtype == torch.float32
        and torch.equal(a.global_repr, b.global_repr)
        and (maps == (None, None) or (maps[0].dtype == maps[1].dtype and torch.equal(maps[0], maps[1])))
    )


GRIDS = st.lists(st.none() | st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(grids=GRIDS, dim=st.integers(1, 9), patches=st.booleans(), seed=st.integers(0, 99))
def test_a_shard_is_read_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, grids: list[Any], dim: int, patches: bool, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    shard = made_up(grids, dim, patches, seed)
    path = shard.write(folder / "one.safetensors", KEY)
    got = Shard.read(path, KEY)
    assert same(got, shard)
    assert read_header(path, KEY)["rows"] == shard.rows and shard_key(path) == KEY
    assert path.read_bytes() == got.write(folder / "two.safetensors", KEY).read_bytes()
    if patches:
        usable = [grid for grid in grids if grid is not None]
        assert [len(got.patches(i)) for i in range(len(usable))] == [h * w for h, w in usable]
        assert same(
            got,
            Shard(
                got.rows, got.global_repr, torch.cat([got.patches(i) for i in range(len(usable))] or [got.feature_map])
            ),
        )
    else:
        with pytest.raises(InputError, match="--keep patches"):
            got.patches(0)


@pytest.mark.parametrize("patches", [False, True])
@pytest.mark.parametrize("grids", [[], [None], [(1, 2), None, (2, 1)]], ids=["empty", "skipped", "mixed"])
def test_no_byte_of_a_shard_can_change_unnoticed(tmp_path: Path, grids: list[Any], patches: bool) -> None:
    path = made_up(grids, patches=patches).write(tmp_path / "a.safetensors", KEY)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for position, byte in enumerate(whole):
        masks = {1 << position % 8}
        if len(grids) > 1:  # it has everything that the smaller ones have
            # The bit between upper and lower case, and blank to line feed, which JSON does not tell apart.
            masks |= {mask for mask, where in ((0x20, chr(byte).isalpha()), (0x2A, byte == 0x20)) if where}
        for mask in masks:
            altered = bytearray(whole)
            altered[position] ^= mask
            path.write_bytes(altered)
            with pytest.raises(StoreDamagedError, match=r"is damaged .*again, it makes this shard anew"):
                (read_header if position < header else Shard.read)(path, KEY)
    path.write_bytes(whole)
    assert shard_key(path) == KEY
    path.write_bytes(whole[: header - 1])
    assert shard_key(path) is None


@settings(max_examples=150, deadline=None)
@given(data=st.data(), grids=GRIDS, patches=st.booleans())
def test_a_shard_with_any_one_byte_replaced_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, grids: list[Any], patches: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "replaced.safetensors"
    whole = made_up(grids, patches=patches).write(path, KEY).read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    altered = bytearray(whole)
    altered[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(altered)
    with pytest.raises(StoreDamagedError):
        Shard.read(path, KEY)


def test_a_shard_of_any_other_length_is_refused(tmp_path: Path) -> None:
    path = made_up([(2, 3), None], patches=True).write(tmp_path / "a.safetensors", KEY)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreDamagedError):
            Shard.read(path, KEY)
    for more in (b"\0", b"more", whole):
        path.write_bytes(whole + more)
        with pytest.raises(StoreDamagedError):
            Shard.read(path, KEY)


def test_a_shard_of_another_store_or_none_at_all_is_named(tmp_path: Path) -> None:
    path = made_up([(1, 1)]).write(tmp_path / "a.safetensors", key_digest({"encoder": "another"}))
    with pytest.raises(StoreDamagedError, match=r"a.safetensors belongs to another store"):
        Shard.read(path, KEY)
    with pytest.raises(StoreDamagedError, match=r"b.safetensors is missing"):
        Shard.read(tmp_path / "b.safetensors", KEY)
    (tmp_path / "c.safetensors").mkdir()
    with pytest.raises(StoreDamagedError, match=r"c.safetensors is damaged .Is a directory"):
        Shard.read(tmp_path / "c.safetensors", KEY)


@pytest.mark.parametrize(
    "name", [os.fsdecode(b"\xff.png"), "two\nlines\r\x85\u2028.png", 'quote"\\.png', "ü/é.png", "\x1c.png"]
)
def test_every_file_name_survives_in_shard_and_manifest(tmp_path: Path, name: str) -> None:
    shard = made_up([(1, 1)])
    shard.rows[0]["path"] = name
    assert Shard.read(shard.write(tmp_path / "a", KEY), KEY).rows == shard.rows
    rows = [shard.rows[0] | {"root": "/" + name, "label": name, "shard": "a", "row": 0}] * 2
    write_manifest(tmp_path, rows)
    write_meta(tmp_path, {})
    store = FeatureStore.open(tmp_path)
    assert store.rows == rows and store.names == store.labels == [name, name]
    assert (tmp_path / MANIFEST).read_bytes() == b"".join(canonical(row) + b"\n" for row in rows)


def test_a_manifest_that_says_the_same_is_left_alone(tmp_path: Path) -> None:
    rows = [{"path": "a"}, {"path": "b"}]
    write_manifest(tmp_path, rows)
    before = (tmp_path / MANIFEST).stat()
    write_manifest(tmp_path, rows)
    after = (tmp_path / MANIFEST).stat()  # but for the time at which it was last read
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_manifest(tmp_path, rows[:1])
    assert (tmp_path / MANIFEST).read_bytes() == b'{"path":"a"}\n'


# A finished store, and what can befall it.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, picture: Callable[..., Path]) -> Path:
    """Encoded once; the tests spoil copies."""
    folder = tmp_path_factory.mktemp("finished")
    for i in range(8):
        picture(folder / "pictures" / ("a" if i < 5 else "b") / f"{i}.png", seed=i)
    (folder / "pictures" / "b" / "6.png").write_bytes(b"")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWMATCH_HOME", str(folder / "home"))
        encode_images([folder / "pictures"], PatchLocalEncoder(), out=folder / "store", shard_images=3, keep="patches")
    return folder / "store"


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> FeatureStore:
    return FeatureStore.open(shutil.copytree(finished, tmp_path / "store"))


def shards_of(store: FeatureStore) -> list[Path]:
    return sorted(store.path.glob("shard-*.safetensors"))


def test_what_is_no_store_or_an_unfinished_one_is_a_wrong_input(store: FeatureStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "nothing", tmp_path / "empty", tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match=r"is not a feature store: expected meta.json and manifest.jsonl in it"):
            FeatureStore.open(path)
    (store.path / MANIFEST).unlink()
    with pytest.raises(InputError, match="is unfinished: run `fewmatch encode` with its images again"):
        FeatureStore.open(store.path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        '{"schema":1}',
        '{"key":{}}',
        '{"schema":1,"key":5}',
        '{"schema":1,"key":null}',
        "ÿ",
        "\0",
    ],
)
def test_a_meta_that_cannot_be_read_is_damage(store: FeatureStore, text: str) -> None:
    (store.path / META).write_text(text, encoding="utf-8")
    with pytest.raises(StoreDamagedError, match=r"meta.json cannot be read .*another folder, or --overwrite"):
        FeatureStore.open(store.path)


@pytest.mark.parametrize("schema", [0, 3, "1", "2", None])
def test_another_schema_is_refused(store: FeatureStore, schema: object) -> None:
    (store.path / META).write_text(json.dumps({"schema": schema, "key": store.key}))
    with pytest.raises(StoreDamagedError, match=f"has schema {schema}, this fewmatch reads schemas 1 and 2"):
        FeatureStore.open(store.path)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"{}\n", b"[1]\n", b"5\n", b"garbage\n", b'{"path":"\xff"}\n', b"\0\0\0\0"]
)
def test_a_manifest_of_something_else_is_damage(store: FeatureStore, text: bytes) -> None:
    for data in (text, (store.path / MANIFEST).read_bytes() + text if text.strip() else text):
        (store.path / MANIFEST).write_bytes(data)
        with pytest.raises(
            StoreDamagedError, match=r"manifest.jsonl cannot be used .*run `fewmatch encode` with its images again"
        ):
            FeatureStore.open(store.path)


def test_a_manifest_cut_in_the_middle_of_a_line_is_damage(store: FeatureStore) -> None:
    whole = (store.path / MANIFEST).read_bytes()
    (store.path / MANIFEST).write_bytes(whole[:-20])
    with pytest.raises(StoreDamagedError):
        FeatureStore.open(store.path)


def test_no_byte_of_a_manifest_can_change_unnoticed(store: FeatureStore) -> None:
    """Labels and roots stand in no shard: only the manifest's own checksum covers them."""
    whole = (store.path / MANIFEST).read_bytes()
    line = whole.splitlines()[0]
    for position in range(len(line)):
        (store.path / MANIFEST).write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(StoreDamagedError, match=f"it is not the one that {CHECKSUM} was made of"):
            FeatureStore.open(store.path)
    (store.path / MANIFEST).write_bytes(whole)
    assert FeatureStore.open(store.path).rows == store.rows
    assert (store.path / CHECKSUM).read_text() == f"{hashlib.sha256(whole).hexdigest()}  {MANIFEST}\n"  # for sha256sum
    (store.path / CHECKSUM).unlink()
    with pytest.raises(InputError, match="is unfinished"):
        FeatureStore.open(store.path)


Break = Callable[[list[Path]], object]
BREAKS: dict[str, Break] = {
    "truncated": lambda shards: os.truncate(shards[1], shards[1].stat().st_size - 1),
    "empty": lambda shards: shards[1].write_bytes(b""),
    "missing": lambda shards: shards[1].unlink(),
    "swapped with another": lambda shards: shards[1].write_bytes(shards[0].read_bytes()),
    "of another key": lambda shards: Shard.read(shards[1], shard_key(shards[1]) or "").write(shards[1], KEY),
    "header altered": lambda shards: shards[1].write_bytes(shards[1].read_bytes().replace(b"b/5.png", b"b/6.png", 1)),
}


@pytest.mark.parametrize("what", BREAKS)
def test_features_of_a_broken_shard_are_never_given(store: FeatureStore, what: str) -> None:
    BREAKS[what](shards_of(store))
    opened = FeatureStore.open(store.path)
    for read in (opened.global_repr, opened.verify, lambda: list(opened.portions()), lambda: opened.feature_map(3)):
        with pytest.raises(StoreDamagedError, match=r"shard-00001-.*run `fewmatch encode` again"):
            read()
    assert opened.feature_map(2).shape == (4, 5, 6)  # shard 0 is sound


def test_an_altered_patch_is_never_given(store: FeatureStore) -> None:
    shard = shards_of(store)[1]
    whole = shard.read_bytes()
    before = [store.feature_map(i) for i in range(len(store))]
    in_shard = [i for i, row in enumerate(store.images) if row["shard"] == shard.name]
    last = before[in_shard[-1]].astype(np.float16).tobytes()
    assert whole.count(last) == 1
    shard.write_bytes(whole.replace(last, last[:-1] + bytes([last[-1] ^ 1])))
    opened = FeatureStore.open(store.path)
    with pytest.raises(StoreDamagedError, match=r"shard-00001-.*its checksum differs"):
        opened.verify()
    for reader in (opened, store):  # also one that has read the shard before
        with pytest.raises(StoreDamagedError, match=r"shard-00001-.*the checksum of the patches of b/5.png differs"):
            reader.feature_map(in_shard[-1])
        assert np.array_equal(reader.feature_map(in_shard[0]), before[in_shard[0]])  # a sound neighbour
    assert np.array_equal(opened.global_repr(), store.global_repr())  # vectors have a checksum of their own


def test_an_altered_vector_is_never_given(store: FeatureStore) -> None:
    shard = shards_of(store)[0]
    data, vector = shard.read_bytes(), store.global_repr()[0].tobytes()
    assert data.count(vector) == 1
    shard.write_bytes(data.replace(vector, vector[:-1] + bytes([vector[-1] ^ 1])))
    for read in (store.verify, store.global_repr):
        with pytest.raises(StoreDamagedError, match=r"shard-00000-.*checksum .*differs"):
            read()


def edited(line: bytes, **changes: object) -> bytes:
    return canonical(json.loads(line) | changes) + b"\n"


def rewrite(store: FeatureStore, manifest: bytes) -> None:
    """Replace the manifest, with a checksum that fits."""
    (store.path / MANIFEST).write_bytes(manifest)
    (store.path / CHECKSUM).write_text(f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n")


@pytest.mark.parametrize(
    "edit",
    [
        lambda lines: lines[:4] + lines[5:],
        lambda lines: [*lines[:4], lines[4], *lines[4:]],
        lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
        lambda lines: [*lines[:4], edited(lines[4], sha256="1" * 64), *lines[5:]],
        lambda lines: [*lines[:4], edited(lines[4], mtime_ns=1), *lines[5:]],
        lambda lines: [*lines[:4], edited(lines[4], status="skipped"), *lines[5:]],
        lambda lines: [*lines[:4], edited(lines[4], path="a/0.png"), *lines[5:]],
        lambda lines: [*lines[:4], edited(lines[4], shard="shard-00007-0123456789abcdef.safetensors"), *lines[5:]],
    ],
    ids=["line lost", "line twice", "lines swapped", "digest", "mtime", "status", "name", "shard"],
)
def test_features_are_never_given_to_other_images_than_their_own(
    store: FeatureStore, edit: Callable[[list[bytes]], list[bytes]]
) -> None:
    lines = (store.path / MANIFEST).read_bytes().splitlines(keepends=True)
    rewrite(store, b"".join(edit(lines)))
    opened = FeatureStore.open(store.path)
    for read in (opened.global_repr, opened.verify):
        with pytest.raises(StoreDamagedError, match="run `fewmatch encode` again"):
            read()


@pytest.mark.parametrize("row", [1, 7, -1, None, "0"])
def test_a_feature_map_is_never_given_to_another_image(store: FeatureStore, row: object) -> None:
    lines = (store.path / MANIFEST).read_bytes().splitlines(keepends=True)
    rewrite(store, edited(lines[0], row=row) + b"".join(lines[1:]))
    opened = FeatureStore.open(store.path)
    with pytest.raises(StoreDamagedError, match=r"holds other images than manifest.jsonl says"):
        opened.feature_map(0)
    assert np.array_equal(opened.feature_map(1), store.feature_map(1))


def test_an_edited_label_is_refused_and_encoding_again_restores_it(finished: Path, store: FeatureStore) -> None:
    whole = (store.path / MANIFEST).read_bytes()
    lines = whole.splitlines(keepends=True)
    (store.path / MANIFEST).write_bytes(edited(lines[0], label="better") + b"".join(lines[1:]))
    with pytest.raises(StoreDamagedError, match=r"labels come from class folders or from the column label of a CSV"):
        FeatureStore.open(store.path)
    encoder = PatchLocalEncoder()
    encode_images([finished.parent / "pictures"], encoder, out=store.path, shard_images=3, keep="patches")
    assert encoder.images_seen == 0 and (store.path / MANIFEST).read_bytes() == whole


# Which files are a store's.


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        (META, True),
        (MANIFEST, True),
        ("shard-00000-0123456789abcdef.safetensors", True),
        ("shard-123456-0123456789abcdef.safetensors", True),
        (".meta.json.0123.tmp", True),
        (".manifest.jsonl.abc_12.tmp", True),
        (".shard-00000-0123456789abcdef.safetensors.x1.tmp", True),
        ("shard-000000.tar", False),
        ("shard-00001-of-00002.safetensors", False),
        ("shard-00000-0123456789abcdef.safetensors.bak", False),
        ("shard-00000-0123456789ABCDEF.safetensors", False),
        ("model.safetensors", False),
        (".photo.jpg.x1.tmp", False),
        (".meta.json", False),
        ("meta.json.tmp", False),
        ("..tmp", False),
    ],
)
def test_a_file_is_a_stores_by_its_whole_name(name: str, ours: bool) -> None:
    assert is_store_file(name) == ours


def test_leftovers_are_those_of_ones_own_part(tmp_path: Path) -> None:
    shards = [f".shard-{i:05d}-0123456789abcdef.safetensors.x.tmp" for i in range(5)]
    for name in [
        *shards,
        ".meta.json.x.tmp",
        ".manifest.jsonl.x.tmp",
        ".other.x.tmp",
        "shard-00000-0123456789abcdef.safetensors",
    ]:
        (tmp_path / name).touch()
    common = {".meta.json.x.tmp", ".manifest.jsonl.x.tmp"}
    assert {path.name for path in leftovers(tmp_path, 0, 1)} == {*shards, *common}
    assert {path.name for path in leftovers(tmp_path, 1, 3)} == {shards[1], shards[4], *common}


# One file, whole or not at all.


def test_a_written_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        path = write_atomically(tmp_path / "new" / "file", b"some", memoryview(b"thing"))
        assert path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)
    assert path.read_bytes() == b"something" and os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize(
    "problem", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), SystemExit(143)]
)
@pytest.mark.parametrize("where", ["os.fsync", "os.replace", "block"])
def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, where: str
) -> None:
    def fail(*_: object) -> None:
        raise problem

    path = write_atomically(tmp_path / "file", b"before")
    if where != "block":
        monkeypatch.setattr(where, fail)
    with pytest.raises(type(problem)), replacing(path) as file:
        file.write(b"after")
        if where == "block":
            fail()
    assert os.listdir(tmp_path) == ["file"] and path.read_bytes() == b"before"


def test_a_temporary_file_that_is_taken_away_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, []

    def taken_away(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) < times:
            source.unlink()
        replace(source, target)

    monkeypatch.setattr("os.replace", taken_away)
    times = ATTEMPTS
    assert write_atomically(tmp_path / "file", b"content").read_bytes() == b"content"
    assert len(set(calls)) == ATTEMPTS and os.listdir(tmp_path) == ["file"]
    calls.clear()
    times = 100
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "file", b"other")
    assert (tmp_path / "file").read_bytes() == b"content"
