"""Folders of images to stores: the right features under the right names, nothing computed twice, nothing of anybody else touched."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from patch_local import PatchLocalEncoder
from PIL import Image

import fewmatch.encoders.store.encode
from fewmatch.encoders import Encoder, FeatureStore, encode_images, list_images
from fewmatch.encoders.devices import batch_patches
from fewmatch.encoders.features import Features
from fewmatch.encoders.frame import RESIZE_RULES, Frame, crop_frame, dense_frame, padded_frame, resample, resized_frame
from fewmatch.encoders.store.encode import encode_shards
from fewmatch.encoders.store.plan import cache_folder, plan_encoding
from fewmatch.encoders.store.store import MANIFEST, META, Shard, is_store_file, key_digest
from fewmatch.errors import FewmatchError, ImageError, InputError, OutputExistsError, StoreDamagedError

Contents = Callable[[Path], dict[str, bytes]]
States = Callable[[Path], dict[str, tuple[bytes, int, int]]]
Picture = Callable[..., Path]


def counted(
    paths: Any, out: Path | None, encoder: PatchLocalEncoder | None = None, **options: Any
) -> tuple[FeatureStore, int]:
    """Encode with shards of three images; the store, and how many images went through the encoder."""
    encoder = encoder or PatchLocalEncoder()
    before = encoder.images_seen
    store = encode_images(
        [paths] if isinstance(paths, Path) else paths, encoder, out=out, **{"shard_images": 3, **options}
    )
    return store, encoder.images_seen - before


def by_hand(path: Path, frame: Frame, encoder: PatchLocalEncoder) -> Features:
    """Features of one image, its normalisation written out colour by colour."""
    fill = tuple(round(255 * mean) for mean in encoder.preprocessing.mean)
    pixels = resample(np.asarray(Image.open(path).convert("RGB")), frame, fill)
    height, width, _ = pixels.shape
    image = torch.zeros(1, 3, height, width)
    for c in range(3):
        values = pixels[:, :, c].astype(np.float32) / np.float32(255)
        mean, std = encoder.preprocessing.mean[c], encoder.preprocessing.std[c]
        image[0, c] = torch.from_numpy((values - np.float32(mean)) / np.float32(std))
    return encoder(image)


def test_the_test_encoder_keeps_the_contract_and_looks_at_single_patches() -> None:
    encoder = PatchLocalEncoder()
    assert isinstance(encoder, Encoder)
    image = torch.linspace(-1, 1, 3 * 8 * 12).view(1, 3, 8, 12)
    other = image.clone()
    other[..., 4:, 8:] += 0.1
    changed = (encoder(image).feature_map != encoder(other).feature_map).any(-1)[0]
    assert encoder(image).feature_map.shape == (1, 2, 3, 6) and changed.tolist() == [[False] * 3, [False, False, True]]


# The features.


def test_vectors_are_those_of_the_encoder_on_the_cropped_pixels(pictures: Path, tmp_path: Path) -> None:
    encoder = PatchLocalEncoder()
    store, seen = counted(pictures, tmp_path / "store", encoder)
    names = [f"a/{i}.png" for i in range(5)] + [f"b/{i}.png" for i in range(5, 8)]
    assert seen == len(store) == 8 and store.names == names and store.labels == ["a"] * 5 + ["b"] * 3
    assert store.skipped == [] and store.path == tmp_path / "store"
    frame = crop_frame(40, 30, resize=20, crop=16, patch=4)
    wanted = [by_hand(pictures / name, frame, encoder).global_repr[0].numpy() for name in names]
    got = store.global_repr()
    assert got.dtype == np.float32 and np.array_equal(got, wanted)
    assert all(store.frame(i) == frame for i in range(8))
    for row, name in zip(store.rows, names, strict=True):
        facts = (pictures / name).stat()
        assert (row["root"], row["size"], row["mtime_ns"]) == (str(pictures), facts.st_size, facts.st_mtime_ns)
        assert row["sha256"] == hashlib.sha256((pictures / name).read_bytes()).hexdigest()
        assert (row["status"], row["reason"], row["note"]) == ("ok", None, None)
    with pytest.raises(InputError, match="encode with --keep patches"):
        store.feature_map(0)
    opened = FeatureStore.open(str(tmp_path / "store"))
    opened.verify()
    assert opened == store and np.array_equal(opened.global_repr(), got)


def test_feature_maps_keep_their_order_whatever_their_shape(tmp_path: Path, picture: Picture) -> None:
    sizes = [(40, 30), (30, 40), (30, 30), (90, 30), (30, 40), (1, 1), (7, 3), (40, 30), (400, 4)]
    for i, size in enumerate(sizes):
        picture(tmp_path / "in" / f"{i}.png", i, size)
    encoder = PatchLocalEncoder()
    store, seen = counted(tmp_path / "in", tmp_path / "store", encoder, keep="patches", shard_images=4)
    assert seen == len(store) == 9
    vectors = store.global_repr()
    for i, (width, height) in enumerate(sizes):
        frame = dense_frame(width, height, size=16, patch=4)
        wanted = by_hand(tmp_path / "in" / f"{i}.png", frame, encoder)
        assert store.frame(i) == frame and np.array_equal(vectors[i], wanted.global_repr[0])
        got = store.feature_map(i)
        assert got.dtype == np.float32 and np.array_equal(got, wanted.feature_map[0].half().float())
    assert np.array_equal(store.feature_map(-1), got)
    shards = [Shard.read(path, key_digest(store.key)) for path in sorted(store.path.glob("shard-*"))]
    assert [len(shard.rows) for shard in shards] == [4, 4, 1]
    assert np.array_equal(shards[1].patches(1).float(), store.feature_map(5).reshape(-1, 6))


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_batches_and_workers_do_not_change_a_byte(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents, keep: Any
) -> None:
    counted(pictures, tmp_path / "one", keep=keep)
    counted(pictures, tmp_path / "two", keep=keep, workers=1)
    monkeypatch.setattr("fewmatch.encoders.devices.BATCH_PATCHES", 1)
    counted(pictures, tmp_path / "three", keep=keep, workers=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two") == contents(tmp_path / "three")


def test_size_scales_the_preparation(pictures: Path, tmp_path: Path) -> None:
    store, _ = counted(pictures, tmp_path / "global", size=32)
    assert store.frame(0) == crop_frame(40, 30, resize=40, crop=32, patch=4)
    store, _ = counted(pictures, tmp_path / "patches", size=32, keep="patches")
    assert store.frame(0) == dense_frame(40, 30, size=32, patch=4)
    with pytest.raises(InputError, match="size 30 is not a multiple of the patch size 4"):
        counted(pictures, tmp_path / "no", size=30)
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_maps_are_of_what_the_resize_rule_shows(tmp_path: Path, picture: Picture, rule: str) -> None:
    """The vectors too, and in batches of images of all shapes."""
    sizes = [(40, 30), (30, 40), (30, 30), (90, 30), (1, 1), (7, 3), (400, 4), (40, 30)]
    for i, size in enumerate(sizes):
        picture(tmp_path / "in" / f"{i}.png", i, size)
    encoder = PatchLocalEncoder()
    store, seen = counted(tmp_path / "in", tmp_path / "store", encoder, keep="patches", resize=rule, size=32)
    assert seen == len(store) == 8 and store.skipped == []
    for i, (width, height) in enumerate(sizes):
        frame = resized_frame(width, height, size=32, patch=4, rule=rule)
        wanted = by_hand(tmp_path / "in" / f"{i}.png", frame, encoder)
        assert store.frame(i) == frame
        assert np.array_equal(store.feature_map(i), wanted.feature_map[0].half().float())
        assert np.array_equal(store.global_repr()[i], wanted.global_repr[0])


def test_padding_is_what_normalisation_turns_into_zero(tmp_path: Path, picture: Picture) -> None:
    """Its colour is the mean of the preprocessing, as near as 8 bits come, so the test encoder's padding is as good as zero."""
    encoder = PatchLocalEncoder()
    encoder.preprocessing = replace(encoder.preprocessing, mean=(0.2, 0.6, 1.0), std=(0.5, 0.25, 1.0))
    assert plan_encoding([picture(tmp_path / "0.png", 0, (40, 20))], encoder, keep="patches").fill == (51, 153, 255)
    store, _ = counted(tmp_path / "0.png", tmp_path / "store", encoder, keep="patches", resize="pad")
    frame = store.frame(0)
    assert frame == padded_frame(40, 20, size=16, patch=4) and frame.real.sum() == 8
    norms = np.linalg.norm(store.feature_map(0), axis=-1)
    assert (norms[~frame.real] < 1e-3).all() and (norms[frame.real] > 0.1).all()


def test_another_resize_rule_is_another_store(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: States
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    made = {rule: counted(pictures, None, keep="patches", resize=rule) for rule in RESIZE_RULES}
    assert [seen for _, seen in made.values()] == [8] * 4
    assert len({store.path for store, _ in made.values()}) == 4
    assert len({json.dumps(store.key, sort_keys=True) for store, _ in made.values()}) == 4
    for rule, (store, _) in made.items():
        assert store.key["preprocessing"]["rule"] == rule
        again, seen = counted(pictures, None, keep="patches", resize=rule)
        assert seen == 0 and again == store
    assert counted(pictures, None, keep="patches")[0] == made["keep"][0]
    counted(pictures, tmp_path / "store", keep="patches", resize="pad")
    before = states(tmp_path / "store")
    with pytest.raises(OutputExistsError, match="preprocessing rule was pad, now squash"):
        counted(pictures, tmp_path / "store", keep="patches", resize="squash")
    assert states(tmp_path / "store") == before
    store, seen = counted(pictures, tmp_path / "store", keep="patches", resize="squash", overwrite=True)
    assert seen == 8 and store.key["preprocessing"]["rule"] == "squash"


def test_an_image_too_long_for_one_rule_is_skipped_by_it_alone(tmp_path: Path, picture: Picture) -> None:
    picture(tmp_path / "in" / "0.png", 0, (1, 5000))
    for rule in RESIZE_RULES:
        store, _ = counted(tmp_path / "in", tmp_path / rule, keep="patches", resize=rule, size=32)
        assert len(store) == (rule != "keep")
        assert [row["reason"].partition(":")[0] for row in store.skipped] == ["too-elongated"] * (rule == "keep")


def test_the_key_says_what_made_the_features(pictures: Path, tmp_path: Path) -> None:
    facts = {"name": "patch-local", "family": None, "digest": "random projection 6 4 0", "architecture": None}
    facts |= {"dtype": "float32", "embed_dim": 6, "patch_size": 4}
    store, _ = counted(pictures, tmp_path / "plain")
    assert store.key["encoder"] == facts
    assert json.loads((tmp_path / "plain" / META).read_text()) == {"schema": 2, "key": store.key}
    special = PatchLocalEncoder(digest="d", dtype=torch.float64, device=torch.device("cpu"))
    store, _ = counted(pictures, tmp_path / "special", special)
    assert store.key["encoder"] == facts | {"digest": "d", "dtype": "float64"}


def test_a_store_looks_the_same_wherever_the_images_are_listed_from(
    pictures: Path, tmp_path: Path, contents: Contents
) -> None:
    listing = list_images([pictures])
    counted(pictures, tmp_path / "folder")
    counted(listing, tmp_path / "listing")
    assert contents(tmp_path / "folder") == contents(tmp_path / "listing")


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        (lambda p: [], {}, "no images"),
        (lambda p: [p / "none"], {}, "does not exist"),
        (lambda p: [p, *list_images([p])], {}, "one or the other"),
        (lambda p: list_images([p]) * 2, {}, "same name"),
        (lambda p: [p], {"shard_images": 0}, "no shards of 0 images"),
        (lambda p: [p], {"shard": (0, 1)}, "no part 0/1"),
        (lambda p: [p], {"shard": (3, 2)}, "no part 3/2"),
        (
            lambda p: [p],
            {"resize": "stretch", "keep": "patches"},
            "no resize rule called stretch: expected one of keep, crop, pad, squash",
        ),
        (lambda p: [p], {"resize": ""}, "no resize rule called : expected one of keep, crop, pad, squash"),
        *(
            (lambda p: [p], {"resize": rule}, rf"resize {rule} is for feature maps \(--keep patches\)")
            for rule in ("crop", "pad", "squash")
        ),
    ],
)
def test_what_cannot_be_meant_is_a_wrong_input(
    pictures: Path, tmp_path: Path, paths: Callable[[Path], Any], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        counted(paths(pictures), tmp_path / "store", **options)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    "name",
    [
        os.fsdecode(b"\xff.png"),
        "two\nlines.png",
        "-rf.png",
        " .png",
        "ü é 图.png",
        "e\u0301.png",
        "#'\"\\.png",
        "x" * 251 + ".png",
    ],
)
def test_any_file_name_goes_through(tmp_path: Path, picture: Picture, name: str) -> None:
    shutil.copy(picture(tmp_path / "0.png", 0), tmp_path / "link.png")
    (tmp_path / "in" / "two\nlines").mkdir(parents=True)
    os.rename(tmp_path / "link.png", tmp_path / "in" / "two\nlines" / name)
    store, _ = counted(tmp_path / "in", tmp_path / "store")
    assert (store.names, store.labels) == ([f"two\nlines/{name}"], ["two\nlines"])
    assert counted(tmp_path / "in", tmp_path / "store")[1] == 0
    assert FeatureStore.open(tmp_path / "store").rows == store.rows


# Nothing is computed twice.


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_a_second_run_encodes_and_writes_nothing(pictures: Path, tmp_path: Path, states: States, keep: Any) -> None:
    (pictures / "a" / "1.png").write_bytes(b"")
    (pictures / "a" / "2.png").unlink()
    (pictures / "a" / "2.png").symlink_to("nowhere")
    first, seen = counted(pictures, tmp_path / "store", keep=keep)
    before = states(tmp_path / "store")
    second, again = counted(pictures, tmp_path / "store", keep=keep)
    assert (seen, again) == (6, 0) and second == first and states(tmp_path / "store") == before


def test_the_cache_finds_the_same_call_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: States
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    first, seen = counted(pictures, None)
    assert seen == 8 and first.path.parent == tmp_path / "home" / "features"
    before = states(first.path)
    second, again = counted([Path("pictures/../pictures")], None)
    assert again == 0 and second == first and states(first.path) == before
    assert counted(pictures, None, size=32)[1] == 8
    assert counted(pictures, None, PatchLocalEncoder(digest="another"))[1] == 8
    assert counted(pictures / "a", None)[1] == 5
    assert len(list((tmp_path / "home" / "features").iterdir())) == 4
    assert counted(pictures, None)[1] == 0


@pytest.mark.parametrize("text", [None, b"", b"garbage", b'{"schema": 3, "key": {}}', b'{"schema": 1, "key": {}}'])
def test_a_damaged_cache_mends_itself(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents, text: bytes | None
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path / "home"))
    store, _ = counted(pictures, None)
    whole = contents(store.path)
    (store.path / META).unlink()
    if text is not None:
        (store.path / META).write_bytes(text)
    assert np.array_equal(counted(pictures, None)[0].global_repr(), store.global_repr())
    assert contents(store.path) == whole
    for path in store.path.iterdir():  # nothing of it left but a meta.json that says nothing
        path.unlink()
    (store.path / META).write_bytes(b"")
    counted(pictures, None)
    assert contents(store.path) == whole


@pytest.mark.parametrize("name", ["hf:org/model", "../up", "a\0b", "x" * 300, "ü"])
def test_any_encoder_name_gives_a_folder_in_the_cache(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FEWMATCH_HOME", str(tmp_path))
    encoder = PatchLocalEncoder()
    encoder.name = name
    assert cache_folder(plan_encoding([pictures], encoder)).parent == tmp_path / "features"
    assert counted(pictures / "b", None, encoder)[0].key["encoder"]["name"] == name


def finished_like_new(paths: Any, out: Path, tmp_path: Path, contents: Contents, **options: Any) -> bool:
    """Whether the store is what a run into an empty folder makes, byte for byte."""
    counted(paths, tmp_path / "new", **options)
    got, wanted = contents(out), contents(tmp_path / "new")
    shutil.rmtree(tmp_path / "new")
    return got == wanted


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_only_what_changed_is_encoded(
    pictures: Path, tmp_path: Path, picture: Picture, contents: Contents, keep: Any
) -> None:
    out = tmp_path / "store"

    def seen() -> int:
        store, count = counted(pictures, out, keep=keep)
        store.verify()
        assert finished_like_new(pictures, out, tmp_path, contents, keep=keep)
        return count

    assert seen() == 8
    picture(pictures / "a" / "3.png", 33, (50, 30))  # changed
    assert seen() == 1
    os.utime(pictures / "b" / "6.png", (1, 1))  # perhaps changed: its content tells that it did not
    assert seen() == 0
    shutil.copy2(pictures / "b" / "6.png", tmp_path / "copy.png")
    os.replace(tmp_path / "copy.png", pictures / "b" / "6.png")  # same size and time, another inode
    assert seen() == 0
    data = bytearray((pictures / "b" / "6.png").read_bytes())
    state = (pictures / "b" / "6.png").stat()
    picture(pictures / "b" / "6.png", 66, (41, 30))
    other = (pictures / "b" / "6.png").read_bytes()
    (pictures / "b" / "6.png").write_bytes(bytes(data))
    assert seen() == 0 and other != data
    pad = max(len(other), len(data))
    for content in (
        bytes(data).ljust(pad, b"\0"),
        other.ljust(pad, b"\0"),
    ):  # what follows the end of a PNG is not looked at
        (pictures / "b" / "6.png").write_bytes(content)
        os.utime(pictures / "b" / "6.png", ns=(state.st_atime_ns, state.st_mtime_ns))
        assert seen() == 1  # same size, time and inode: only ctime tells
    picture(pictures / "a" / "15.png", 15)  # a new one in the middle
    assert FeatureStore.open(out).names.index("a/2.png") == 2 and seen() == 1
    assert FeatureStore.open(out).names[:4] == ["a/0.png", "a/1.png", "a/15.png", "a/2.png"]
    (pictures / "a" / "0.png").unlink()
    (pictures / "b" / "7.png").unlink()
    assert seen() == 0 and len(FeatureStore.open(out)) == 7
    os.rename(pictures / "b" / "6.png", pictures / "b" / "9.png")  # by its name, a new one
    assert seen() == 1
    assert len(list(out.glob("shard-*"))) == 3


def test_labels_follow_the_listing(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    rows = [(path.relative_to(tmp_path), path.stem) for path in sorted(pictures.glob("*/*.png"))]
    table = tmp_path / "table.csv"

    def write(label: Callable[[str], str]) -> None:
        table.write_text("path,label\n" + "".join(f"{path},{label(stem)}\n" for path, stem in rows))

    write(lambda stem: stem)
    store, seen = counted(table, tmp_path / "store")
    assert seen == 8 and store.labels == list("01234567")
    shards = {name: data for name, data in contents(tmp_path / "store").items() if name.startswith("shard-")}
    write(lambda stem: "odd" if int(stem) % 2 else "")
    store, seen = counted(table, tmp_path / "store")
    assert seen == 0 and store.labels == [None, "odd"] * 4 == FeatureStore.open(tmp_path / "store").labels
    assert contents(tmp_path / "store").items() >= shards.items()


def test_a_moved_folder_is_not_encoded_again(pictures: Path, tmp_path: Path) -> None:
    counted(pictures, tmp_path / "store")
    os.rename(pictures, tmp_path / "moved")
    store, seen = counted(tmp_path / "moved", tmp_path / "store")
    assert seen == 0 and {row["root"] for row in store.rows} == {str(tmp_path / "moved")}


def test_shards_of_another_size_are_cut_without_encoding(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    counted(pictures, tmp_path / "store")
    for shard_images in (4, 1, 8, 100, 3):
        assert counted(pictures, tmp_path / "store", shard_images=shard_images)[1] == 0
        assert finished_like_new(pictures, tmp_path / "store", tmp_path, contents, shard_images=shard_images)


def test_the_default_shard_is_bounded_in_images_and_bytes(pictures: Path) -> None:
    encoder = PatchLocalEncoder(embed_dim=1024)
    assert plan_encoding([pictures], encoder).shard_images == 1024
    encoder.preprocessing = replace(encoder.preprocessing, dense=512)
    plan = plan_encoding([pictures], encoder, keep="patches")
    patches = 128 * round(128 * 4 / 3)
    assert plan.shard_images == 2**28 // (2 * 1024 * patches)
    assert plan.expected_bytes() == 8 * (4 * 1024 + 2 * 1024 * patches)
    for rule in ("crop", "pad", "squash"):  # squares
        plan = plan_encoding([pictures], encoder, keep="patches", resize=rule)
        assert plan.shard_images == 2**28 // (2 * 1024 * 128**2)
        assert plan.expected_bytes() == 8 * (4 * 1024 + 2 * 1024 * 128**2)
    assert plan_encoding([pictures], encoder, keep="global").expected_bytes() == 8 * 4 * 1024


# Parts.


@pytest.mark.parametrize(
    "order",
    [
        [(1, 2), (2, 2)],
        [(2, 2), (1, 2)],
        *itertools.permutations([(1, 3), (2, 3), (3, 3)]),
        [(i, 5) for i in (5, 1, 3, 2, 4)],
    ],
)
def test_parts_in_any_order_make_the_undivided_store(
    pictures: Path, tmp_path: Path, contents: Contents, order: list[tuple[int, int]]
) -> None:
    encoder, out = PatchLocalEncoder(), tmp_path / "store"
    needed = {part for part in order if part[0] <= 3}  # there are three shards
    for number, part in enumerate(order):
        outstanding = needed - set(order[: number + 1])
        store, _ = counted(pictures, out, encoder, shard=part)
        if outstanding:
            with pytest.raises(InputError, match="is unfinished"):
                FeatureStore.open(out)
            images = [
                name
                for i, name in enumerate(sorted(p.stem for p in pictures.glob("*/*")))
                if i // 3 % part[1] == part[0] - 1
            ]
            assert [Path(name).stem for name in store.names] == images
            assert len(store.global_repr()) == len(images)
        else:
            assert len(store) == 8
    assert encoder.images_seen == 8 and finished_like_new(pictures, out, tmp_path, contents)
    assert counted(pictures, out, shard=order[0])[1] == 0


def test_a_part_of_a_changed_folder_does_not_pass_for_the_whole(
    pictures: Path, tmp_path: Path, picture: Picture
) -> None:
    old, _ = counted(pictures, tmp_path / "store")
    vectors = old.global_repr()
    picture(pictures / "a" / "4.png", 44)
    picture(pictures / "b" / "7.png", 77)
    for wanted in (1, 0):  # shards 0 and 2, of which 2 has changed, as has shard 1, which is the other part's
        part, seen = counted(pictures, tmp_path / "store", shard=(1, 2))
        assert seen == wanted and part.names == [*old.names[:3], *old.names[6:]] and len(part.global_repr()) == 5
    store, seen = counted(pictures, tmp_path / "store", shard=(2, 2))
    assert seen == 1 and len(store) == 8 and not np.array_equal(store.global_repr()[4], vectors[4])


def test_until_an_update_is_finished_the_old_store_can_be_read(
    pictures: Path, tmp_path: Path, picture: Picture
) -> None:
    old, _ = counted(pictures, tmp_path / "store")
    vectors = old.global_repr()
    picture(pictures / "a" / "0.png", 100)
    picture(pictures / "b" / "7.png", 77)
    steps = encode_shards(plan_encoding([pictures], PatchLocalEncoder(), shard_images=3), tmp_path / "store")
    next(steps)
    opened = FeatureStore.open(tmp_path / "store")
    assert np.array_equal(opened.global_repr(), vectors) and opened.rows == old.rows
    list(steps)
    assert not np.array_equal(FeatureStore.open(tmp_path / "store").global_repr()[[0, 7]], vectors[[0, 7]])


def test_a_part_waits_for_the_damaged_shard_of_another(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    counted(pictures, tmp_path / "store", shard=(1, 2))
    shard = min(tmp_path.glob("store/shard-*"))
    os.truncate(shard, 100)
    part, _ = counted(pictures, tmp_path / "store", shard=(2, 2))
    assert len(part) == 3 and not (tmp_path / "store" / MANIFEST).exists()
    assert counted(pictures, tmp_path / "store", shard=(1, 2))[1] == 3
    assert finished_like_new(pictures, tmp_path / "store", tmp_path, contents)


def test_shards_stream_and_are_on_disk_when_they_come(pictures: Path, tmp_path: Path) -> None:
    reports: list[tuple[int, int, int]] = []
    plan = plan_encoding([pictures], PatchLocalEncoder(), shard_images=3)
    steps = encode_shards(plan, tmp_path / "store", progress=lambda *numbers: reports.append(numbers))
    for number, (rows, vectors) in enumerate(steps):
        assert len(list(tmp_path.glob("store/shard-*"))) == number + 1
        assert (tmp_path / "store" / rows[0]["shard"]).is_file() and len(rows) == len(vectors) == (3, 3, 2)[number]
        assert reports[-1] == ((3, 6, 8)[number], 8, 0)
    assert reports[0] == (0, 8, 0) and [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)


# Images that cannot be used.


@pytest.fixture
def damaged(pictures: Path) -> dict[str, str]:
    """Some of the pictures spoilt; what is wrong with each."""
    (pictures / "a" / "0.png").write_bytes(b"")
    (pictures / "a" / "1.png").write_bytes(b"<html>not found</html>")
    whole = (pictures / "a" / "2.png").read_bytes()
    (pictures / "a" / "2.png").write_bytes(whole[: len(whole) // 2])
    (pictures / "a" / "3.png").unlink()
    (pictures / "a" / "3.png").symlink_to("nowhere")
    os.mkfifo(pictures / "b" / "8.png")
    return {
        "a/0.png": "empty: ",
        "a/1.png": "not-an-image: ",
        "a/2.png": "",
        "a/3.png": "io-error: ",
        "b/8.png": "io-error: ",
    }


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_damaged_images_are_recorded_and_the_run_goes_on(
    pictures: Path, damaged: dict[str, str], tmp_path: Path, keep: Any
) -> None:
    reports: list[tuple[int, int, int]] = []
    store, seen = counted(pictures, tmp_path / "store", keep=keep, progress=lambda *n: reports.append(n))
    assert seen == len(store) == 4 and store.names == ["a/4.png", "b/5.png", "b/6.png", "b/7.png"]
    assert [row["path"] for row in store.skipped] == list(damaged) and len(store.rows) == 9
    for row in store.skipped:
        assert row["status"] == "skipped" and row["reason"].startswith(damaged[row["path"]])
        assert row["frame"] is None and row["row"] is None and row["label"] in "ab"
    assert store.global_repr().shape == (4, 6) and reports[-1] == (9, 9, 5)
    assert FeatureStore.open(tmp_path / "store") == store
    store.verify()
    if keep == "patches":
        one, _ = counted(pictures / "b" / "6.png", tmp_path / "one", keep=keep)
        assert np.array_equal(store.feature_map(2), one.feature_map(0))


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_a_store_of_nothing_usable_is_a_store(tmp_path: Path, keep: Any) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.png").write_bytes(b"")
    store, seen = counted(tmp_path / "in", tmp_path / "store", keep=keep)
    assert seen == len(store) == 0 and len(store.skipped) == 4 and store.global_repr().shape == (0, 6)
    store.verify()


def test_strict_stops_at_the_first_and_names_it(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    (pictures / "a" / "4.png").write_bytes(b"")
    (pictures / "b" / "5.png").write_bytes(b"no")
    with pytest.raises(ImageError, match=r"^empty: the file has no content \(.*/a/4\.png\)$") as caught:
        counted(pictures, tmp_path / "store", strict=True)
    assert caught.value.reason == "empty" and len(list(tmp_path.glob("store/shard-*"))) == 1
    store, seen = counted(pictures, tmp_path / "store")
    assert seen == 3 and len(store) == 6
    for _ in range(2):  # what an earlier run recorded is no better
        with pytest.raises(ImageError, match=r"a/4.png"):
            counted(pictures, tmp_path / "store", strict=True)
    (pictures / "a" / "4.png").unlink()
    with pytest.raises(ImageError, match=r"b/5.png"):
        counted(pictures, tmp_path / "store", strict=True)
    (pictures / "b" / "5.png").unlink()
    store, seen = counted(pictures, tmp_path / "store", strict=True)
    assert seen == 0 and len(store) == 6 and finished_like_new(pictures, tmp_path / "store", tmp_path, contents)


@pytest.mark.parametrize("keep", ["global", "patches"])
def test_files_that_could_not_be_read_are_tried_again_and_nothing_else(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents, keep: Any
) -> None:
    out, closed = tmp_path / "store", {"a/1.png", "b/7.png"}
    read = fewmatch.encoders.store.encode.read_bytes

    def read_bytes(path: Path) -> bytes:  # permissions do not bind root, whom tests may run as
        if "/".join(path.parts[-2:]) in closed:
            raise ImageError("io-error", "Permission denied")
        return read(path)

    monkeypatch.setattr("fewmatch.encoders.store.encode.read_bytes", read_bytes)
    store, seen = counted(pictures, out, keep=keep)
    assert seen == 6 and [row["reason"] for row in store.skipped] == ["io-error: Permission denied"] * 2
    assert counted(pictures, out, keep=keep)[1] == 0
    closed.remove("b/7.png")
    store, seen = counted(pictures, out, keep=keep)
    assert seen == 1 and [row["path"] for row in store.skipped] == ["a/1.png"]
    closed.clear()
    store, seen = counted(pictures, out, keep=keep)
    assert seen == 1 and len(store) == 8 and finished_like_new(pictures, out, tmp_path, contents, keep=keep)
    store.verify()


def test_a_link_that_becomes_good_is_encoded(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    os.rename(pictures / "a" / "2.png", tmp_path / "away.png")
    (pictures / "a" / "2.png").symlink_to("../../target.png")
    store, seen = counted(pictures, tmp_path / "store")
    assert seen == 7 and store.skipped[0]["reason"] == "io-error: No such file or directory"
    assert (store.skipped[0]["size"], store.skipped[0]["mtime_ns"]) == (-1, -1)
    os.rename(tmp_path / "away.png", tmp_path / "target.png")
    store, seen = counted(pictures, tmp_path / "store")
    assert seen == 1 and len(store) == 8 and finished_like_new(pictures, tmp_path / "store", tmp_path, contents)


def test_a_manifest_older_than_its_shards_is_refused(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = {"0.png"}
    read = fewmatch.encoders.store.encode.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in closed:
            raise ImageError("io-error", "Permission denied")
        return read(path)

    monkeypatch.setattr("fewmatch.encoders.store.encode.read_bytes", read_bytes)
    counted(pictures, tmp_path / "store", keep="patches")
    closed.clear()
    plan = plan_encoding([pictures], PatchLocalEncoder(), keep="patches", shard_images=3)
    steps = encode_shards(plan, tmp_path / "store")
    next(steps)
    opened = FeatureStore.open(tmp_path / "store")  # its manifest has one image fewer than its first shard
    for use in (opened.global_repr, opened.verify, lambda: opened.feature_map(0)):
        with pytest.raises(StoreDamagedError, match=r"holds other images than manifest.jsonl says"):
            use()
    list(steps)
    assert len(FeatureStore.open(tmp_path / "store").global_repr()) == 8


# What encoders may do wrong, and what they need not have.


class Spoilt(PatchLocalEncoder):
    """Calls `spoil` on its features."""

    def __init__(self, spoil: Callable[[Features], Features]) -> None:
        super().__init__()
        self.spoil = spoil

    def __call__(self, images: torch.Tensor) -> Features:
        return self.spoil(super().__call__(images))


def with_one(tensor: torch.Tensor, value: float) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] = value
    return tensor


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("keep", "part"), [("global", "global_repr"), ("patches", "global_repr"), ("patches", "feature_map")]
)
def test_features_that_are_not_finite_are_never_kept(
    pictures: Path, tmp_path: Path, value: float, keep: Any, part: str
) -> None:
    encoder = Spoilt(lambda f: replace(f, **{part: with_one(getattr(f, part), value)}))
    with pytest.raises(FewmatchError, match="patch-local gave features that are not finite: try --dtype float32"):
        counted(pictures, tmp_path / "store", encoder, keep=keep)
    assert os.listdir(tmp_path / "store") == [META]


def test_patches_beyond_float16_are_refused_where_they_are_kept(pictures: Path, tmp_path: Path) -> None:
    encoder = Spoilt(lambda f: replace(f, feature_map=with_one(f.feature_map, 1e5)))
    with pytest.raises(FewmatchError, match="patches beyond float16"):
        counted(pictures, tmp_path / "store", encoder, keep="patches")
    assert len(counted(pictures, tmp_path / "global", encoder)[0]) == 8


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: Features(f.global_repr[:1], None, f.feature_map[:1]),
            r"vectors of shape \(1, 6\), expected \(3, 6\)",
        ),
        (lambda f: Features(f.global_repr[:, 1:], None, f.feature_map[..., 1:]), r"shape \(3, 5\), expected \(3, 6\)"),
        (lambda f: replace(f, feature_map=f.feature_map[:, 1:]), r"a feature map of shape \(3, 3, 5, 6\)"),
        (
            lambda f: replace(f, feature_map=f.feature_map.transpose(1, 2)),
            r"shape \(3, 5, 4, 6\), expected \(3, 4, 5, 6\)",
        ),
    ],
)
def test_features_of_another_shape_are_refused(
    pictures: Path, tmp_path: Path, spoil: Callable[[Features], Features], message: str
) -> None:
    with pytest.raises(FewmatchError, match=message):
        counted(pictures, tmp_path / "store", Spoilt(spoil), keep="patches")


def test_an_encoder_may_reuse_its_output_compute_in_bfloat16_or_track_gradients(pictures: Path, tmp_path: Path) -> None:
    buffers: dict[int, torch.Tensor] = {}

    def reuse(features: Features) -> Features:
        buffer = buffers.setdefault(len(features.global_repr), torch.zeros_like(features.global_repr))
        return replace(features, global_repr=buffer.copy_(features.global_repr))

    weight = torch.ones(6, requires_grad=True)
    plain, _ = counted(pictures, tmp_path / "plain", shard_images=8)
    for name, spoil in {
        "reuse": reuse,
        "gradients": lambda f: replace(f, global_repr=f.global_repr * weight),
    }.items():
        store, _ = counted(pictures, tmp_path / name, Spoilt(spoil), shard_images=2)
        assert np.array_equal(store.global_repr(), plain.global_repr())
    store, _ = counted(pictures, tmp_path / "half", Spoilt(lambda f: replace(f, global_repr=f.global_repr.bfloat16())))
    assert np.array_equal(store.global_repr(), torch.from_numpy(plain.global_repr()).bfloat16().float().numpy())


def test_an_encoder_that_fails_keeps_what_was_done(pictures: Path, tmp_path: Path, contents: Contents) -> None:
    calls = itertools.count(1)

    def fail(features: Features) -> Features:
        if next(calls) == 3:
            raise RuntimeError("the device is lost")
        return features

    with pytest.raises(RuntimeError, match="the device is lost"):
        counted(pictures, tmp_path / "store", Spoilt(fail))
    assert len(list(tmp_path.glob("store/shard-*"))) == 2
    assert counted(pictures, tmp_path / "store")[1] == 2
    assert finished_like_new(pictures, tmp_path / "store", tmp_path, contents)


# Damage is mended, and other things are left alone.


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, picture: Picture) -> tuple[Path, Path]:
    """Eight pictures that no test changes and their store, made once; the tests spoil copies of it."""
    folder = tmp_path_factory.mktemp("kept")
    for i in range(8):
        picture(folder / "pictures" / ("a" if i < 5 else "b") / f"{i}.png", seed=i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWMATCH_HOME", str(folder / "home"))
        counted(folder / "pictures", folder / "store", keep="patches")
    return folder / "pictures", folder / "store"


@pytest.fixture
def originals(kept: tuple[Path, Path]) -> Path:
    """The pictures of `whole`."""
    return kept[0]


@pytest.fixture
def whole(kept: tuple[Path, Path], tmp_path: Path, contents: Contents) -> dict[str, bytes]:
    """A finished store's files."""
    return contents(shutil.copytree(kept[1], tmp_path / "store"))


def flips() -> Iterator[Any]:
    rng = np.random.default_rng(0)
    for place in ("length", "header", "tensors"):
        for _ in range(3):
            yield pytest.param(place, float(rng.random()), 1 << int(rng.integers(8)), id=f"{place}{_}")


@pytest.mark.parametrize(("place", "at", "mask"), list(flips()))
def test_a_flipped_bit_is_mended(
    originals: Path, tmp_path: Path, whole: dict[str, bytes], contents: Contents, place: str, at: float, mask: int
) -> None:
    shard = sorted(tmp_path.glob("store/shard-*"))[1]
    data = bytearray(shard.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    start, stop = {"length": (0, 8), "header": (8, end), "tensors": (end, len(data))}[place]
    data[start + int(at * (stop - start))] ^= mask
    shard.write_bytes(data)
    with pytest.raises(StoreDamagedError):
        FeatureStore.open(tmp_path / "store").verify()
    assert counted(originals, tmp_path / "store", keep="patches")[1] == 3
    assert contents(tmp_path / "store") == whole


Break = Callable[[Path, list[Path]], object]
MENDED: dict[str, tuple[int, Break]] = {
    "shards exchanged": (
        6,
        lambda store, shards: [
            path.write_bytes(data) for path, data in zip(shards, [p.read_bytes() for p in shards[1::-1]], strict=False)
        ],
    ),
    "shard truncated": (3, lambda store, shards: os.truncate(shards[0], shards[0].stat().st_size // 2)),
    "shard emptied": (3, lambda store, shards: os.truncate(shards[0], 0)),
    "shard missing": (3, lambda store, shards: shards[0].unlink()),
    "shard twice": (3, lambda store, shards: shutil.copy(shards[1], shards[0])),
    "shard of another key": (
        3,
        lambda store, shards: Shard.read(shards[0], key_digest(FeatureStore.open(store).key)).write(shards[0], "x"),
    ),
    "shard a folder's link": (3, lambda store, shards: (shards[0].unlink(), shards[0].symlink_to("nowhere"))),
    "shard too many": (
        0,
        lambda store, shards: shutil.copy(shards[0], store / "shard-00009-0123456789abcdef.safetensors"),
    ),
    "manifest garbage": (0, lambda store, shards: (store / MANIFEST).write_bytes(b"\xff garbage")),
    "manifest empty": (0, lambda store, shards: (store / MANIFEST).write_bytes(b"")),
    "manifest short": (0, lambda store, shards: (store / MANIFEST).write_bytes((store / MANIFEST).read_bytes()[:-100])),
    "manifest missing": (0, lambda store, shards: (store / MANIFEST).unlink()),
    "meta missing": (0, lambda store, shards: (store / META).unlink()),
    "meta and manifest missing": (0, lambda store, shards: ((store / META).unlink(), (store / MANIFEST).unlink())),
    "meta missing, shard damaged": (3, lambda store, shards: ((store / META).unlink(), os.truncate(shards[0], 9))),
    "everything but meta missing": (8, lambda store, shards: [p.unlink() for p in (*shards, store / MANIFEST)]),
    "leftovers": (
        0,
        lambda store, shards: [(store / f".{p.name}.0.tmp").write_bytes(b"half") for p in store.iterdir()],
    ),
    "leftovers of more": (0, lambda store, shards: (store / ".shard-00042-0123456789abcdef.safetensors.0.tmp").touch()),
}


@pytest.mark.parametrize("what", MENDED)
def test_a_damaged_store_is_mended_to_the_same_bytes(
    originals: Path, tmp_path: Path, whole: dict[str, bytes], contents: Contents, what: str
) -> None:
    expected, spoil = MENDED[what]
    spoil(tmp_path / "store", sorted(tmp_path.glob("store/shard-*")))
    assert contents(tmp_path / "store") != whole if what != "shard a folder's link" else True
    store, seen = counted(originals, tmp_path / "store", keep="patches")
    store.verify()
    assert seen == expected and contents(tmp_path / "store") == whole


def copies(folder: Path, contents: Contents) -> dict[str, bytes]:
    return contents(folder) if folder.is_dir() else {}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "files",
    [
        {"photo.jpg": b"x"},
        {"photo.jpg": b"x", "meta.json": b'{"title": "holiday"}'},
        {"meta.json": b"[]", "shard-000000.tar": b"x", "shard-000001.tar": b"x"},
        {"shard-00000.tar": b"x"},
        {"shard-00000-of-00002.safetensors": b"x"},
        {"manifest.jsonl": b'{"audio_filepath": "a.wav"}\n'},
        {"manifest.jsonl": b"", "photo.jpg": b"x"},
        {".hidden": b""},
        {".photo.jpg.1.tmp": b"x"},
        {"shard-00000-0123456789abcdef.safetensors": b"x", "photo.jpg": b"x"},
    ],
    ids=lambda files: "+".join(files),
)
def test_a_folder_of_something_else_is_refused_and_left_alone(
    pictures: Path, tmp_path: Path, states: States, files: dict[str, bytes], overwrite: bool
) -> None:
    (tmp_path / "out").mkdir()
    for name, data in files.items():
        (tmp_path / "out" / name).write_bytes(data)
    before = states(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="is not empty and no feature store"):
        counted(pictures, tmp_path / "out", overwrite=overwrite)
    assert states(tmp_path / "out") == before


def test_a_lone_meta_of_something_else_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / META).write_bytes(b'{"title": "holiday"}')
    (tmp_path / "out").mkdir()
    os.rename(tmp_path / META, tmp_path / "out" / META)
    with pytest.raises(OutputExistsError, match=r"meta.json is in it"):
        counted(pictures, tmp_path / "out")
    assert (tmp_path / "out" / META).read_bytes() == b'{"title": "holiday"}'


def test_a_file_in_place_of_the_folder_is_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        with pytest.raises(OutputExistsError, match="cannot be used as a folder"):
            counted(pictures, out, overwrite=True)
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_an_empty_folder_and_one_that_is_not_there_yet_will_do(
    pictures: Path, tmp_path: Path, contents: Contents
) -> None:
    (tmp_path / "empty").mkdir()
    counted(pictures, tmp_path / "empty")
    counted(pictures, tmp_path / "not" / "there" / "yet")
    assert contents(tmp_path / "empty") == contents(tmp_path / "not" / "there" / "yet")


DIFFERENT: dict[str, tuple[Callable[[], PatchLocalEncoder], dict[str, Any], str]] = {
    "digest": (lambda: PatchLocalEncoder(digest="new"), {}, "encoder digest was random projection 6 4 0, now new"),
    "dtype": (lambda: PatchLocalEncoder(dtype=torch.bfloat16), {}, "encoder dtype was float32, now bfloat16"),
    "width": (
        lambda: PatchLocalEncoder(embed_dim=5, digest="random projection 6 4 0"),
        {},
        "encoder embed_dim was 6, now 5",
    ),
    "size": (PatchLocalEncoder, {"size": 32}, "preprocessing dense was 16, now 32"),
    "keep": (PatchLocalEncoder, {"keep": "global"}, "keep was patches, now global"),
}


@pytest.mark.parametrize("what", DIFFERENT)
@pytest.mark.parametrize("meta", ["there", "missing"])
def test_a_store_made_differently_is_refused_and_overwritten_only_on_demand(
    originals: Path, tmp_path: Path, whole: dict[str, bytes], contents: Contents, what: str, meta: str
) -> None:
    make, options, message = DIFFERENT[what]
    out = tmp_path / "store"
    if meta == "missing":
        (out / META).unlink()
        message = "holds features made differently"
    before = contents(out)
    options = {"keep": "patches", **options}
    with pytest.raises(OutputExistsError, match=f"{message}.*choose another folder, or --overwrite"):
        counted(originals, out, make(), **options)
    assert contents(out) == before
    if meta == "there":
        (out / "notes.txt").write_bytes(b"mine")
    (out / f".{MANIFEST}.0.tmp").write_bytes(b"half")
    store, seen = counted(originals, out, make(), overwrite=True, **options)
    assert seen == 8
    store.verify()
    if meta == "there":
        assert (out / "notes.txt").read_bytes() == b"mine"
        (out / "notes.txt").unlink()
    counted(originals, tmp_path / "new", make(), **options)
    assert contents(out) == contents(tmp_path / "new")


def test_overwriting_with_the_same_encodes_nothing(
    originals: Path, tmp_path: Path, whole: dict[str, bytes], states: States
) -> None:
    before = states(tmp_path / "store")
    assert counted(originals, tmp_path / "store", keep="patches", overwrite=True)[1] == 0
    assert states(tmp_path / "store") == before


@pytest.mark.parametrize("text", [b"garbage", b'{"schema": 3, "key": {"new": "things"}}'])
def test_a_meta_that_cannot_be_read_is_overwritten_only_on_demand(
    originals: Path, tmp_path: Path, whole: dict[str, bytes], contents: Contents, text: bytes
) -> None:
    (tmp_path / "store" / META).write_bytes(text)
    with pytest.raises(StoreDamagedError, match="use another folder, or --overwrite"):
        counted(originals, tmp_path / "store", keep="patches")
    assert contents(tmp_path / "store") == whole | {META: text}
    counted(originals, tmp_path / "store", keep="patches", overwrite=True)
    assert contents(tmp_path / "store") == whole


def test_files_of_others_stay_in_a_store(pictures: Path, tmp_path: Path, picture: Picture) -> None:
    counted(pictures, tmp_path / "store")
    others = ["notes.txt", "shard-000000.tar", "shard-x.safetensors", ".photo.jpg.1.tmp"]
    for name in others:
        (tmp_path / "store" / name).write_bytes(b"mine")
    picture(pictures / "a" / "0.png", 100)
    counted(pictures, tmp_path / "store")
    counted(pictures, tmp_path / "store", PatchLocalEncoder(digest="new"), overwrite=True)
    assert sorted(name for name in os.listdir(tmp_path / "store") if not is_store_file(name)) == sorted(others)


def test_a_finished_store_on_a_read_only_disk_can_be_used_and_not_changed(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    first, _ = counted(pictures, tmp_path / "store")
    opened = Path.open

    def read_only(path: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        if mode != "r" and mode != "rb":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", read_only)
    store, seen = counted(pictures, tmp_path / "store")
    assert seen == 0 and store == first
    picture(pictures / "a" / "0.png", 100)
    for out in (tmp_path / "store", tmp_path / "new"):
        with pytest.raises(FewmatchError, match=r"cannot be written .Read-only file system.: what is done is kept"):
            counted(pictures, out)
    assert FeatureStore.open(tmp_path / "store") == first


# ----------------------------------------------------------------------------------------------------------------------
# Memory that does not suffice


class SmallMemory(PatchLocalEncoder):
    """Takes only so many images at a time, and counts how often it was asked for more."""

    def __init__(self, most: int, error: type[Exception], message: str) -> None:
        super().__init__()
        self.most, self.error, self.message, self.refused = most, error, message, 0

    def __call__(self, images: torch.Tensor) -> Features:
        if len(images) > self.most:
            self.refused += 1
            raise self.error(self.message)
        return super().__call__(images)


OUT_OF_MEMORY = [
    (torch.cuda.OutOfMemoryError, "CUDA out of memory. Tried to allocate 2.00 GiB"),
    (
        RuntimeError,
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    ),
]


@pytest.mark.parametrize(("error", "message"), OUT_OF_MEMORY, ids=["accelerator", "CPU"])
@pytest.mark.parametrize("keep", ["global", "patches"])
def test_batches_are_halved_until_they_fit(
    pictures: Path, error: type[Exception], message: str, keep: Literal["global", "patches"]
) -> None:
    small = SmallMemory(1, error, message)
    halved = encode_images([pictures], small, keep=keep)
    assert small.refused > 0 and len(halved) == 8 and not halved.skipped
    whole = encode_images([pictures], PatchLocalEncoder(), keep=keep, out=pictures.parent / "whole")
    assert np.array_equal(halved.global_repr(), whole.global_repr())
    if keep == "patches":
        assert all(np.array_equal(halved.feature_map(i), whole.feature_map(i)) for i in range(8))


def test_an_image_that_does_not_fit_alone_is_a_clear_error(pictures: Path) -> None:
    with pytest.raises(FewmatchError, match="not enough memory to encode one image at 16×16 px: use a smaller --size"):
        encode_images([pictures], SmallMemory(0, *OUT_OF_MEMORY[0]))


def test_other_errors_are_not_taken_for_it(pictures: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        encode_images([pictures], SmallMemory(0, RuntimeError, "mat1 and mat2 shapes cannot be multiplied"))


def cuda_encoder(embed_dim: int = 1024, dtype: torch.dtype = torch.bfloat16) -> PatchLocalEncoder:
    return PatchLocalEncoder(embed_dim=embed_dim, device=torch.device("cuda"), dtype=dtype)


def test_batches_on_cuda_follow_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free = reserved = allocated = 0
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**12))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    per_patch = 32 * 1024 * 2
    free = 2 * 20_000 * per_patch
    assert batch_patches(cuda_encoder()) == 20_000
    assert batch_patches(cuda_encoder(embed_dim=2048)) == batch_patches(cuda_encoder(dtype=torch.float32)) == 10_000
    # What torch keeps and does not use is free as well.
    free, reserved, allocated = free // 2, free, free // 2
    assert batch_patches(cuda_encoder()) == 20_000
    free, reserved, allocated = 10**12, 0, 0
    assert batch_patches(cuda_encoder()) == 65_536
    free = 0
    assert batch_patches(cuda_encoder()) == 1024


def test_batches_elsewhere_depend_on_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(device: Any) -> Any:
        raise AssertionError("no CUDA device was meant")

    monkeypatch.setattr(torch.cuda, "mem_get_info", asked)
    for optional in ({}, {"device": torch.device("cpu")}, {"device": "cpu", "dtype": torch.bfloat16}):
        assert batch_patches(PatchLocalEncoder(embed_dim=2048, **optional)) == 8192


def test_the_batch_that_an_encoder_gets_is_that_of_its_device(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    class Watched(PatchLocalEncoder):
        def __call__(self, images: torch.Tensor) -> Features:
            sizes.append(len(images))
            return super().__call__(images)

    for most, expected in ((16, [1] * 8), (33, [3, 3, 2]), (10**9, [8])):  # an image has 16 patches
        monkeypatch.setattr("fewmatch.encoders.store.encode.batch_patches", lambda encoder, most=most: most)
        encode_images([pictures], Watched(), out=tmp_path / str(most))
        assert sizes == expected
        sizes.clear()
