"""What the page of matched images does in a real browser: pointer, touch, keyboard, matches, windows of any size, and no request."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from matplotlib import colormaps

from fewmatch.matching.geometry.geometry import Geometry

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import CLEAN, HOSTILE
from match_pages import Album, array, embedded, make


@pytest.fixture(scope="module")
def album() -> Album:
    return make(seed=7).match((0, 1), (2, 0))


@pytest.fixture(scope="module")
def page(album: Album, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return album.write(tmp_path_factory.mktemp("page") / "matches & <pairs> #1 é.html")


def window(browser: Browser, album: Album, i: int, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of an image is in the window, after the image has been scrolled into it."""
    return in_box(scrolled_to(browser, i), album, i, x, y)


def scrolled_to(browser: Browser, i: int) -> list[float]:
    """Left, top, width and height of an image that has been scrolled into the window."""
    box: list[float] = browser.run(
        "const v = document.querySelectorAll('.view')[arguments[0]]; v.scrollIntoView({block: 'center'});"
        "const b = v.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]",
        i,
    )
    return box


def at_patch(browser: Browser, album: Album, i: int, patch: int) -> tuple[float, float]:
    return window(browser, album, i, *album.pixel(i, patch))


#: All at once: each question of its own is a way to the browser and back.
SHOWN = (
    "const boxes = (selector) => [...document.querySelectorAll(selector)].map(e => {"
    "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; });"
    "return {views: boxes('.view'), best: boxes('.mark.best'), said: document.getElementById('shown').textContent,"
    "marks: [...document.querySelectorAll('.mark')].filter(m => !m.hidden).map(m => [m.classList[1],"
    "+m.closest('.view').dataset.image, +m.dataset.x, +m.dataset.y, m.dataset.cosine ? +m.dataset.cosine : 0, m.textContent])}"
)


def by_kind(rows: list[list[Any]]) -> dict[str, dict[int, list[float]]]:
    found: dict[str, dict[int, list[float]]] = {"source": {}, "best": {}, "probe": {}}
    for kind, image, x, y, cosine, text in rows:
        found[kind][image] = [x, y, cosine, float(text.replace("−", "-"))] if kind == "best" else [x, y]
    return found


def marks(browser: Browser) -> dict[str, dict[int, list[float]]]:
    """The visible marks by kind and image: pixels of the original, and of nearest ones the cosine and its text."""
    return by_kind(browser.run(SHOWN)["marks"])


def check_shown(browser: Browser, album: Album, source: int, patch: int) -> str:
    """The patch is marked, and in every other image the one that NumPy finds; drawn where its pixels are. Returns what is said of it."""
    page = browser.run(SHOWN)
    shown = by_kind(page["marks"])
    assert list(shown["source"]) == [source]
    assert np.allclose(shown["source"][source], album.pixel(source, patch), rtol=0, atol=1e-6)
    assert set(shown["best"]) == set(range(len(album.images))) - {source}
    for b, (x, y, cosine, text) in shown["best"].items():
        expected = album.best(source, patch, b)
        assert np.allclose([x, y], expected[:2], rtol=0, atol=1e-6)
        assert cosine == pytest.approx(expected[2], abs=2e-5) and text == pytest.approx(expected[2], abs=0.00502)
        assert np.allclose(page["best"][b][:2], in_box(page["views"][b], album, b, x, y), rtol=0, atol=0.6)
    return str(page["said"])


def in_box(box: list[float], album: Album, i: int, x: float, y: float) -> tuple[float, float]:
    """Where a pixel of an image is in the window, by the left, the top, the width and the height of the image."""
    frame = album.images[i].frame
    return box[0] + (x + 0.5) / frame.width * box[2], box[1] + (y + 0.5) / frame.height * box[3]


def change(browser: Browser, selector: str, value: Any, event: str = "change") -> None:
    browser.run(
        "const e = document.querySelector(arguments[0]); if (e.type === 'checkbox') e.checked = arguments[1]; else e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2], {bubbles: true}))",
        selector,
        value,
        event,
    )


def heat(browser: Browser, album: Album, i: int) -> np.ndarray:
    """How bright the heat map is at the centre of each patch that takes part, −1 elsewhere."""
    points = [in_box([0, 0, 1, 1], album, i, *album.pixel(i, p)) for p in range(len(album.usable(i)))]
    values = browser.run(
        "const v = document.querySelectorAll('.view')[arguments[0]], b = v.getBoundingClientRect();"
        "const g = v.querySelector('canvas').getContext('2d');"
        "return arguments[1].map(([x, y]) => { const d = g.getImageData(Math.floor(x * b.width), Math.floor(y * b.height), 1, 1).data;"
        "return (0.3 * d[0] + 0.6 * d[1] + 0.1 * d[2]) * d[3] / 255; })",
        i,
        points,
    )
    return np.where(album.usable(i), np.array(values), -1)


# --- similarity


def test_pointing_at_a_patch_marks_the_nearest_ones(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    assert marks(browser) == {"source": {}, "best": {}, "probe": {}}
    rng = np.random.default_rng(0)
    for source in range(4):
        for patch in rng.choice(np.flatnonzero(album.usable(source)), 3, replace=False):
            browser.point_at(*at_patch(browser, album, source, int(patch)))
            said = check_shown(browser, album, source, int(patch))
            x, y = album.pixel(source, int(patch))
            assert said.startswith(f"image-{source}.png, row ") and ", pinned" not in said
            row, column = divmod(int(patch), album.images[source].frame.grid[1])
            assert f"row {row}, column {column}, at " in said
            numbers = re.search(r"at \((\d+), (\d+)\)", said)
            assert numbers and np.allclose([int(n) for n in numbers.groups()], [x, y], atol=0.51)
    assert browser.said() == []
    assert [url for url in browser.requested() if not url.startswith("data:")] == [page.as_uri()]


def test_the_pointer_means_the_patch_whose_centre_is_nearest(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page, 1500, 1000)
    rng = np.random.default_rng(1)
    for source in range(4):
        frame, used = album.images[source].frame, album.usable(source).reshape(album.images[source].frame.grid)
        left, top, wide, high = scrolled_to(browser, source)
        seen = 0
        for x, y in rng.uniform(-0.4, [frame.width - 0.6, frame.height - 0.6], (6, 2)):
            place = tuple(round(v) for v in in_box([left, top, wide, high], album, source, float(x), float(y)))
            x, y = (place[0] - left) / wide * frame.width - 0.5, (place[1] - top) / high * frame.height - 0.5
            row, column = (float(v) for v in frame.to_grid(x, y))
            if min(abs(row % 1 - 0.5), abs(column % 1 - 0.5)) < 0.02:
                continue
            at = int(np.clip(round(row), 0, frame.grid[0] - 1)), int(np.clip(round(column), 0, frame.grid[1] - 1))
            box = frame.box
            inside = box[0] < x + 0.5 < box[2] and box[1] < y + 0.5 < box[3]
            browser.point_at(*place)
            if inside and used[at]:
                patch = at[0] * frame.grid[1] + at[1]
                assert np.allclose(marks(browser)["source"][source], album.pixel(source, patch), atol=1e-6)
                seen += 1
                browser.press("\ue00c")  # Escape
            else:
                assert marks(browser)["source"] == {}
        assert seen > 1


def test_what_the_encoder_does_not_see_is_dark_and_not_chosen(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    for i, x, y, seen in (
        (1, 5, 40, False),
        (1, 75, 40, True),
        (1, 145, 40, False),
        (2, *album.pixel(2, 4 * 8 + 4), False),
    ):
        place = window(browser, album, i, x, y)
        alpha = browser.run(
            "const v = document.querySelectorAll('.view')[arguments[0]], b = v.getBoundingClientRect(), c = v.querySelector('canvas');"
            "return c.getContext('2d').getImageData(arguments[1] - b.x, arguments[2] - b.y, 1, 1).data[3]",
            i,
            *place,
        )
        assert alpha == (0 if seen else 184)
        browser.point_at(*place, click=True)
        assert (i in marks(browser)["source"]) == seen
        browser.press("\ue00c", "\ue00c")
    hidden = np.flatnonzero(~album.usable(2) & album.images[2].frame.real.reshape(-1))
    assert len(hidden) > 3
    for patch in hidden[:4]:
        browser.point_at(*at_patch(browser, album, 2, int(patch)))
        assert 2 not in marks(browser)["source"]


def test_cosines_are_those_of_the_codes(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    about = re.search(r"by at most ([\d.]+)", browser.text("#about"))
    assert about is not None
    data = embedded(page.read_text())
    scale = array(data["scale"], "<f4").astype(np.float64)
    codes = [array(image["codes"], "i1").reshape(-1, len(scale)).astype(np.float64) for image in data["images"]]
    browser.point_at(*at_patch(browser, album, 3, 17))
    for b in range(4):
        shown = np.array(browser.run("return Array.from(model.images[arguments[0]].cosines)", b))
        expected = (codes[3][17] * scale) @ codes[b].T
        if b == 3:
            expected[17] = 1
        assert np.allclose(shown, expected, rtol=0, atol=1e-6)
        off = np.abs(shown - album.units(3)[17] @ album.units(b).T)[album.usable(b)]
        assert off.max() <= float(about[1]) + 1e-6


@pytest.mark.parametrize("kind", ["sigmoid", "softmax", "rank", "cosine"])
def test_the_heat_is_that_of_the_scale_and_brightest_at_the_best_match(
    browser: Browser, album: Album, page: Path, kind: str
) -> None:
    browser.open(page, 1500, 1000)
    change(browser, "#scale", kind)
    change(browser, "#sharpness", 40, "input")
    change(browser, "#smooth", False)
    browser.point_at(*at_patch(browser, album, 0, 20))
    cosines_and_shares = browser.run(
        "const scales = model.scales({image: 0, patch: 20}, arguments[0], 0.4, false);"
        "return model.images.map((image, b) => { const c = Array.from(image.cosines); return [c, c.map(scales[b])]; })",
        kind,
    )
    for b in (1, 2, 3):
        bright, used = heat(browser, album, b), album.usable(b)
        cosines, share = np.array(cosines_and_shares[b])
        share = np.clip(share, 0, 1)
        colours = colormaps["viridis"](np.round(share * 63) / 63)[:, :3] @ [0.3, 0.6, 0.1]
        assert np.abs(bright - colours * 235 * share**0.75)[used].max() < 3
        best = np.where(used, cosines, -2).argmax()
        assert bright[best] == bright.max()
        if kind != "cosine":  # which is what it is: the best of them may be far from 1
            assert share[best] == pytest.approx(1) and bright[best] > 170 and np.median(bright[used]) < 100


def test_scales_are_what_they_are_called(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    browser.point_at(*at_patch(browser, album, 0, 20))
    cosines = [np.array(c) for c in browser.run("return model.images.map(image => Array.from(image.cosines))")]
    used = [np.sort(c[album.usable(b) & ~((np.arange(len(c)) == 20) & (b == 0))]) for b, c in enumerate(cosines)]
    sharpnesses, names = (0.0, 0.3, 1.0), ("softmax", "sigmoid", "rank", "cosine")
    scaled = browser.run(
        "const [sharpnesses, names, values] = arguments; return [false, true].map(joint => sharpnesses.map(sharp => values.map((v, b) =>"
        "names.map(name => v.map(model.scales({image: 0, patch: 20}, name, sharp, joint)[b])))))",
        *(sharpnesses, names, [s.tolist() for s in used]),
    )
    for joint in (False, True):
        for at, sharp in enumerate(sharpnesses):
            for b in range(4):
                values = np.sort(np.concatenate(used)) if joint else used[b]
                largest = values[-1]
                share = 0.5 * (0.005 / 0.5) ** sharp
                quantile = values[min(len(values) - 2, int(len(values) * (1 - share)))]
                width = max(1e-6, (largest - quantile) / 3)
                s = used[b]
                expected = {
                    "softmax": np.exp((s - largest) / (0.4 * (0.01 / 0.4) ** sharp)),
                    "sigmoid": (1 + np.exp((quantile - largest) / width)) / (1 + np.exp((quantile - s) / width)),
                    "rank": ((values[:, None] <= s).sum(axis=0) / len(values)) ** (64**sharp),
                    "cosine": s,
                }
                assert list(expected) == list(names)
                for (name, wanted), got in zip(expected.items(), scaled[joint][at][b], strict=True):
                    assert np.allclose(got, wanted, rtol=1e-6, atol=1e-9), (name, sharp, joint, b)


def test_controls_change_the_heat(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    browser.point_at(*at_patch(browser, album, 0, 20))
    change(browser, "#sharpness", 0, "input")
    seen = [heat(browser, album, 1)]
    for selector, value, event in (
        ("#sharpness", 50, "input"),
        ("#smooth", False, "change"),
        ("#joint", True, "change"),
        ("#sharpness", 30, "input"),
        ("#scale", "softmax", "change"),
        ("#scale", "rank", "change"),
        ("#scale", "cosine", "change"),
    ):
        before = browser.text("#sharpness-value")
        change(browser, selector, value, event)
        now = heat(browser, album, 1)
        assert all(np.abs(now - other).max() > 3 for other in seen), (selector, value)
        assert (browser.text("#sharpness-value") != before) == (selector not in ("#joint", "#smooth"))
        seen.append(now)
    assert not browser.one("#sharpness").is_displayed()
    browser.press("h")
    assert np.abs(heat(browser, album, 1)[album.usable(1)]).max() == 0, "bare pictures"
    check_shown(browser, album, 0, 20)
    browser.press("h")
    assert np.array_equal(heat(browser, album, 1), seen[-1])


def test_a_click_pins_and_the_pointer_then_only_looks(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    assert not browser.one("#release").is_displayed()
    browser.point_at(*at_patch(browser, album, 1, 8), click=True)
    check_shown(browser, album, 1, 8)
    assert browser.one("#release").is_displayed() and ", pinned." in browser.text("#shown")
    for i, patch in ((3, 20), (0, 11), (1, 9)):
        browser.point_at(*at_patch(browser, album, i, patch))
        check_shown(browser, album, 1, 8)
        shown = marks(browser)["probe"]
        assert list(shown) == [i] and np.allclose(shown[i], album.pixel(i, patch))
        cosine = browser.run("return model.images[arguments[0]].cosines[arguments[1]]", i, patch)
        assert browser.text(f"figure:nth-of-type({i + 1}) figcaption span") == f"here ≈ {cosine:.2f}".replace("-", "−")
        assert f"At the pointer in image-{i}.png: about " in browser.text("#shown")
    browser.point_at(5, 5)
    assert marks(browser)["probe"] == {}
    # A click elsewhere pins that; the same once more releases, and the pointer leads again.
    browser.point_at(*at_patch(browser, album, 3, 20), click=True)
    check_shown(browser, album, 3, 20)
    browser.point_at(*at_patch(browser, album, 3, 20), click=True)
    assert not browser.one("#release").is_displayed()
    browser.point_at(*at_patch(browser, album, 0, 2))
    check_shown(browser, album, 0, 2)
    browser.point_at(*at_patch(browser, album, 0, 3), click=True)
    browser.one("#release").click()
    assert ", pinned" not in browser.text("#shown")
    browser.point_at(*at_patch(browser, album, 2, 20 if album.usable(2)[20] else 21))
    assert 2 in marks(browser)["source"]


def test_all_of_it_works_from_the_keyboard(browser: Browser, album: Album, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    browser.run("document.getElementById('smooth').focus()")
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.dataset.image") == "0"
    grid = album.images[0].frame.grid
    start = min(
        range(grid[0] * grid[1]),
        key=lambda p: (np.hypot(p // grid[1] - (grid[0] - 1) / 2, p % grid[1] - (grid[1] - 1) / 2), p),
    )
    check_shown(browser, album, 0, start)
    browser.press(Keys.ARROW_RIGHT)
    check_shown(browser, album, 0, start + 1)
    browser.press(Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    check_shown(browser, album, 0, start + grid[1] - 1)
    browser.press(Keys.ARROW_UP)
    check_shown(browser, album, 0, start - 1)
    browser.press(*[Keys.ARROW_UP] * 12)
    check_shown(browser, album, 0, (start - 1) % grid[1])
    browser.run(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', shiftKey: true, bubbles: true}))"
    )
    patch = min((start - 1) % grid[1] + 5, grid[1] - 1)
    check_shown(browser, album, 0, patch)
    browser.press(Keys.ENTER)
    assert ", pinned." in browser.text("#shown")
    browser.press(Keys.TAB)  # another image, which is only looked at
    assert browser.run("return document.activeElement.dataset.image") == "1"
    check_shown(browser, album, 0, patch)
    assert list(marks(browser)["probe"]) == [1]
    before = marks(browser)["probe"][1]
    browser.press(Keys.ARROW_RIGHT)
    moved = marks(browser)["probe"][1]
    assert moved != before
    browser.press(Keys.SPACE)
    assert np.allclose(marks(browser)["source"][1], moved) and ", pinned." in browser.text("#shown")
    browser.press(Keys.ESCAPE)
    assert ", pinned" not in browser.text("#shown") and marks(browser)["source"]
    browser.press(Keys.ESCAPE)
    assert marks(browser)["source"] == {} and browser.text("#shown").startswith("Point at a patch")
    assert browser.said() == []


def test_arrow_keys_go_over_what_takes_no_part(browser: Browser, album: Album, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    used = album.usable(2).reshape(album.images[2].frame.grid)
    row = next(r for r in range(8) if used[r].sum() > 2 and not used[r, np.flatnonzero(used[r])[0] :].all())
    columns = np.flatnonzero(used[row])
    browser.point_at(*at_patch(browser, album, 2, int(row * 8 + columns[0])), click=True)
    walked = [columns[0]]
    for _ in range(len(columns)):
        browser.press(Keys.ARROW_RIGHT)
        walked.append(int(browser.one(".mark.source:not([hidden])").get_attribute("data-column")))
    assert walked == [*columns, columns[-1]]


def test_what_is_shown_is_said(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    assert browser.run("return document.querySelector('#live').getAttribute('role')") == "status"
    browser.point_at(*at_patch(browser, album, 0, 30), click=True)
    browser.driver.execute_async_script("setTimeout(arguments[0], 400)")
    said = browser.text("#live")
    assert said == browser.text("#shown")
    best = sorted(((album.best(0, 30, b)[2], b) for b in (1, 2, 3)), reverse=True)
    assert re.findall(r"image-(\d)\.png (−?[\d.]+) at", said) == [
        (str(b), f"{c:.2f}".replace("-", "−")) for c, b in best
    ]
    label = browser.one(".view[data-image='1']").get_attribute("aria-label")
    assert label == "image-1.png, image 2 of 4, 6 by 6 patches"


def drag(browser: Browser, *points: tuple[float, float]) -> None:
    touch = [{"x": x, "y": y} for x, y in points]
    for kind, at in (("touchStart", touch[:1]), *(("touchMove", [p]) for p in touch[1:]), ("touchEnd", [])):
        browser.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})


def tap(browser: Browser, album: Album, i: int, patch: int, pinned: bool = True) -> None:
    """A finger, down and up, until the page shows the patch: on a busy machine a tap can last so long that it is another gesture."""
    row, column = divmod(patch, album.images[i].frame.grid[1])
    for _ in range(5):
        browser.touch(*at_patch(browser, album, i, patch))
        for _ in range(60):
            said = browser.text("#shown")
            if f"row {row}, column {column}, at " in said and (", pinned." in said) == pinned:
                return
            time.sleep(0.1)
    pytest.fail(f"a tap did not show row {row}, column {column}: {said}")


def test_a_tap_pins_and_a_drag_moves(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page, 390, 844)
    browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    try:
        tap(browser, album, 0, 9)
        check_shown(browser, album, 0, 9)
        start, half, end = (at_patch(browser, album, 0, p) for p in (9, 10, 19))
        drag(browser, start, half, end, end)
        check_shown(browser, album, 0, 19)
        assert ", pinned." in browser.text("#shown")
        tap(browser, album, 3, 12)
        check_shown(browser, album, 3, 12)
        # On another image a finger scrolls: nothing moves.
        drag(browser, at_patch(browser, album, 1, 8), at_patch(browser, album, 1, 9))
        check_shown(browser, album, 3, 12)
        tap(browser, album, 3, 12, pinned=False)
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    assert browser.said() == []


# --- matches


def drawn(browser: Browser) -> list[dict[str, float]]:
    """The matches that are drawn, best first, with the pixels of the window where their dots are."""
    rows = browser.run(
        "const o = document.getElementById('overlay').getBoundingClientRect();"
        "return [...document.querySelectorAll('.match')].map(m => ({"
        "...Object.fromEntries(Object.entries(m.dataset).map(([k, v]) => [k, +v])), lines: m.querySelectorAll('.over').length,"
        "chosen: m.classList.contains('chosen') ? 1 : 0, fill: m.querySelector('circle').getAttribute('fill'),"
        "dots: [...m.querySelectorAll('circle')].map(c => [o.x + +c.getAttribute('cx'), o.y + +c.getAttribute('cy')])}))"
    )
    return sorted(rows, key=lambda row: row["number"])


def expected_matches(album: Album, a: int, b: int) -> np.ndarray:
    """Rows of xa, ya, xb, yb, score of all mutual nearest patches, best first."""
    s = np.where(album.usable(a)[:, None], album.cosines(a, b), -np.inf)
    mutual = [(i, int(s[i].argmax())) for i in np.flatnonzero(album.usable(a)) if s[:, s[i].argmax()].argmax() == i]
    rows = [(*album.pixel(a, i), *album.pixel(b, j), s[i, j]) for i, j in mutual]
    return np.array(sorted(rows, key=lambda row: -row[-1]))


def columns(rows: list[dict[str, float]]) -> np.ndarray:
    return np.array([[row[name] for name in ("xa", "ya", "xb", "yb", "score")] for row in rows])


def test_the_matches_of_two_images_are_drawn(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    assert drawn(browser) == [] and not browser.one("#of-pair").is_displayed()
    browser.one("#matches").click()
    assert (
        browser.one("#matches").get_attribute("aria-pressed") == "true"
        and not browser.one("#similarity").is_displayed()
    )
    change(browser, "#lines", True)
    for a, b in ((0, 1), (1, 0), (0, 2), (2, 0), (3, 1), (2, 3)):
        change(browser, "#of", a)
        change(browser, "#with", b)
        rows, expected = drawn(browser), expected_matches(album, a, b)
        if (a, b) in album.pairs:
            assert len(expected) == len(album.pairs[a, b])
        assert len(rows) == len(expected) > 2 and sum(int(row["lines"]) for row in rows) == len(expected)
        assert np.allclose(columns(rows), expected, rtol=0, atol=1e-4)
        assert browser.text("#count") == f"{len(expected)} matches"
        views = browser.run(SHOWN)["views"]
        for row in rows:
            ends: Any = row["dots"]
            assert np.allclose(ends[0], in_box(views[a], album, a, row["xa"], row["ya"]), atol=0.6)
            assert np.allclose(ends[1], in_box(views[b], album, b, row["xb"], row["yb"]), atol=0.6)
    change(browser, "#lines", False)
    assert {row["lines"] for row in drawn(browser)} == {0}
    browser.one("#matches").click()
    assert drawn(browser) == [] and browser.one("#similarity").is_displayed()
    assert browser.said() == []


def test_one_with_all_others_has_one_colour_for_each_patch(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    browser.point_at(*at_patch(browser, album, 3, 20))
    browser.press("m")
    assert browser.run("return document.getElementById('of').value") == "3", "the image that was looked at"
    assert browser.run("return document.getElementById('with').value") == "all"
    rows = drawn(browser)
    assert sum(len(expected_matches(album, 3, b)) for b in range(3)) == len(rows)
    assert (np.diff([row["score"] for row in rows]) <= 1e-6).all()
    colours: dict[tuple[float, float], set[Any]] = {}
    for row in rows:
        colours.setdefault((row["xa"], row["ya"]), set()).add(row["fill"])
    assert all(len(found) == 1 for found in colours.values()) and len(set.union(*colours.values())) > 10


def test_the_threshold_leaves_the_better_ones(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    browser.press("m")
    change(browser, "#with", 1)
    score = album.pairs[0, 1].score
    least = np.ceil(100 * np.median(score)) / 100
    change(browser, "#least", float(least), "input")
    kept = int((score >= least - 1e-6).sum())
    assert 0 < kept < len(score)
    assert len(drawn(browser)) == kept and browser.text("#count") == f"{kept} of {len(score)} matches"
    assert browser.text("#least-value") == f"{least:.2f}"
    bounds = browser.run("const l = document.getElementById('least'); return [+l.min, +l.max]")
    assert bounds[0] <= score.min() and bounds[1] >= score.max()


def test_a_match_that_is_pointed_at_shows_its_partner(browser: Browser, album: Album, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    browser.press("m")
    change(browser, "#with", 1)
    matches = album.pairs[0, 1]
    for k in (0, len(matches) - 1):
        for i, (x, y) in ((0, matches.xy_a[k]), (1, matches.xy_b[k])):
            browser.point_at(5, 5)
            browser.press(Keys.ESCAPE)
            assert [row for row in drawn(browser) if row["chosen"]] == []
            browser.point_at(*window(browser, album, i, float(x), float(y)))
            [row] = [row for row in drawn(browser) if row["chosen"]]
            assert row["number"] == k and row["lines"] == 1
            said = browser.text("#shown")
            assert said.startswith(f"Match {k + 1} of {len(matches)}: ") and f"cosine {matches.score[k]:.2f}" in said
    # The arrow keys go through them, best first.
    browser.press(Keys.ESCAPE)
    browser.run("document.querySelector('.view').focus()")
    for key, number in (
        (Keys.ARROW_RIGHT, 0),
        (Keys.ARROW_DOWN, 1),
        (Keys.ARROW_LEFT, 0),
        (Keys.ARROW_UP, len(matches) - 1),
    ):
        browser.press(key)
        assert [row["number"] for row in drawn(browser) if row["chosen"]] == [number]
    # What was pointed at stays until something else is, or Escape.
    x, y = matches.xy_a[3]
    browser.point_at(*window(browser, album, 0, float(x), float(y)), click=True)
    browser.point_at(5, 5)
    assert [row["number"] for row in drawn(browser) if row["chosen"]] == [3]
    browser.press(Keys.ESCAPE)
    assert [row for row in drawn(browser) if row["chosen"]] == []
    assert browser.said() == []


def test_a_patch_with_several_matches_shows_them_all(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page)
    browser.press("m")
    rows = drawn(browser)
    starts = [(row["xa"], row["ya"]) for row in rows]
    several = max(set(starts), key=starts.count)
    assert starts.count(several) > 1
    browser.point_at(*window(browser, album, 0, *several))
    assert [(row["xa"], row["ya"]) for row in drawn(browser) if row["chosen"]] == [several] * starts.count(several)
    assert browser.text("#shown").count("cosine") == starts.count(several)


def test_inliers_alone_on_request(browser: Browser, album: Album, tmp_path: Path) -> None:
    inliers = np.arange(len(album.pairs[0, 1])) % 3 == 1
    matches = dataclasses.replace(album.pairs[0, 1], geometry=Geometry("homography", 3.0, np.eye(3), inliers))
    browser.open(Album(album.images, {(0, 1): matches}).write(tmp_path / "inliers.html"))
    browser.press("m")
    change(browser, "#with", 2)
    assert not browser.one("#inliers-label").is_displayed()
    change(browser, "#with", 1)
    assert browser.text("#inliers-label").strip() == "only inliers of the homography"
    change(browser, "#inliers", True)
    assert np.allclose(columns(drawn(browser))[:, :2], matches.xy_a[inliers], atol=1e-4)
    change(browser, "#of", 3)
    assert browser.run("return document.getElementById('inliers').checked") is False


# --- the page


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(390, 844, False), (390, 844, True), (800, 600, True), (1600, 900, False)]
)
def test_it_fits_any_window(browser: Browser, album: Album, page: Path, width: int, height: int, dark: bool) -> None:
    browser.open(page, width, height, dark)
    browser.point_at(*at_patch(browser, album, 0, 12), click=True)
    for key in ("", "m"):
        browser.press(key)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        for image, (left, _, wide, high) in zip(album.images, browser.run(SHOWN)["views"], strict=True):
            frame = image.frame
            assert left >= 0 and left + wide <= width and high >= 100
            assert wide / high == pytest.approx(frame.width / frame.height, rel=0.02)
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == dark


def test_nothing_jumps_while_pointing(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page, 390, 844)
    tops = set()
    place = at_patch(browser, album, 0, 12)
    top = "return document.querySelector('.view').getBoundingClientRect().y"
    tops.add(browser.run(top))
    browser.point_at(*place)
    tops.add(browser.run(top))
    browser.point_at(*place, click=True)
    tops.add(browser.run(top))
    assert len(tops) == 1


def test_it_follows_the_window(browser: Browser, album: Album, page: Path) -> None:
    browser.open(page, 1400, 900)
    browser.point_at(*at_patch(browser, album, 0, 12), click=True)
    metrics = {"width": 500, "height": 900, "deviceScaleFactor": 2, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    check_shown(browser, album, 0, 12)
    canvas, view = browser.run(
        "const v = document.querySelector('.view'); return [v.querySelector('canvas').width, v.clientWidth]"
    )
    assert canvas == 2 * view


def test_hostile_names_are_only_text(browser: Browser, tmp_path: Path) -> None:
    album = make(names=HOSTILE[:2] + HOSTILE[6:])
    browser.open(album.write(tmp_path / "hostile.html"))
    told = browser.run("return [...document.querySelectorAll('figcaption bdi')].map(b => b.textContent)")
    assert told == CLEAN[:2] + CLEAN[6:]
    browser.point_at(*at_patch(browser, album, 0, 5))
    assert browser.text("#shown").startswith(CLEAN[0])
    browser.press("m")
    options = browser.run("return [...document.querySelectorAll('#of option')].map(o => o.textContent)")
    assert options == told
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.run("return document.querySelectorAll('#shown *, figcaption img, b').length") == 0
    assert browser.said() == []


def test_images_without_pictures_and_without_patches(browser: Browser, tmp_path: Path) -> None:
    album = make(seed=9, pictures=False)
    none = np.zeros(album.images[1].frame.grid, bool)
    album.images[1] = dataclasses.replace(album.images[1], valid=none)
    browser.open(album.write(tmp_path / "bare.html"))
    browser.point_at(*at_patch(browser, album, 1, 8), click=True)
    assert marks(browser)["source"] == {}
    browser.point_at(*at_patch(browser, album, 0, 8), click=True)
    shown = marks(browser)
    assert set(shown["best"]) == {2, 3}
    assert np.allclose(shown["best"][3][:2], album.best(0, 8, 3)[:2])
    browser.run("document.querySelectorAll('.view')[1].focus()")
    browser.press("\ue014")
    browser.press("m")
    change(browser, "#with", 1)
    assert drawn(browser) == [] and browser.text("#count") == "0 matches"
    browser.press("\ue014")
    assert browser.said() == []


def test_two_images_have_lines_at_once(browser: Browser, album: Album, tmp_path: Path) -> None:
    two = Album(album.images[:2]).match((0, 1))
    browser.open(two.write(tmp_path / "two.html"))
    browser.press("m")
    rows = drawn(browser)
    assert len(rows) == len(two.pairs[0, 1]) == sum(int(row["lines"]) for row in rows)
    assert browser.run("return [...document.querySelectorAll('#with option')].map(o => o.value)") == ["1"]


def test_the_policy_is_enforced(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const s = document.createElement('script'); s.textContent = 'window.hacked = 1'; document.body.append(s);"
        "const i = new Image(); i.src = 'https://example.invalid/a.png'; document.body.append(i);"
    )
    assert browser.run("return window.hacked === undefined")
    refused = " ".join(browser.said())
    assert "script-src" in refused and "img-src" in refused
    assert not [url for url in browser.requested() if url.startswith("http")]
