"""Taps and strides: what is asked for is what the network gives, from the command line's words to the store and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fewmatch.encoders import Encoder, TappedEncoder, encode_images, load, tapped
from fewmatch.encoders.frame import dense_frame, padded_frame, with_stride
from fewmatch.encoders.layers import Tap, choose_tap, read_tap
from fewmatch.encoders.loading import FrozenEncoder
from fewmatch.encoders.store.plan import plan_encoding
from fewmatch.errors import InputError

IMAGES = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mini() -> FrozenEncoder:
    return load("mini", device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("layer", "options", "wanted"),
    [
        ("last", {}, Tap()),
        ("last", {"raw": True}, Tap((7,), norm=False)),
        ("last", {"facet": "key"}, Tap((7,), facet="key")),
        ("last1", {}, Tap((7,))),
        ("last4", {}, Tap((4, 5, 6, 7))),
        ("3", {}, Tap((3,))),
        ("-1", {}, Tap((7,))),
        ("-8", {"raw": True}, Tap((0,), norm=False)),
        ("1,5,-2", {}, Tap((1, 5, 6))),
        ("1+5", {"facet": "value"}, Tap((1, 5), facet="value")),
    ],
)
def test_words_to_taps_and_back(layer: str, options: dict[str, bool | str], wanted: Tap) -> None:
    tap = choose_tap(layer, 8, **options)  # type: ignore[arg-type]
    assert tap == wanted and read_tap(tap.words) == tap
    if tap.layers is not None:  # the words of a store can be said again
        again = choose_tap("+".join(map(str, tap.layers)), 8, raw=not tap.norm, facet=tap.facet)
        assert again == tap


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("8", {}, "no layer 8: the encoder has blocks 0 to 7"),
        ("-9", {}, "no layer -9"),
        ("last9", {}, "no layer last9: the encoder has 8 blocks"),
        ("last0", {}, "no layer last0"),
        ("first", {}, "expected last, last4, a block such as 8 or -4"),
        ("3,", {}, "no layer 3,"),
        ("", {}, "no layer"),
        ("3", {"facet": "keys"}, "no facet called keys: expected one of token, key, query, value"),
        ("3", {"facet": "key", "raw": True}, "leave out --raw"),
    ],
)
def test_what_is_not_there_is_refused(layer: str, options: dict[str, bool | str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_tap(layer, 8, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", ["", "first", "8,9", "8, raw, key, raw", "8, keys", "last4"])
def test_words_of_no_tap_are_refused(words: str) -> None:
    with pytest.raises(InputError, match="no layer called"):
        read_tap(words)


def test_the_last_output_needs_no_tap(mini: FrozenEncoder) -> None:
    assert tapped(mini) is mini
    last = tapped(mini, "last1")
    assert torch.equal(last(IMAGES).feature_map, mini(IMAGES).feature_map)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("facet", ["token", "key", "query", "value"])
def test_a_tap_is_what_the_network_gives(mini: FrozenEncoder, raw: bool, facet: str) -> None:
    if raw and facet != "token":
        return
    encoder = tapped(mini, "2,6", raw=raw, facet=facet)
    assert isinstance(encoder, TappedEncoder) and isinstance(encoder, Encoder)
    parts = mini(IMAGES, layers=[2, 6], norm=not raw, facet=facet)
    got = encoder(IMAGES)
    assert torch.equal(got.global_repr, torch.cat([part.global_repr for part in parts], dim=1))
    assert torch.equal(got.feature_map, torch.cat([part.feature_map for part in parts], dim=3))
    assert got.registers is not None and got.registers.shape == (2, 4, 512)
    assert encoder.embed_dim == 512 and encoder.name == "mini" and encoder.digest == mini.digest


def test_taps_are_other_stores(mini: FrozenEncoder, tmp_path: Path, pictures: Path) -> None:
    keys = set()
    for layer, raw, facet in (
        ("last", False, "token"),
        ("5", False, "token"),
        ("5", True, "token"),
        ("5", False, "key"),
    ):
        encoder = tapped(mini, layer, raw=raw, facet=facet)
        store = encode_images([pictures], encoder, size=32, keep="patches")
        keys.add((store.path, store.key["layer"]))
        wanted = choose_tap(layer, 8, raw=raw, facet=facet).words
        assert store.key["layer"] == wanted and store.feature_map(0).shape == (*store.frame(0).grid, 256)
        assert np.isfinite(store.global_repr()).all()
    assert len(keys) == 4
    out = tmp_path / "store"
    encode_images([pictures], mini, size=32, out=out)
    with pytest.raises(Exception, match="layer was last, now 5"):
        encode_images([pictures], tapped(mini, "5"), size=32, out=out)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize(("width", "height"), [(40, 30), (33, 65), (16, 16)])
def test_frames_with_a_stride(width: int, height: int, stride: int) -> None:
    frame = dense_frame(width, height, size=16, patch=8)
    dense = with_stride(frame, stride)
    rows, columns = frame.input_size[0], frame.input_size[1]
    assert dense.grid == ((rows - 8) // stride + 1, (columns - 8) // stride + 1)
    assert dense.stride == stride and (dense.scale, dense.offset) == (frame.scale, frame.offset)
    # Every patch that begins where one did before has the same centre.
    for row in range(frame.grid[0]):
        if row * 8 % stride == 0 and row * 8 // stride < dense.grid[0]:
            assert dense.to_pixels(row * 8 // stride, 0)[1] == pytest.approx(frame.to_pixels(row, 0)[1])
    assert with_stride(frame, 8) is frame
    padded = with_stride(padded_frame(width, height, size=32, patch=8), stride)
    assert padded.real.any()


@pytest.mark.parametrize(("stride", "resize"), [(3, "keep"), (4, "keep"), (5, "crop"), (3, "pad"), (4, "squash")])
def test_a_stride_goes_all_the_way_to_the_store(
    mini: FrozenEncoder, picture: Callable[..., Path], tmp_path: Path, stride: int, resize: str
) -> None:
    path = picture(tmp_path / "a.png", seed=1, size=(50, 37))
    encoder = load("mini", device="cpu", dtype="float32", stride=stride)
    store = encode_images([path], encoder, keep="patches", size=32, resize=resize)
    frame = store.frame(0)
    assert (
        frame.stride == stride and store.key["encoder"]["name"] == "mini" and store.key["encoder"]["stride"] == stride
    )
    assert store.feature_map(0).shape == (*frame.grid, 256)
    plain = encode_images([path], mini, keep="patches", size=32, resize=resize)
    assert plain.path != store.path
    assert frame.grid[0] > plain.frame(0).grid[0] and frame.grid[1] > plain.frame(0).grid[1]
    assert (
        plan_encoding([path], encoder, keep="patches", size=32).expected_bytes()
        > plan_encoding([path], mini, keep="patches", size=32).expected_bytes()
    )
    vectors = encode_images([path], encoder, size=32)
    assert vectors.frame(0).stride == stride and len(vectors.global_repr()) == 1


def test_strides_that_cannot_be_are_refused() -> None:
    for stride in (0, 9, -1):
        with pytest.raises(InputError, match="expected a stride from 1 to the patch size 8"):
            load("mini", stride=stride)
