"""What the page for reviewing keypoints does in a real browser: dragging, keys, touch, undo, and a file that reads back as it should."""

from __future__ import annotations

import csv
import io
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser

from fewmatch.figures.keypoints import review_order
from fewmatch.figures.page.review import review_page
from fewmatch.labels.keypoints import Keypoints
from fewmatch.labels.reading import read_labels

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import HOSTILE

UP, DOWN, LEFT, RIGHT, SHIFT, ESCAPE, CONTROL = (chr(0xE000 + k) for k in (0x13, 0x15, 0x12, 0x14, 0x8, 0xC, 0x9))
#: Widths and heights; the second is so large that the page reduces it.
SIZES = [(396, 407), (1700, 1201), (61, 45), (300, 200), (640, 480)]
NAMES = [
    'a "quoted", odd\nname.png',
    "folder/b.png",
    " <b>&amp;.png ",
    "🦊 é\u202egnp.png",
    "</script><script>alert(1)</script>.png",
]
PARTS = ("nose", 'left, "ear"', "<i>tail</i>", "🐾")


class Review:
    """Random keypoints, their pictures and their page."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        sizes = np.array(SIZES)
        xy = np.array([0.15, 0.2]) + 0.6 * np.stack(np.meshgrid([0, 1], [0, 1]), axis=-1).reshape(4, 2)
        xy = (xy + rng.uniform(0, 0.1, (len(SIZES), 4, 2))) * sizes[:, None]
        visible = np.ones((len(SIZES), 4), bool)
        visible[:, 2] = False
        visible[:, 3] = False
        xy[:, 3] = np.nan
        score = np.where(np.isnan(xy[..., 0]), np.nan, rng.uniform(0, 1, (len(SIZES), 4)))
        score[4] = np.nan  # marked by people, the hidden part too
        self.keypoints = Keypoints(tuple(NAMES), PARTS, xy, visible, score, ((0, 1),))
        self.pictures = [
            cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), size, interpolation=cv2.INTER_CUBIC)
            for size in SIZES
        ]
        self.order = review_order(self.keypoints)
        self.page = folder / "review & <correct> #1 é.html"
        self.page.write_text(review_page(self.pictures, self.keypoints, title="Mice"), encoding="utf-8", newline="")

    def open(self, browser: Browser, n: int, **window: Any) -> None:
        """The page, with image n large."""
        browser.open(self.page, **window)
        browser.all(".tile")[self.order.index(n)].click()

    def shown(self, browser: Browser, n: int) -> dict[str, Any]:
        """What the page holds of image n."""
        state: dict[str, Any] = browser.run("return model.states[arguments[0]]", self.order.index(n))
        return state

    def place(self, browser: Browser, n: int, p: int) -> np.ndarray:
        point = self.shown(browser, n)["points"][p]
        return np.array([point["x"], point["y"]], float)

    def box(self, browser: Browser) -> tuple[float, float, float, float]:
        x, y, width, height = browser.run(
            "const b = document.getElementById('stage').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
        )
        return x, y, width, height

    def window(self, browser: Browser, n: int, x: float, y: float) -> tuple[int, int]:
        """The pixel of the window at a place of the large image n."""
        left, top, width, height = self.box(browser)
        return round(left + (x + 0.5) / SIZES[n][0] * width), round(top + (y + 0.5) / SIZES[n][1] * height)


@pytest.fixture(scope="module")
def review(tmp_path_factory: pytest.TempPathFactory) -> Review:
    return Review(tmp_path_factory.mktemp("review"))


def drag(browser: Browser, start: tuple[int, int], end: tuple[int, int]) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    chain = ActionChains(browser.driver, duration=0)
    chain.w3c_actions.pointer_action.move_to_location(*start)
    chain.w3c_actions.pointer_action.pointer_down()
    for share in (0.3, 1.0):
        x, y = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
        chain.w3c_actions.pointer_action.move_to_location(x, y)
    chain.w3c_actions.pointer_action.pointer_up()
    chain.perform()


def press_with(browser: Browser, held: str, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser.driver, duration=0).key_down(held).send_keys(*keys).key_up(held).perform()


def close(browser: Browser, *keys: str) -> None:
    """Keys for the large image, then back to the tiles: of that the page hears with the next frame, late on a busy machine."""
    browser.press(*keys, ESCAPE)
    browser.driver.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0]))")


def choose(browser: Browser, p: int) -> None:
    browser.run("document.querySelectorAll('#parts button')[arguments[0]].focus()", p)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def saved(browser: Browser, folder: Path) -> Path:
    """The file that the button gives to the browser."""
    folder.mkdir()
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    browser.run("document.getElementById('save').click()")
    for _ in range(200):
        found = [path for path in folder.iterdir() if path.suffix == ".csv"]
        if found and found[0].stat().st_size:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"nothing was saved: {list(folder.iterdir())}")


# --- the contact sheet


def test_tiles_are_in_order_and_draw_the_points_where_they_are(browser: Browser, review: Review) -> None:
    browser.open(review.page)
    names = browser.run("return [...document.querySelectorAll('.tile bdi')].map(e => e.textContent)")
    assert names == [NAMES[n] for n in review.order]
    for position, n in enumerate(review.order):
        found = browser.run(
            "const t = document.querySelectorAll('.tile')[arguments[0]], b = t.querySelector('.picture').getBoundingClientRect();"
            "return [[b.x, b.y, b.width, b.height], [...t.querySelectorAll('.point')].map(g => { const c = g.getBoundingClientRect();"
            "return [+g.dataset.part, c.x + c.width / 2, c.y + c.height / 2, g.classList.contains('absent')]; })]",
            position,
        )
        (left, top, width, height), points = found
        assert [point[0] for point in points] == [0, 1, 2]  # the last has no place
        for p, x, y, absent in points:
            assert absent == (not review.keypoints.visible[n, p])
            share = (review.keypoints.xy[n, p] + 0.5) / SIZES[n]
            assert np.allclose([x, y], [left + share[0] * width, top + share[1] * height], atol=0.3)
        assert len(browser.all(f".tile:nth-child({position + 1}) line")) == 2
    assert browser.text("#progress") == "0 of 5 reviewed, 0 changed"
    assert not browser.one("#save").is_enabled()
    assert browser.said() == []
    assert [url for url in browser.requested() if not url.startswith("data:")] == [review.page.as_uri()]


# --- moving


def test_a_drag_moves_a_point_by_as_many_pixels_of_the_original(browser: Browser, review: Review) -> None:
    for n, window in ((0, (1200, 900)), (1, (1000, 700)), (2, (1200, 900)), (1, (390, 800))):
        review.open(browser, n, width=window[0], height=window[1])
        before = review.keypoints.xy[n, 1]
        start = review.window(browser, n, *before)
        drag(browser, start, (start[0] - 37, start[1] + 23))
        scale = review.box(browser)[2] / SIZES[n][0]
        assert np.allclose(review.place(browser, n, 1), before + np.array([-37, 23]) / scale, atol=1e-6)
        others = [review.shown(browser, n)["points"][p]["own"] for p in range(4)]
        assert others == [False, True, False, False]
        assert browser.text("#progress") == "0 of 5 reviewed, 1 changed"
        # the mark lies there, too
        middle = browser.run(
            "const c = document.querySelector('#stage .point[data-part=\"1\"]').getBoundingClientRect();"
            "return [c.x + c.width / 2, c.y + c.height / 2]"
        )
        assert np.allclose(middle, (start[0] - 37, start[1] + 23), atol=1.2)


def test_a_finger_moves_a_point(browser: Browser, review: Review) -> None:
    review.open(browser, 0, width=390, height=800)
    before = review.keypoints.xy[0, 0]
    x, y = review.window(browser, 0, *before)
    x += 12  # a finger need not be on it
    for kind, points in (
        ("touchStart", [(x, y)]),
        ("touchMove", [(x + 20, y + 8)]),
        ("touchMove", [(x + 40, y + 16)]),
        ("touchEnd", []),
    ):
        browser.driver.execute_cdp_cmd(
            "Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": u, "y": v} for u, v in points]}
        )
    scale = review.box(browser)[2] / SIZES[0][0]
    assert np.allclose(review.place(browser, 0, 0), before + np.array([40, 16]) / scale, atol=1e-6)


def test_a_click_that_does_not_move_changes_nothing(browser: Browser, review: Review) -> None:
    review.open(browser, 0)
    for p in (0, 2):
        at = review.window(browser, 0, *review.keypoints.xy[0, p])
        browser.point_at(*at, click=True)
        assert browser.run("return document.querySelector('#parts .chosen bdi').textContent") == PARTS[p]
        assert browser.text("#label") == PARTS[p]
    width, height = SIZES[0]
    browser.point_at(*review.window(browser, 0, width / 2, height / 2), click=True)  # far from all
    assert browser.all("#parts .chosen") == []
    assert rows(browser.run("return model.csv()")) == [["image", "part", "x", "y", "visible", "score"]]
    assert not browser.one("#undo").is_enabled()


def test_keys_move_by_whole_pixels_and_not_out_of_the_picture(browser: Browser, review: Review) -> None:
    review.open(browser, 0)
    choose(browser, 1)
    x, y = review.keypoints.xy[0, 1]
    browser.press(RIGHT, RIGHT, UP)
    press_with(browser, SHIFT, DOWN)
    assert review.place(browser, 0, 1).tolist() == [x + 1 + 1, y - 1 + 10]  # exactly
    press_with(browser, SHIFT, *[RIGHT] * 12, *[UP] * 16)  # farther than the edges are
    assert review.place(browser, 0, 1).tolist() == [SIZES[0][0] - 0.5, -0.5]
    browser.press("u")  # one walk is one step back
    assert review.place(browser, 0, 1).tolist() == [x, y]
    assert not browser.one("#undo").is_enabled() and browser.text("#progress") == "0 of 5 reviewed, 0 changed"


def test_a_part_without_a_place_is_put_where_one_clicks(browser: Browser, review: Review) -> None:
    for n in (0, 1):  # as large as it is, and reduced
        review.open(browser, n)
        choose(browser, 3)
        browser.press("v")
        assert not review.shown(browser, n)["points"][3]["visible"]  # it has no place yet
        at = review.window(browser, n, *(np.array(SIZES[n]) * [0.5, 0.4]))
        browser.point_at(*at, click=True)
        left, top, width, height = review.box(browser)
        share = (at[0] - left) / width, (at[1] - top) / height
        assert np.allclose(review.place(browser, n, 3), np.array(share) * SIZES[n] - 0.5, atol=1e-6)
        assert review.shown(browser, n)["points"][3]["visible"]
        browser.press("u")
        assert review.shown(browser, n)["points"][3]["x"] is None


def test_parts_are_said_to_be_absent_or_visible_and_all_can_be_undone(browser: Browser, review: Review) -> None:
    review.open(browser, 0)

    def seen() -> list[bool]:
        return [point["visible"] for point in review.shown(browser, 0)["points"]]

    choose(browser, 0)
    browser.press("v")
    assert seen() == [False, True, False, False]
    assert (
        browser.run("return document.querySelectorAll('#stage line').length") == 0
    )  # the skeleton joins visible parts
    browser.all("#parts input")[2].click()
    assert seen() == [False, True, True, False]
    assert browser.all("#parts input")[2].is_selected() and not browser.all("#parts input")[0].is_selected()
    press_with(browser, CONTROL, "z")
    assert seen() == [False, True, False, False]
    browser.one("#undo").click()
    assert seen() == [True, True, False, False]
    at = review.window(browser, 0, *review.keypoints.xy[0, 2])
    drag(browser, at, (at[0] + 30, at[1]))  # what is moved is visible
    assert seen() == [True, True, True, False]


def test_images_follow_each_other_and_are_marked(browser: Browser, review: Review) -> None:
    browser.open(review.page)
    browser.all(".tile")[0].click()
    name = lambda: browser.text("#name")  # noqa: E731
    assert name() == NAMES[review.order[0]] and not browser.one("#previous").is_enabled()
    browser.press("n")
    browser.one("#next").click()
    assert name() == NAMES[review.order[2]]
    browser.press("p")
    assert name() == NAMES[review.order[1]]
    browser.press("r")
    browser.one("#done").click()
    assert name() == NAMES[review.order[3]] and browser.text("#progress") == "2 of 5 reviewed, 0 changed"
    browser.press("r", "r", "r")  # there is none after the last
    assert name() == NAMES[review.order[4]] and "last image" in browser.text("#said")
    assert not browser.one("#next").is_enabled() and browser.one("#reviewed").is_selected()
    browser.one("#reviewed").click()
    assert browser.text("#progress") == "3 of 5 reviewed, 0 changed"
    browser.press("u", "u", "u")
    assert name() == NAMES[review.order[3]] and not browser.one("#reviewed").is_selected()  # it goes where it undoes
    close(browser)
    assert browser.all("dialog[open]") == []
    states = browser.run("return [...document.querySelectorAll('.tile .state')].map(e => e.textContent)")
    assert states == ["", "✓ reviewed", "✓ reviewed", "", ""]
    assert browser.run("return document.activeElement.dataset.image") == "3"


# --- saving


def test_the_saved_file_holds_what_was_done_and_reads_back(browser: Browser, review: Review, tmp_path: Path) -> None:
    found = review.keypoints
    review.open(browser, 0)
    at = review.window(browser, 0, *found.xy[0, 1])
    drag(browser, at, (at[0] + 19, at[1] + 31))
    moved = review.place(browser, 0, 1)
    choose(browser, 0)
    close(browser, "v")
    for n in (2, 4):
        browser.all(".tile")[review.order.index(n)].click()
        close(browser, "r")
    file = saved(browser, tmp_path / "files")
    assert file.name == "corrections.csv"
    text = file.read_bytes().decode("utf-8")
    r = lambda value: None if np.isnan(value) else float(value)  # noqa: E731
    expected: list[tuple[str, str, float | None, float | None, str, float | None]] = [
        (NAMES[0], PARTS[0], None, None, "0", None),  # said to be absent: where it was found is no place
        (NAMES[0], PARTS[1], float(moved[0]), float(moved[1]), "1", None),
        (NAMES[0], PARTS[2], None, None, "0", r(found.score[0, 2])),  # nobody spoke of it
        (NAMES[0], PARTS[3], None, None, "0", None),
        (NAMES[2], PARTS[0], r(found.xy[2, 0, 0]), r(found.xy[2, 0, 1]), "1", None),
        (NAMES[2], PARTS[1], r(found.xy[2, 1, 0]), r(found.xy[2, 1, 1]), "1", None),
        (NAMES[2], PARTS[2], None, None, "0", None),
        (NAMES[2], PARTS[3], None, None, "0", None),
        (NAMES[4], PARTS[0], r(found.xy[4, 0, 0]), r(found.xy[4, 0, 1]), "1", None),
        (NAMES[4], PARTS[1], r(found.xy[4, 1, 0]), r(found.xy[4, 1, 1]), "1", None),
        (NAMES[4], PARTS[2], r(found.xy[4, 2, 0]), r(found.xy[4, 2, 1]), "0", None),  # hidden, and a person knows where
        (NAMES[4], PARTS[3], None, None, "0", None),
    ]
    header, *lines = rows(text)
    assert header == ["image", "part", "x", "y", "visible", "score"] and "\r" not in text
    cells = [
        (i, p, *(float(v) if v else None for v in (x, y)), seen, float(s) if s else None)
        for i, p, x, y, seen, s in lines
    ]
    assert cells == expected
    labels = read_labels(file)
    assert labels.skipped == () and labels.keypoints.parts == PARTS
    assert labels.keypoints.paths == (NAMES[0], NAMES[2], NAMES[4])
    got = labels.keypoints
    for k in range(12):
        n, p = divmod(k, 4)
        x, y, seen, score = expected[k][2:]
        assert (
            [r(v) for v in got.xy[n, p]] == [x, y]
            and got.visible[n, p] == (seen == "1")
            and r(got.score[n, p]) == score
        )
    assert browser.said() == []
    asked = [url for url in browser.requested() if not url.startswith(("data:", "blob:"))]
    assert asked == [review.page.as_uri()]


def test_a_browser_without_blobs_gets_the_file_as_well(browser: Browser, review: Review, tmp_path: Path) -> None:
    review.open(browser, 3)
    browser.press("r", ESCAPE)
    text = browser.run("return model.csv()")
    browser.run("URL.createObjectURL = () => { throw new Error('none'); }")
    file = saved(browser, tmp_path / "files")
    assert file.read_bytes().decode("utf-8") == text and len(rows(text)) == 5
    assert browser.said() == []


def test_leaving_with_unsaved_changes_is_warned_of(browser: Browser, review: Review, tmp_path: Path) -> None:
    def warned() -> bool:
        return bool(
            browser.run(
                "const e = new Event('beforeunload', {cancelable: true}); window.dispatchEvent(e); return e.defaultPrevented"
            )
        )

    review.open(browser, 0)
    assert not warned()
    choose(browser, 0)
    browser.press(RIGHT)
    assert warned() and browser.text("#unsaved") == "not saved yet"
    browser.press("u")
    assert not warned() and browser.text("#unsaved") == ""
    choose(browser, 0)
    browser.press(RIGHT, ESCAPE)
    saved(browser, tmp_path / "files")
    assert not warned() and browser.text("#unsaved") == "saved"
    browser.all(".tile")[review.order.index(0)].click()
    browser.press("u")
    assert warned() and not browser.one("#save").is_enabled()  # nothing is left to be saved


# --- windows and texts


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(390, 800, True), (320, 568, False), (1200, 900, True), (1900, 1000, False)]
)
def test_everything_fits_into_the_window(browser: Browser, review: Review, width: int, height: int, dark: bool) -> None:
    browser.open(review.page, width=width, height=height, dark=dark)
    for n in (0, 1):
        browser.all(".tile")[review.order.index(n)].click()
        choose(browser, 3)
        choose(browser, 1)
        browser.press(LEFT)
        inside = browser.run(
            "const inside = (e) => { const b = e.getBoundingClientRect(); return b.left >= -0.5 && b.top >= -0.5 && b.right <= innerWidth + 0.5"
            " && b.bottom <= innerHeight + 0.5; };"
            "return [...document.querySelectorAll('#stage, #bar, #buttons button, #loupe, #label, #parts .chosen')]"
            ".filter(e => !inside(e)).map(e => e.id)"
        )
        assert inside == []
        _, _, wide, tall = review.box(browser)
        assert wide / tall == pytest.approx(SIZES[n][0] / SIZES[n][1], rel=0.01) and wide > 0.4 * min(width, height)
        close(browser)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        paper = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(20, 23, 26)") == dark
    assert browser.said() == []


def test_the_glass_shows_what_is_at_the_point(browser: Browser, tmp_path: Path) -> None:
    picture = np.zeros((200, 300, 3), np.uint8)
    picture[80:100, 120:140] = (255, 0, 0)
    points = Keypoints(("a",), ("p",), np.array([[[129.5, 89.5]]]), np.array([[True]]), np.array([[0.5]]))
    page = tmp_path / "glass.html"
    page.write_text(review_page([picture], points, title="t"), encoding="utf-8")
    browser.open(page)
    browser.one(".tile").click()
    assert not browser.one("#loupe").is_displayed()
    choose(browser, 0)
    browser.press(RIGHT)
    assert browser.one("#loupe").is_displayed()
    read = "const c = document.getElementById('loupe'); return [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data]"
    assert browser.run(read)[0] > 200
    press_with(browser, SHIFT, RIGHT, RIGHT)
    assert browser.run(read)[0] < 60


def test_hostile_names_are_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    count = len(HOSTILE)
    rng = np.random.default_rng(3)
    points = Keypoints(
        tuple(HOSTILE),
        tuple(HOSTILE),
        rng.uniform(0, 9, (count, count, 2)),
        np.ones((count, count), bool),
        rng.random((count, count)),
    )
    page = tmp_path / "hostile.html"
    pictures = [np.zeros((10, 10, 3), np.uint8)] * count
    page.write_text(review_page(pictures, points, title=HOSTILE[7], note=HOSTILE[0]), encoding="utf-8")
    browser.open(page)
    browser.one(".tile").click()
    browser.press("r")
    clean = [name.encode("utf-8", "replace").decode() for name in HOSTILE]
    assert browser.run("return [...document.querySelectorAll('#parts bdi')].map(e => e.textContent)") == clean
    written = rows(browser.run("return model.csv()"))[1:]
    assert [row[1] for row in written] == clean and {row[0] for row in written} == {clean[review_order(points)[0]]}
    assert browser.said() == []
    assert [url for url in browser.requested() if not url.startswith("data:")] == [page.as_uri()]
