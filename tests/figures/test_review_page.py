"""What the page for reviewing keypoints holds: order, numbers, pictures, its size, and nothing that could be taken for markup."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fewmatch.errors import InputError
from fewmatch.figures.keypoints import confidence_text, review_order
from fewmatch.figures.page import review
from fewmatch.figures.page.review import review_page
from fewmatch.labels.keypoints import Keypoints
from fewmatch.matching.keypoints.suggest import image_confidence

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import CLEAN, HOSTILE


def embedded(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def drawn(count: int, parts: int = 3, seed: int = 0, size: tuple[int, int] = (40, 31)) -> tuple[Any, Keypoints]:
    rng = np.random.default_rng(seed)
    pictures = [rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for _ in range(count)]
    xy = rng.uniform(0, 1, (count, parts, 2)) * (np.array(size) - 1)
    visible = rng.random((count, parts)) < 0.6
    xy[~visible & (rng.random((count, parts)) < 0.5)] = np.nan
    score = np.where(np.isfinite(xy[..., 0]), rng.uniform(-1, 1, (count, parts)), np.nan)
    names = tuple(f"img{i}.png" for i in range(count))
    return pictures, Keypoints(names, tuple(f"p{p}" for p in range(parts)), xy, visible, score, ((0, 1), (1, 2)))


def check_numbers(page: str, keypoints: Keypoints, order: list[int]) -> None:
    data = embedded(page)
    assert [image["name"] for image in data["images"]] == [keypoints.paths[n] for n in order]
    assert [image["index"] for image in data["images"]] == order
    for image, n in zip(data["images"], order, strict=True):
        for (x, y, visible, score), place, seen, sure in zip(
            image["points"], keypoints.xy[n], keypoints.visible[n], keypoints.score[n], strict=True
        ):
            expected = [None if np.isnan(v) else v for v in (*place, sure)]  # the same float64, not one near it
            assert [x, y, score] == expected and visible is bool(seen)


def test_images_come_least_sure_first_with_every_number_whole() -> None:
    for seed in range(4):
        pictures, keypoints = drawn(7, seed=seed)
        page = review_page(pictures, keypoints, title="Mice", note="mini")
        check_numbers(page, keypoints, review_order(keypoints))
        data = embedded(page)
        confidence = image_confidence(keypoints)
        assert [image["confidence"] for image in data["images"]] == [
            confidence_text(confidence[n]) for n in review_order(keypoints)
        ]
        for p, part in enumerate(data["parts"]):
            assert part["name"] == f"p{p}" and part["usual"] == np.nanmedian(keypoints.score[:, p])
        assert data["skeleton"] == [[0, 1], [1, 2]]
        assert len({part["colour"] for part in data["parts"]}) == 3


def test_pictures_are_those_of_the_images() -> None:
    _, keypoints = drawn(3, size=(20, 14))
    colours = np.array([[200, 30, 60], [20, 160, 90], [70, 80, 240]], np.uint8)
    pictures = [np.broadcast_to(colour, (14, 20, 3)).copy() for colour in colours]
    data = embedded(review_page(pictures, keypoints, title="t"))
    for image in data["images"]:
        kind, text = image["picture"].split(",", 1)
        assert kind in ("data:image/png;base64", "data:image/webp;base64")
        shown = cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        assert shown.shape == (14, 20, 3) and np.abs(shown - colours[image["index"]].astype(float)).max() < 12
        assert (image["width"], image["height"], image["shown"]) == (20, 14, 20)


def test_the_most_doubtful_are_shown_and_the_others_counted() -> None:
    pictures, keypoints = drawn(6)
    page = review_page(pictures, keypoints, title="t", most=4)
    check_numbers(page, keypoints, review_order(keypoints)[:4])
    assert "4 images in this page" in page and "2 surer ones are not here." in page
    assert "not here" not in review_page(pictures, keypoints, title="t", most=6)
    one = review_page(pictures, keypoints, title="t", most=1)
    assert "1 image in this page" in one and "5 surer ones are not here." in one
    # the medians are those of all images, shown or not
    assert embedded(page)["parts"] == embedded(review_page(pictures, keypoints, title="t"))["parts"]


def test_the_page_says_its_size_and_keeps_it_low() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (90, 120, 3), dtype=np.uint8)
    photo = cv2.resize(coarse, (1500, 1000), interpolation=cv2.INTER_CUBIC)  # as full of detail as photos are at most
    noise = rng.integers(0, 256, (400, 600, 3), dtype=np.uint8)
    pictures, keypoints = [photo, noise] * 5, drawn(10, size=(600, 400))[1]
    page = review_page(pictures, keypoints, title="t")
    data = embedded(page)
    assert f"in this page of {len(page.encode()) / 1e6:.2f} MB," in page
    assert all(len(image["picture"]) <= 400_000 for image in data["images"])
    reduced = {image["index"] % 2: image["width"] / image["shown"] for image in data["images"]}
    assert reduced[0] > 1 and f"up to {np.ceil(10 * max(reduced.values())) / 10:g} times" in page


def test_pictures_that_compress_badly_are_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 420, 3), dtype=np.uint8)
    pictures, keypoints = [noise] * 10, drawn(10, size=(420, 300))[1]
    usual = review_page(pictures, keypoints, title="t")
    monkeypatch.setattr(review, "_BYTES", 600_000)
    small = review_page(pictures, keypoints, title="t")
    totals = [sum(len(image["picture"]) for image in embedded(page)["images"]) for page in (usual, small)]
    assert totals[0] > 1_000_000 and 400_000 < totals[1] <= 600_000
    assert len(small.encode()) - totals[1] < 60_000  # what is no picture


def test_a_hundred_pictures_have_less_than_ten_megabytes() -> None:
    assert max(review._BYTES, 100 * review._LEAST_BYTES) + 500_000 < 10_000_000


def test_no_text_is_markup() -> None:
    count = len(HOSTILE)
    pictures, keypoints = drawn(count, parts=count)
    hostile = Keypoints(tuple(HOSTILE), tuple(HOSTILE), keypoints.xy, keypoints.visible, keypoints.score)
    page = review_page(pictures, hostile, title=HOSTILE[0], note=HOSTILE[7], file_name=HOSTILE[1])
    data = embedded(page)
    assert [part["name"] for part in data["parts"]] == CLEAN
    assert sorted(image["name"] for image in data["images"]) == sorted(CLEAN)
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<img src=x" not in page
    assert page == review_page(pictures, hostile, title=HOSTILE[0], note=HOSTILE[7], file_name=HOSTILE[1])


def test_labels_without_scores_can_be_looked_through() -> None:
    pictures, keypoints = drawn(3)
    labels = Keypoints(keypoints.paths, keypoints.parts, keypoints.xy, keypoints.visible, np.full((3, 3), np.nan))
    page = review_page(pictures, labels, title="t")
    check_numbers(page, labels, [0, 1, 2])
    data = embedded(page)
    assert {image["confidence"] for image in data["images"]} == {"no scores"}
    assert [part["usual"] for part in data["parts"]] == [None] * 3
    assert "Least sure first" not in page and "compared with its part's median" not in page
    scored = review_page(pictures, keypoints, title="t")
    assert "Least sure first" in scored and "compared with its part's median" in scored


def test_what_does_not_fit_is_named() -> None:
    pictures, keypoints = drawn(2)
    with pytest.raises(InputError, match="expected a picture for each of 2 images, got 3"):
        review_page([*pictures, pictures[0]], keypoints, title="t")
    with pytest.raises(InputError, match="nothing to review"):
        review_page([], keypoints.take(np.zeros(0, int)), title="t")
    with pytest.raises(InputError, match="expected at least one image on the page, got 0"):
        review_page(pictures, keypoints, title="t", most=0)
