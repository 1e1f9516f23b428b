"""The page of an episode: what it holds, and that no text escapes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image

from fewmatch.fewshot import EpisodePlane
from fewmatch.fewshot.centering import ZeroVectorError
from fewmatch.fewshot.plane import episode_planes
from fewmatch.figures.notable import explain
from fewmatch.figures.page.document import html_document, script_json
from fewmatch.figures.page.plane import EpisodeImage, plane_page
from fewmatch.figures.page.thumbnails import thumbnail, thumbnail_side
from fewmatch.figures.style.palette import class_colours

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import CLEAN, HOSTILE, digits, embedded, hostile, make


class Parsed(HTMLParser):
    """The tags of a page with their attributes, and the text in each element of a kind."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.inside: list[tuple[str, str]] = []
        self._now = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._now = tag

    def handle_endtag(self, tag: str) -> None:
        self._now = ""

    def handle_data(self, data: str) -> None:
        self.inside.append((self._now, data))

    def text(self, tag: str) -> list[str]:
        return [data for name, data in self.inside if name == tag]


# --- what the page holds


@pytest.mark.parametrize("ways", [2, 3, 7])
def test_every_setting_is_the_episode_with_its_first_supports(ways: int) -> None:
    made = make(seed=ways, ways=ways)
    data = embedded(made.page)
    assert data["shots"] == [1, 2, 3, 5] and data["start"] == {"shots": 5, "center": "support"}
    assert data["centers"] == ["none", "support", "support+query", "separate", "feature"]
    assert [(s["center"], s["shots"]) for s in data["settings"]] == [
        (center, k) for center in data["centers"] for k in data["shots"]
    ]
    for setting in data["settings"]:
        k = setting["shots"]
        plane = made.plane(k, setting["center"])
        assert f"{setting['score']}. {setting['words']}" == explain(plane)
        assert setting["right"] == plane.right.sum(axis=1).tolist()
        assert setting["transductive"] == (setting["center"] in ("support+query", "separate"))
        assert np.allclose(setting["means"], plane.means, rtol=0, atol=1e-4)
        for i, image in enumerate(data["images"]):
            way, number = image["way"], image["number"]
            at = (way, number)
            if image["role"] == "support":
                assert image["name"] == made.supports[way][number].name and setting["predicted"][i] is None
                if number >= k:
                    assert setting["places"][i] is setting["distances"][i] is setting["probabilities"][i] is None
                    continue
                place, near, chances = plane.support[at], plane.support_distances[at], plane.support_probabilities[at]
            else:
                assert image["name"] == made.queries[way][number].name
                assert setting["predicted"][i] == plane.predicted[at]
                place, near, chances = plane.query[at], plane.distances[at], plane.probabilities[at]
            assert np.allclose(setting["places"][i], place, rtol=0, atol=1e-4)
            assert digits(setting["distances"][i]) == digits(near)
            assert digits(setting["probabilities"][i]) == digits(chances)


def test_regions_reach_beyond_what_any_plot_shows() -> None:
    rng = np.random.default_rng(5)
    for ways in (2, 3, 6):
        made = make(seed=ways, ways=ways, pictures=False)
        for setting in embedded(made.page)["settings"]:
            means = np.array(setting["means"])
            points = np.array([*setting["means"], *(place for place in setting["places"] if place)])
            middle, extent = (points.min(axis=0) + points.max(axis=0)) / 2, np.ptp(points, axis=0)
            # As the script fits it: margins of 30 pixels at least, on plots of up to twice the width or the height.
            for size in np.array([(280.0, 280.0), (560.0, 280.0), (280.0, 560.0)]):
                half = size / 2 / ((size - 60) / extent).min()
                seen = middle + rng.uniform(-1, 1, (200, 2)) * half
                squared = ((seen[:, None] - means) ** 2).sum(axis=2)
                clear = np.diff(np.sort(squared, axis=1)[:, :2]).ravel() > 1e-3
                for way, corners in enumerate(setting["regions"]):
                    inside = Outline(corners).contains_points(seen) if corners else np.zeros(len(seen), bool)
                    assert np.array_equal(inside[clear], (squared.argmin(axis=1) == way)[clear])


def test_a_setting_that_is_not_possible_says_why() -> None:
    made = make(ways=2, shots=3)
    made.x[made.drawn.support[0, 1, 0]] = made.x[made.drawn.support[0, 0, 0]]  # the same image twice
    planes = episode_planes(made.x, made.labels, made.drawn, shots=[1, 3], centers=["none", "support"])
    assert isinstance(planes[1, "support"], ZeroVectorError) and isinstance(planes[3, "support"], EpisodePlane)
    made.planes = planes
    by = {(s["shots"], s["center"]): s for s in embedded(made.page)["settings"]}
    assert "is zero, so it has no direction" in by[1, "support"]["reason"] and "reason" not in by[1, "none"]
    made.start = (1, "support")
    with pytest.raises(ValueError, match="expected a plane to start with"):
        _ = made.page


def test_names_images_and_planes_must_fit() -> None:
    good = make(shots=2, queries=2, pictures=False)
    two, one = good.plane(2, "support"), good.plane(1, "none")
    for change, message in (
        ({"names": ["a"]}, "expected class names: 4, got 1"),
        ({"supports": good.supports[1:]}, "expected supports by class"),
        ({"queries": [images[1:] for images in good.queries]}, "expected queries by class"),
        ({"start": (4, "support")}, "expected a plane to start with"),
        ({"planes": {(2, "support"): two, (1, "none"): one}}, "expected every number of shots"),
    ):
        with pytest.raises(ValueError, match=message):
            _ = replace(good, **change).page


def test_small_episodes_are_drawn_with_digits_enough() -> None:
    made = make(ways=3)
    made.x = made.x[0] * 1000 + 1e-3 * np.random.default_rng(3).normal(size=made.x.shape)
    plane = made.plane(5, "none")
    made.planes, made.start = {(5, "none"): plane}, (5, "none")
    (setting,) = embedded(made.page)["settings"]
    extent = np.ptp(plane.query.reshape(-1, 2), axis=0).max()
    assert extent < 1e-5
    queries = np.array(setting["places"][15:]).reshape(plane.query.shape)
    assert np.abs(queries - plane.query).max() < 2e-4 * extent


def test_the_same_episode_gives_the_same_bytes() -> None:
    assert make(3, ways=2).page == make(3, ways=2).page != make(4, ways=2).page


def test_colours_are_those_of_the_figure() -> None:
    for entry, colour in zip(embedded(make(ways=9).page)["classes"], class_colours(9), strict=True):
        assert entry["colour"] == "#" + "".join(f"{round(255 * part):02x}" for part in colour)
        shades = [int(entry[key][1:3], 16) for key in ("edge", "colour", "ondark")]
        assert shades == sorted(shades)


# --- what text and pictures become


def test_no_text_becomes_markup() -> None:
    made = hostile()
    page = plane_page(
        made.planes, made.names, made.supports, made.queries, start=made.start, title=HOSTILE[0], note=HOSTILE[1]
    )
    page.encode("utf-8")
    plain = Parsed(make(ways=8, shots=1, queries=2).page)
    assert [tag for tag, _ in Parsed(page).tags] == [tag for tag, _ in plain.tags]
    assert Parsed(page).text("h1") == [HOSTILE[0]] and HOSTILE[1] in "".join(data for _, data in Parsed(page).inside)
    data = embedded(page)
    assert [entry["name"] for entry in data["classes"]] == CLEAN
    assert [entry["name"] for entry in data["images"][:8]] == CLEAN


def test_json_in_a_script_has_no_letter_that_ends_it() -> None:
    text = script_json(dict.fromkeys(HOSTILE, HOSTILE))
    assert not set("<>&\n\u2028\u2029") & set(text)
    assert json.loads(text) == dict.fromkeys(CLEAN, CLEAN)
    with pytest.raises(ValueError, match="not JSON compliant"):
        script_json([float("nan")])


def test_the_policy_allows_this_script_this_style_and_nothing_else() -> None:
    page = make().page
    parsed = Parsed(page)
    (policy,) = (attributes["content"] for tag, attributes in parsed.tags if "http-equiv" in attributes)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def allowed(tag: str) -> str:
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "script-src": allowed("script"),
        "style-src": allowed("style"),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search("https?:", page)
    assert not {"link", "iframe", "object", "base", "form", "a"} & {tag for tag, _ in parsed.tags}
    for _, attributes in parsed.tags:
        assert not {"src", "href", "style"} & set(attributes) and not any(key.startswith("on") for key in attributes)


def test_pages_without_a_script_allow_none() -> None:
    page = html_document("report.html.j2", title="t", styles=["document.css"], introduction="", sections=[])
    assert "script-src &#39;none&#39;" in page and "<script" not in page


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (160, 160), (161, 3000), (900, 400), (333, 2), (640, 480)])
def test_thumbnails_are_small_and_show_the_picture(shape: tuple[int, int]) -> None:
    ramps = np.linspace(0, 255, shape[0])[:, None], np.linspace(255, 0, shape[1])[None]
    picture = np.stack([ramps[0] + 0 * ramps[1], 0 * ramps[0] + ramps[1], np.full(shape, 90.0)], axis=-1).astype(
        np.uint8
    )
    got = thumbnail(picture)
    assert got == thumbnail(picture)
    kind, code = re.fullmatch(r"data:image/(png|webp);base64,([A-Za-z0-9+/=]+)", got.uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(code))) as image:
        assert image.format == kind.upper() and image.size == (got.width, got.height)
        shown = np.asarray(image.convert("RGB")).astype(float)
    height, width = shape
    share = min(1, 160 / min(shape), 320 / max(shape))
    assert (got.height, got.width) == (max(1, round(share * height)), max(1, round(share * width)))
    naive = np.asarray(Image.fromarray(picture).resize((got.width, got.height), Image.Resampling.BOX)).astype(float)
    assert np.abs(shown - naive).mean() < 4
    if share == 1 and kind == "png":
        assert np.array_equal(shown, picture)


def test_many_thumbnails_have_the_area_of_few() -> None:
    assert [thumbnail_side(count) for count in (0, 1, 200, 800, 10**6)] == [160, 160, 160, 80, 48]
    assert thumbnail_side(801) <= thumbnail_side(800) <= thumbnail_side(799)
    many = make(ways=2, shots=1, queries=1)
    assert embedded(many.page)["images"][0]["height"] <= 320


def test_a_page_of_a_hundred_photographs_stays_small() -> None:
    import skimage.data

    photos = [skimage.data.coffee(), skimage.data.astronaut(), skimage.data.chelsea(), skimage.data.rocket()]
    rng = np.random.default_rng(0)

    def crop() -> np.ndarray:
        photo = photos[rng.integers(4)]
        height, width = (int(rng.integers(170, 300)) for _ in range(2))
        top, left = rng.integers(photo.shape[0] - height), rng.integers(photo.shape[1] - width)
        return np.ascontiguousarray(photo[top : top + height, left : left + width])

    made = make(ways=5, shots=5, queries=15)
    made.supports = [[EpisodeImage("a.jpg", crop()) for _ in of_class] for of_class in made.supports]
    made.queries = [[EpisodeImage("a.jpg", crop()) for _ in of_class] for of_class in made.queries]
    assert len(made.page) < 2_000_000
