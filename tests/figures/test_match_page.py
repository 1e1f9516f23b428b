"""The page of matched images: what it holds, how large it is, and that no text escapes."""

from __future__ import annotations

import dataclasses
import io
import re
import sys
from pathlib import Path

import markupsafe
import numpy as np
import pytest
from PIL import Image

from fewmatch.encoders.frame import dense_frame
from fewmatch.errors import InputError
from fewmatch.figures.page import correspondence
from fewmatch.figures.page.correspondence import MatchPageImage, match_page
from fewmatch.matching.geometry.geometry import Geometry

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import CLEAN, HOSTILE
from match_pages import Album, array, embedded, make


@pytest.fixture(scope="module")
def album() -> Album:
    return make(seed=3).match((0, 1), (2, 0))


@pytest.fixture(scope="module")
def data(album: Album) -> dict:  # type: ignore[type-arg]
    return embedded(album.page)


def shown(page: str, name: str) -> str:
    found = re.search(rf'<p class="small" id="{name}">(.*?)</p>', page, re.DOTALL)
    assert found is not None
    return " ".join(found[1].split())


def test_nearest_patches_are_those_of_the_descriptors(album: Album, data: dict) -> None:  # type: ignore[type-arg]
    for a in range(4):
        assert data["nearest"][a][a] is None
        for b in set(range(4)) - {a}:
            index = array(data["nearest"][a][b]["index"], "<u2")
            cosine = array(data["nearest"][a][b]["cosine"], "<i2") * data["cosineStep"]
            expected, used = album.cosines(a, b), album.usable(a)
            assert len(index) == len(used)
            assert (index[used] == expected.argmax(axis=1)[used]).all()
            assert np.allclose(cosine[used], expected.max(axis=1)[used], rtol=0, atol=2e-5)


def test_codes_give_the_cosines_within_the_error_that_is_stated(album: Album, data: dict) -> None:  # type: ignore[type-arg]
    scale = array(data["scale"], "<f4").astype(np.float64)
    codes = [array(image["codes"], "i1").reshape(-1, len(scale)).astype(np.float64) for image in data["images"]]
    off = []
    for a in range(4):
        for b in range(a + 1):
            difference = np.abs((codes[a] * scale) @ codes[b].T - album.units(a) @ album.units(b).T)
            difference = difference[np.ix_(album.usable(a), album.usable(b))]
            off.append(difference[np.tril_indices(len(difference), -1)] if a == b else difference.ravel())
    largest, mean = max(part.max() for part in off), np.concatenate(off).mean()
    about = shown(album.page, "about")
    said = re.search(r"by at most ([\d.]+), by ([\d.]+) on average \(measured over all ([\d,]+) pairs", about)
    assert said is not None
    assert largest <= float(said[1]) <= largest + 0.001 and float(said[2]) == pytest.approx(mean, abs=6e-5)
    assert int(said[3].replace(",", "")) == sum(part.size for part in off)
    assert "24 of 24 dimensions, 8 bits" in about


def test_places_and_what_takes_part(album: Album, data: dict) -> None:  # type: ignore[type-arg]
    for i, image in enumerate(data["images"]):
        frame = album.images[i].frame
        rows, columns = np.indices(frame.grid)
        x, y = frame.to_pixels(rows, columns)
        assert np.allclose(image["origin"][0] + columns * image["step"][0], x, rtol=0, atol=1e-9)
        assert np.allclose(image["origin"][1] + rows * image["step"][1], y, rtol=0, atol=1e-9)
        assert np.allclose(image["reach"], np.divide(frame.patch, frame.scale) / 2)
        used = album.usable(i)
        if image["usable"] is None:
            assert used.all() and i != 2
        else:
            bits = np.unpackbits(array(image["usable"], "u1"), bitorder="little")
            assert (bits[: len(used)] == used).all()
    assert data["images"][1]["box"] == [30, 0, 120, 90], "the central square"
    assert data["images"][2]["box"] == [0, 0, 120, 80], "no padding"


def test_matches_come_as_they_were_given(album: Album, data: dict) -> None:  # type: ignore[type-arg]
    assert [(pair["a"], pair["b"]) for pair in data["pairs"]] == [(0, 1), (2, 0)]
    for pair in data["pairs"]:
        matches = album.pairs[pair["a"], pair["b"]]
        rows = array(pair["rows"], "<f4").reshape(-1, 5)
        expected = np.column_stack([matches.xy_a, matches.xy_b, matches.score])
        assert len(rows) > 3 and np.allclose(rows, expected, rtol=1e-6)
        assert pair["geometry"] is None and pair["inliers"] is None


def test_inliers_are_named_where_there_is_a_model(album: Album) -> None:
    matches = album.pairs[0, 1]
    inliers = np.arange(len(matches)) % 2 == 1
    found = dataclasses.replace(matches, geometry=Geometry("affine", 3.0, np.eye(3), inliers))
    none = dataclasses.replace(matches, geometry=Geometry("affine", 3.0, None, ~inliers & False, "too few"))
    for given, kind, listed in ((found, "affine", np.flatnonzero(inliers).tolist()), (none, None, None)):
        [pair] = embedded(match_page(album.images, {(0, 1): given}, title="t"))["pairs"]
        assert (pair["geometry"], pair["inliers"]) == (kind, listed)


def test_the_page_says_where_matches_are_of_mirrored_images(album: Album) -> None:
    turned = dataclasses.replace(album.pairs[0, 1], mirrored=True)
    pages = [match_page(album.images, {(0, 1): matches}, title="t") for matches in (album.pairs[0, 1], turned)]
    assert ["mirrored" in shown(page, "about") for page in pages] == [False, True]


def test_pictures_are_the_images_or_nothing() -> None:
    smooth = np.zeros((1000, 1500, 3), np.uint8)
    smooth[:, :, 0] = np.linspace(0, 255, 1500)
    frame = dense_frame(1500, 1000, size=20, patch=10)
    features = np.random.default_rng(0).normal(size=(*frame.grid, 5)).astype(np.float32)
    images = [MatchPageImage("a", smooth, features, frame), MatchPageImage("b", None, features, frame)]
    first, second = embedded(match_page(images, title="t"))["images"]
    assert second["picture"] is None and (first["width"], first["height"]) == (1500, 1000)
    kind, text = first["picture"].split(";base64,")
    assert kind == "data:image/webp" or kind == "data:image/png"
    picture = np.asarray(Image.open(io.BytesIO(array(text, "u1").tobytes())).convert("RGB")).astype(int)
    assert picture.shape == (640, 960, 3)
    assert np.abs(picture[:, :, 0].mean(axis=0) - np.linspace(0, 255, 960)).max() < 4


def test_the_page_says_its_own_size(album: Album) -> None:
    page = album.page
    said = re.search(r"page of ([\d.]+) MB", shown(page, "about"))
    assert said is not None and said[1] == f"{len(page.encode()) / 1e6:.2f}"
    assert page == album.page, "the same for the same"


@pytest.mark.slow
def test_eight_images_of_dinov2_at_518_px_are_below_ten_megabytes() -> None:
    rng = np.random.default_rng(5)
    images = []
    for i in range(8):
        picture = rng.integers(0, 256, (600, 800, 3)).astype(np.uint8)  # nothing compresses worse
        frame = dense_frame(800, 600, size=518, patch=14)
        frame = dataclasses.replace(frame, grid=(37, 37), scale=(518 / 800, 518 / 600))
        features = rng.normal(size=(37, 37, 384)).astype(np.float32)
        images.append(MatchPageImage(f"{i}.jpg", picture, features, frame))
    page = match_page(images, title="eight")
    assert len(page.encode()) < 10e6
    assert "128 of 384 dimensions" in shown(page, "about")


def test_many_patches_take_fewer_dimensions(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    patches = sum(len(album.usable(i)) for i in range(4))
    monkeypatch.setattr(correspondence, "_CODE_BYTES", 18 * patches + 1)
    page = album.page
    assert "18 of 24 dimensions" in shown(page, "about")
    assert len(array(embedded(page)["images"][0]["codes"], "i1")) == 18 * 48
    monkeypatch.setattr(correspondence, "_CODE_BYTES", 1)
    assert "16 of 24 dimensions" in shown(album.page, "about")


def test_padding_does_not_bend_the_directions(album: Album) -> None:
    """What takes no part may hold anything."""
    images = list(album.images)
    wild = images[2].feature_map.copy()
    wild.reshape(-1, wild.shape[2])[~album.usable(2)] *= -50
    wild[4, 4] = 0
    images[2] = dataclasses.replace(images[2], feature_map=wild)
    assert Album(images, album.pairs).page == album.page


def test_an_image_of_which_nothing_takes_part_is_there_without_matches(album: Album) -> None:
    images = list(album.images)
    images[1] = dataclasses.replace(images[1], valid=np.zeros(images[1].frame.grid, bool))
    data = embedded(match_page(images, title="t"))
    assert data["nearest"][0][1] is None and data["nearest"][1][0] is not None
    assert data["nearest"][0][2] is not None


def test_hostile_texts_stay_texts() -> None:
    album = make(names=HOSTILE[:4])
    text = " ".join(HOSTILE)
    page = match_page(album.images, title=text, note=text)
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<img src=x" not in page
    assert page.count(str(markupsafe.escape(" ".join(CLEAN)))) == 3, "in the title twice, and in the note"
    assert [image["name"] for image in embedded(page)["images"]] == CLEAN[:4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda album: album.images[:1], "expected two images or more, got 1"),
        (lambda album: [], "expected two images or more, got 0"),
        (
            lambda album: [album.images[0], dataclasses.replace(album.images[1], picture=album.images[0].picture)],
            "expected a picture of 150×90 px for image 1, got one of 160×120",
        ),
        (
            lambda album: [album.images[0], dataclasses.replace(album.images[1], frame=album.images[0].frame)],
            "expected a picture of 160×120",
        ),
        (
            lambda album: [
                album.images[0],
                dataclasses.replace(album.images[1], picture=None, frame=album.images[0].frame),
            ],
            "expected a map of 6 × 8 patches",
        ),
        (
            lambda album: [
                album.images[0],
                dataclasses.replace(album.images[1], feature_map=album.images[1].feature_map[:, :, :3]),
            ],
            "one and the same dimension|one length|shape",
        ),
    ],
)
def test_what_does_not_fit(album: Album, change, message: str, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match=message):
        match_page(change(album), title="t")


@pytest.mark.parametrize(
    "pairs", [{(0, 4): (0, 1)}, {(1, 1): (0, 1)}, {(-1, 1): (0, 1)}, {(0, 1): (0, 1), (1, 0): (0, 1)}]
)
def test_pairs_are_of_two_images_and_come_once(album: Album, pairs: dict) -> None:  # type: ignore[type-arg]
    given = {pair: album.pairs[of] for pair, of in pairs.items()}
    with pytest.raises(InputError, match="expected each pair of two of the 4 images once"):
        match_page(album.images, given, title="t")


def test_matches_are_of_images_of_these_sizes(album: Album) -> None:
    with pytest.raises(
        InputError, match=r"expected matches of images of \(160, 120\) and \(120, 80\) px for the pair \(0, 2\)"
    ):
        match_page(album.images, {(0, 2): album.pairs[0, 1]}, title="t")
