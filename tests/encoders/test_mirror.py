"""Mirrored encoding: the encoder sees the picture with left and right exchanged, and maps and frames come back in its own coordinates."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from patch_local import PatchLocalEncoder
from PIL import Image

from fewmatch.cli.inputs.encoder_choice import EncodingChoice, encoder_json, encoder_words
from fewmatch.cli.inputs.maps import open_maps
from fewmatch.encoders import Features, FeatureStore, Frame, encode_images, load
from fewmatch.encoders.frame import RESIZE_RULES, crop_frame, resample, resized_frame, with_stride
from fewmatch.encoders.store.plan import cache_folder, plan_encoding
from fewmatch.errors import ImageError, InputError, OutputExistsError

PROPERTY = settings(deadline=None, database=None, max_examples=100)


@st.composite
def frames(draw: st.DrawFn, most: int = 400) -> Frame:
    """Every resize rule and the classification crop, with and without overlapping patches."""
    patch, width, height = (
        draw(st.sampled_from([1, 4, 7, 8, 14])),
        draw(st.integers(1, most)),
        draw(st.integers(1, most)),
    )
    size = patch * draw(st.integers(1, 8))
    rule = draw(st.sampled_from([*RESIZE_RULES, "classification"]))
    try:
        if rule == "classification":
            frame = crop_frame(width, height, resize=size + draw(st.integers(0, size)), crop=size, patch=patch)
        else:
            frame = resized_frame(width, height, size=size, patch=patch, rule=rule)
        return with_stride(frame, draw(st.integers(1, patch)))
    except ImageError:
        assume(False)
        raise


@PROPERTY
@given(frames())
def test_reversed_columns_lie_at_mirrored_pixels(frame: Frame) -> None:
    """The definition: patch (r, w − 1 − c) of the mirrored frame lies where (r, c) of the frame does, mirrored: x becomes W − 1 − x."""
    rows, columns = np.indices(frame.grid)
    x, y = frame.to_pixels(rows, columns)
    there, level = frame.mirrored().to_pixels(rows, frame.grid[1] - 1 - columns)
    np.testing.assert_allclose(there, frame.width - 1 - x, rtol=0, atol=1e-9 * frame.width)
    assert np.array_equal(level, y)
    assert dataclasses.replace(frame.mirrored(), offset=frame.offset) == frame


@PROPERTY
@given(frames())
def test_mirroring_twice_gives_the_frame_again(frame: Frame) -> None:
    assert frame.mirrored().mirrored() == frame
    assert all(edge == round(edge) for edge in frame.mirrored().offset)


@PROPERTY
@given(frames())
def test_padding_is_mirrored_too(frame: Frame) -> None:
    x, _ = frame.to_pixels(*np.indices(frame.grid))
    clear = (abs(x + 0.5) > 1e-6) & (abs(x - frame.width + 0.5) > 1e-6)  # not just on the image's edge
    assert np.array_equal(frame.mirrored().real[:, ::-1][clear], frame.real[clear])


def test_what_a_stride_leaves_over_changes_sides() -> None:
    """Patches of 4 px every 3 px fit into 28 px; of 6 px every 5 px into 26 of 30: 4 px at the right, and mirrored at the left."""
    frame = with_stride(Frame(28, 28, (7, 7), 4, 4, (1.0, 1.0)), 3)
    assert frame.grid == (9, 9) and frame.input_size == (28, 28)
    assert frame.mirrored() == frame
    left_over = with_stride(Frame(30, 30, (5, 5), 6, 6, (1.0, 1.0)), 5)
    assert left_over.grid == (5, 5) and left_over.input_size == (26, 26)
    assert left_over.mirrored().offset == (4.0, 0.0)
    # A square of 4 px with 2 px of the image at its left and 4 px at its right: mirrored, 4 px at its left.
    assert Frame(10, 4, (1, 1), 4, 4, (1.0, 1.0), (2.0, 0.0)).mirrored().offset == (4.0, 0.0)


@settings(deadline=None, database=None, max_examples=40)
@given(frames(most=60), st.integers(0, 2**32 - 1))
def test_a_mirrored_frame_shows_the_pixels_of_the_mirrored_picture(frame: Frame, seed: int) -> None:
    """The same pixels but for rounding: resized as it is with the mirrored frame, or mirrored with the frame."""
    image = np.random.default_rng(seed).integers(0, 256, (frame.height, frame.width, 3), np.uint8)
    mirrored = resample(np.ascontiguousarray(image[:, ::-1]), frame)[:, ::-1].astype(int)
    assert abs(resample(image, frame.mirrored()).astype(int) - mirrored).max() <= 2


# ----------------------------------------------------------------------------------------------------------------------
# Encoding


class OverlappingEncoder(PatchLocalEncoder):
    """The test encoder with patches that begin every `stride` pixels."""

    stride: int

    def __call__(self, images: torch.Tensor) -> Features:
        patches = images.unfold(2, self.patch_size, self.stride).unfold(3, self.patch_size, self.stride)
        b, _, h, w = patches.shape[:4]
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(b, h, w, -1).double().numpy()
        self.images_seen += b
        feature_map = torch.from_numpy(np.round(flat @ self._projection * 64) / 64).float()
        return Features(feature_map.mean((1, 2)), None, feature_map)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def save(image: np.ndarray, path: Path, **options: Any) -> Path:
    Image.fromarray(image).save(path, **options)
    return path


def encoder_of(stride: int | None) -> PatchLocalEncoder:
    return PatchLocalEncoder(size=24) if stride is None else OverlappingEncoder(size=24, stride=stride)


@pytest.mark.parametrize(
    ("rule", "stride", "size"),
    [  # every rule with and without a stride, wide and tall; squares, which all rules take alike, once for each rule
        *((rule, None, (53, 31)) for rule in RESIZE_RULES),
        *((rule, 3, (31, 53)) for rule in RESIZE_RULES),
        *((rule, stride, (24, 24)) for rule, stride in zip(RESIZE_RULES, (None, 3) * 2, strict=True)),
    ],
)
def test_it_is_the_encoding_of_the_mirrored_picture_brought_back(
    tmp_path: Path, rule: str, stride: int | None, size: tuple[int, int]
) -> None:
    image = picture(*size)
    save(image, tmp_path / "as-it-is.png")
    save(image[:, ::-1], tmp_path / "mirrored.png")
    how: dict[str, Any] = {"keep": "patches", "resize": rule}
    store = encode_images([tmp_path / "as-it-is.png"], encoder_of(stride), out=tmp_path / "a", mirror=True, **how)
    other = encode_images([tmp_path / "mirrored.png"], encoder_of(stride), out=tmp_path / "b", **how)
    plain = encode_images([tmp_path / "as-it-is.png"], encoder_of(stride), out=tmp_path / "c", **how)
    assert np.array_equal(store.feature_map(0), other.feature_map(0)[:, ::-1])
    assert np.array_equal(store.global_repr(), other.global_repr())
    assert store.frame(0) == other.frame(0).mirrored()
    assert not np.array_equal(store.feature_map(0), plain.feature_map(0))
    # A map that is only the plain one with its columns reversed would look the other way.
    assert not np.array_equal(store.feature_map(0), plain.feature_map(0)[:, ::-1])


@pytest.mark.parametrize(
    ("orientation", "size"),  # sizes that are and that are no multiples of what is decoded at once
    [*((orientation, (333, 217)) for orientation in range(1, 9)), (1, (320, 256)), (6, (320, 256))],
)
def test_exif_comes_before_and_fast_decoding_keeps_its_place(
    tmp_path: Path, orientation: int, size: tuple[int, int]
) -> None:
    """A dark square left of the middle is found where it is, in original pixels, whichever way up the file lies and however it is decoded."""
    width, height = size
    upright = np.full((width, height, 3) if orientation >= 5 else (height, width, 3), 255, np.uint8)
    tall, wide = upright.shape[:2]
    x0, y0 = round(0.25 * wide), round(0.4 * tall)
    upright[y0 : y0 + 60, x0 : x0 + 60] = 0
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.transpose(1, 0, 2), 6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1], 8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    file = save(np.ascontiguousarray(stored), tmp_path / "photo.jpg", quality=95, exif=exif.tobytes())
    centres = {}
    for fast in (False, True):
        for mirror in (False, True):
            encoder = PatchLocalEncoder(embed_dim=1, patch_size=4, size=48)
            encoder._projection = np.full((48, 1), 1 / 48)  # the brightness of a patch
            how: dict[str, Any] = {"keep": "patches", "mirror": mirror, "fast_decode": fast}
            assert plan_encoding([file], encoder, **how).reduction(wide, tall) == (2 if fast else 1)
            store = encode_images([file], encoder, out=tmp_path / f"{fast}-{mirror}", **how)
            assert (store.frame(0).width, store.frame(0).height) == (wide, tall)
            value = store.feature_map(0)[..., 0]
            dark = value.max() - value
            x, y = store.frame(0).to_pixels(*np.indices(value.shape))
            centres[fast, mirror] = (dark * x).sum() / dark.sum(), (dark * y).sum() / dark.sum()
    for fast, mirror in centres:
        np.testing.assert_allclose(centres[fast, mirror], (x0 + 29.5, y0 + 29.5), atol=0.7)
        np.testing.assert_allclose(centres[fast, mirror], centres[fast, False], atol=0.1)


def test_what_reduced_pixels_reach_beyond_the_picture_changes_sides(tmp_path: Path) -> None:
    """With fast decoding the features are those of the mirrored decoded pixels, placed where they belong."""
    from fewmatch.encoders.images import decode_reduced
    from fewmatch.encoders.store.encode import _mirrored

    file = save(picture(101, 67), tmp_path / "photo.jpg", quality=90)
    data = file.read_bytes()
    decoded = decode_reduced(data, lambda *_: 8)
    assert decoded.rgb.shape == (9, 13, 3) and decoded.overhang == (0, 0)
    mirrored = _mirrored(decoded)
    assert mirrored.overhang == (13 * 8 - 101, 0) and _mirrored(mirrored).overhang == (0, 0)
    assert np.array_equal(mirrored.rgb, decoded.rgb[:, ::-1])
    frame = resized_frame(101, 67, size=8, patch=4, rule="keep")
    there = resample(mirrored.rgb, frame, reduction=8, overhang=mirrored.overhang)[:, ::-1].astype(int)
    here = resample(decoded.rgb, frame.mirrored(), reduction=8).astype(int)
    assert abs(there - here).max() <= 2


def test_stores_remember_it_and_old_ones_keep_their_keys(pictures: Path) -> None:
    encoder = PatchLocalEncoder()
    plain = plan_encoding([pictures], encoder, keep="patches")
    mirrored = plan_encoding([pictures], encoder, keep="patches", mirror=True)
    assert "mirror" not in plain.key["preprocessing"]
    assert mirrored.key["preprocessing"] == plain.key["preprocessing"] | {"mirror": True}
    assert cache_folder(plain) != cache_folder(mirrored)


def test_the_cache_finds_each_again(pictures: Path) -> None:
    encoder = PatchLocalEncoder()
    first = encode_images([pictures], encoder, keep="patches", mirror=True)
    encode_images([pictures], encoder, keep="patches")
    assert encoder.images_seen == 16
    again = encode_images([pictures], encoder, keep="patches", mirror=True)
    assert encoder.images_seen == 16 and again.path == first.path
    assert np.array_equal(again.feature_map(3), first.feature_map(3))


def test_a_resumed_run_equals_an_undisturbed_one(
    pictures: Path, tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    how: dict[str, Any] = {"keep": "patches", "mirror": True, "shard_images": 3}
    encode_images([pictures], PatchLocalEncoder(), out=tmp_path / "once", **how)
    encode_images([pictures], PatchLocalEncoder(), out=tmp_path / "cut", shard=(1, 2), **how)
    encoder = PatchLocalEncoder()
    encode_images([pictures], encoder, out=tmp_path / "cut", **how)
    assert 0 < encoder.images_seen < 8
    # Features of a run that cut the list differently are taken over, columns as they are.
    encode_images([pictures / "a"], PatchLocalEncoder(), out=tmp_path / "more", keep="patches", mirror=True)
    assert contents(tmp_path / "cut") == contents(tmp_path / "once")


@pytest.mark.parametrize("first", [False, True])
def test_a_store_of_the_other_kind_is_refused(pictures: Path, tmp_path: Path, first: bool) -> None:
    encode_images([pictures], PatchLocalEncoder(), out=tmp_path / "store", keep="patches", mirror=first)
    was, now = (True, None) if first else (None, True)
    with pytest.raises(OutputExistsError, match=rf"preprocessing mirror was {was}, now {now}\)"):
        encode_images([pictures], PatchLocalEncoder(), out=tmp_path / "store", keep="patches", mirror=not first)


def test_it_is_for_feature_maps(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"mirrored images are for feature maps \(keep patches\)"):
        encode_images([pictures], PatchLocalEncoder(), mirror=True)


def test_images_that_cannot_be_used_are_still_skipped(pictures: Path) -> None:
    (pictures / "a" / "0.png").write_bytes(b"no image")
    store = encode_images([pictures], PatchLocalEncoder(), keep="patches", mirror=True)
    assert [row["path"] for row in store.skipped] == ["a/0.png"] and len(store) == 7


# ----------------------------------------------------------------------------------------------------------------------
# Maps of images on the command line


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(5)
    out = []
    for i, (width, height) in enumerate(((90, 64), (64, 80), (72, 72))):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height))
        coarse.save(tmp_path / f"{i}.png")
        out.append(tmp_path / f"{i}.png")
    return out


CHOICE = EncodingChoice("mini", "cpu", "float32", size=32, resize="crop", stride=4)


@pytest.mark.parametrize("from_a_store", [False, True])
def test_maps_of_some_images_mirrored(photos: list[Path], tmp_path: Path, from_a_store: bool) -> None:
    """As `encode_images` gives them with the same options: those of the store, where the maps come from one."""
    encoder = load("mini", device="cpu", dtype="float32", stride=4)
    how: dict[str, Any] = {"keep": "patches", "size": 32, "resize": "crop"}
    wanted = encode_images(photos, encoder, out=tmp_path / "wanted", mirror=True, **how)
    paths, choice = photos, CHOICE
    if from_a_store:
        encode_images(photos, encoder, out=tmp_path / "store", **how)
        paths, choice = [tmp_path / "store"], EncodingChoice(device="cpu")
    with open_maps(paths, choice) as maps:
        before = [maps.map(i) for i in range(3)]
        with maps.mirrored([2, 0, 2]) as found:
            assert len(found) == 3 and found.skipped == []
            for place, i in enumerate([2, 0, 2]):
                assert np.array_equal(found.map(place), wanted.feature_map(i))
                assert found.frame(place) == wanted.frame(i)
                assert found.rows[place]["path"] == maps.rows[i]["path"]
                drawn, original = found.picture(place), maps.picture(i)
                assert drawn is not None and original is not None and np.array_equal(drawn, original)
            turned, plain = encoder_json(found.key), encoder_json(maps.key)
            assert turned.pop("identity") != plain.pop("identity") and turned == plain | {"mirror": True}
            assert encoder_words(found.key).replace(", mirrored", "") == encoder_words(maps.key)
            # And back: the mirror image of the mirror image is the image.
            with found.mirrored([1]) as back:
                assert np.array_equal(back.map(0), before[0]) and back.frame(0) == maps.frame(0)
        assert np.array_equal(maps.vectors()[1], maps._store.global_repr()[1])


def test_vectors_come_in_the_order_of_the_maps(photos: list[Path]) -> None:
    with open_maps([photos[1], photos[0], photos[1]], CHOICE) as maps:
        with open_maps([photos[0]], CHOICE) as alone:
            np.testing.assert_allclose(maps.vectors()[1], alone.vectors()[0], atol=1e-5)
        assert np.array_equal(maps.vectors()[0], maps.vectors()[2])
        assert not np.allclose(maps.vectors()[0], maps.vectors()[1], atol=1e-3)


def test_without_the_cache_nothing_is_left(photos: list[Path], tmp_path: Path) -> None:
    from fewmatch.encoders.paths import feature_cache

    before = set(feature_cache().glob("*")) if feature_cache().is_dir() else set()
    with open_maps(photos, dataclasses.replace(CHOICE, cache=False)) as maps, maps.mirrored([0]) as found:
        assert found.map(0).shape == maps.map(0).shape
    assert (set(feature_cache().glob("*")) if feature_cache().is_dir() else set()) == before


def test_images_that_changed_or_went_are_refused(photos: list[Path], tmp_path: Path) -> None:
    store = encode_images(
        photos, load("mini", device="cpu", dtype="float32"), out=tmp_path / "store", keep="patches", size=32
    )
    assert isinstance(store, FeatureStore)
    save(picture(90, 64), photos[0])
    photos[1].unlink()
    with open_maps([tmp_path / "store"], EncodingChoice(device="cpu")) as maps:
        with pytest.raises(InputError, match=r"0\.png changed since it was encoded"), maps.mirrored([0]):
            pass
        with pytest.raises(InputError, match=r"1\.png cannot be encoded mirrored: "), maps.mirrored([1]):
            pass
        with maps.mirrored([2]) as found:
            assert len(found) == 1


def test_another_encoder_than_the_store_s_is_refused(photos: list[Path], tmp_path: Path) -> None:
    """A store may come from an encoder that has the name of one that is at hand, and other weights."""
    encode_images(photos, load("mini", device="cpu", dtype="float32"), out=tmp_path / "store", keep="patches", size=32)
    with open_maps([tmp_path / "store"], EncodingChoice(device="cpu")) as maps:
        key = json.loads(json.dumps(maps.key))
        key["encoder"]["digest"] = "0" * 64
        other = dataclasses.replace(maps, key=key)
        with (
            pytest.raises(
                InputError, match="cannot be encoded mirrored as they were encoded before: encoder digest was 000"
            ),
            other.mirrored([0]),
        ):
            pass


def test_pixels_are_those_of_the_mirrored_file(tmp_path: Path) -> None:
    """Not of a file that was mirrored and compressed again."""
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 48)).save(buffer, "JPEG", quality=60)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    save(np.asarray(Image.open(buffer))[:, ::-1], tmp_path / "b.png")
    a = encode_images([tmp_path / "a.jpg"], PatchLocalEncoder(), keep="patches", mirror=True)
    b = encode_images([tmp_path / "b.png"], PatchLocalEncoder(), keep="patches")
    np.testing.assert_allclose(a.feature_map(0), b.feature_map(0)[:, ::-1], atol=0.5)
