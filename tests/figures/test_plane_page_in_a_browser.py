"""What the page of an episode does in a real browser: pointer, touch, keyboard, settings, windows of any size, and no request."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser

from fewmatch.fewshot.plane import episode_planes
from fewmatch.figures.notable import explain

sys.path.insert(0, str(Path(__file__).parent))
from episode_pages import CLEAN, HOSTILE, Episode, digits, embedded, hostile, make

#: Functions for scripts that ask for much at once: each question of its own is a way to the browser and back.
PANEL = """const all = (selector) => [...document.querySelectorAll(selector)], text = (e) => e.textContent;
        const panel = () => ({
          name: text(document.getElementById('name')),
          verdict: text(document.getElementById('verdict')),
          picture: document.getElementById('picture').getAttribute('src'),
          numbers: Object.fromEntries(all('#numbers tbody tr').map((r) => [text(r.children[0]), [text(r.children[2]), text(r.children[3])]])),
          bold: all('#numbers .given th').map(text),
        });
        const places = () => all('.point').filter(p => p.style.display !== 'none').map(p => {
          const m = new DOMMatrix(getComputedStyle(p).transform), b = document.getElementById('plot').getBoundingClientRect();
          return [Number(p.dataset.image), b.x + 1 + m.e, b.y + 1 + m.f];
        });"""


def panel(browser: Browser) -> dict[str, Any]:
    """What the panel says; `numbers` are probability and squared distance by class, `bold` the classes in bold."""
    shown: dict[str, Any] = browser.run(PANEL + "return panel()")
    return shown


def focus(browser: Browser, image: int) -> None:
    browser.run("document.querySelector(`[data-image='${arguments[0]}']`).focus()", image)


def expected_numbers(made: Episode, setting: tuple[int, str], image: Mapping[str, Any]) -> dict[str, list[str]]:
    plane, at = made.plane(*setting), (image["way"], image["number"])
    if image["role"] == "support":
        chances, distances = plane.support_probabilities[at], plane.support_distances[at]
    else:
        chances, distances = plane.probabilities[at], plane.distances[at]
    pairs = zip(digits(chances), digits(distances), strict=True)
    return dict(zip(made.names, (list(pair) for pair in pairs), strict=True))


def centres(browser: Browser) -> dict[int, tuple[float, float]]:
    """Where the images are, in pixels of the window, by their number."""
    return {int(i): (x, y) for i, x, y in browser.run(PANEL + "return places()")}


def choose(browser: Browser, shots: int, center: str) -> None:
    browser.one(f"#settings input[value='{shots} {center}']").find_element("xpath", "..").click()


@pytest.fixture(scope="module")
def made() -> Episode:
    return make(seed=11, ways=4)


@pytest.fixture(scope="module")
def page(made: Episode, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("page") / "episode & <plane> #1 é.html")


def test_pointing_at_an_image_shows_it(browser: Browser, made: Episode, page: Path) -> None:
    browser.open(page)
    images = embedded(page.read_text())["images"]
    places = centres(browser)
    assert len(places) == len(images) == 44
    assert browser.one("#hint").is_displayed() and not browser.one("#card").is_displayed()
    given = made.plane(5, "support").predicted
    kinds = browser.run(
        "return Object.fromEntries([...document.querySelectorAll('.point')].map(p => [p.dataset.image, p.dataset.kind]))"
    )
    seen = {"support": 0, "right": 0, "wrong": 0}
    for i, place in places.items():
        image, near = images[i], min(np.hypot(*np.subtract(place, other)) for j, other in places.items() if j != i)
        own = image["way"]
        if image["role"] == "support":
            kind, words = "support", f"support of class {own}"
        elif given[own, image["number"]] == own:
            kind, words = "right", f"query of class {own}✔ right"
        else:
            kind, words = "wrong", f"query of class {own}✘ taken for class {given[own, image['number']]}"
        assert kinds[str(i)] == kind
        if near < 4 or seen[kind] == 3:  # the pointer takes whole pixels
            continue
        browser.point_at(*place)
        shown = panel(browser)
        assert (shown["name"], shown["verdict"], shown["picture"]) == (image["name"], words, image["picture"])
        assert shown["numbers"] == expected_numbers(made, (5, "support"), image)
        assert shown["bold"] == ([] if kind == "support" else [f"class {given[own, image['number']]}"])
        seen[kind] += 1
    assert min(seen.values()) > 1
    assert browser.run("return document.getElementById('picture').naturalWidth") > 0
    assert browser.said() == []
    asked = browser.requested()
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]


def test_bars_are_as_long_as_probabilities(browser: Browser, made: Episode, page: Path) -> None:
    browser.open(page)
    browser.run("document.querySelector('[data-kind=wrong]').focus()")
    image = embedded(page.read_text())["images"][
        int(browser.one("[data-kind=wrong]:focus").get_attribute("data-image"))
    ]
    widths = browser.run(
        "return [...document.querySelectorAll('.bar')].map(b => b.firstChild.getBoundingClientRect().width / b.getBoundingClientRect().width)"
    )
    assert np.allclose(widths, made.plane(5, "support").probabilities[image["way"], image["number"]], atol=0.01)


def test_every_setting_shows_its_own_result(browser: Browser, made: Episode, page: Path) -> None:
    browser.open(page)
    images = embedded(page.read_text())["images"]
    query = next(i for i, image in enumerate(images) if image["role"] == "query")
    seen = set()
    for shots in (1, 2, 3, 5):
        for center in ("none", "support", "support+query", "separate", "feature"):
            plane = made.plane(shots, center)
            right = int(plane.right.sum())
            page_says = browser.run(
                PANEL
                + """const [setting, images] = arguments;
                all('#settings input').find(e => e.value === setting).click();
                return {score: text(all('#score')[0]), words: text(all('#words')[0]), tallies: all('#classes li').map(text),
                  checked: text(all('#settings label:has(:checked)')[0]), places: places(),
                  panels: images.map(i => { all(`[data-image='${i}']`)[0].focus(); return panel(); })};""",
                *(f"{shots} {center}", [shots - 1, query]),
            )
            assert page_says["score"] == f"{right} of 24 queries right."
            assert page_says["score"] + " " + page_says["words"] == explain(plane)
            assert page_says["checked"] == str(right)
            assert page_says["tallies"] == [
                f"class {w} {count} of 6" for w, count in enumerate(plane.right.sum(axis=1))
            ]
            for i, shown in zip((shots - 1, query), page_says["panels"], strict=True):
                assert shown["name"] == images[i]["name"]
                assert shown["numbers"] == expected_numbers(made, (shots, center), images[i])
            seen.add(str(shown["numbers"]))
            # One scale, no turn, no mirror: the plot is the plane moved and enlarged, upside up.
            places = {i: (x, y) for i, x, y in page_says["places"]}
            assert len(places) == 4 * (shots + 6)
            numbers = [i for i in places if images[i]["role"] == "query"]
            drawn = np.array([places[i] for i in numbers]) * [1, -1]
            true = np.array([plane.query[images[i]["way"], images[i]["number"]] for i in numbers])
            drawn, true = drawn - drawn.mean(axis=0), true - true.mean(axis=0)
            scale = (drawn * true).sum() / (true**2).sum()
            assert scale > 0 and np.abs(drawn - scale * true).max() < 0.3
    assert len(seen) == 20
    assert browser.said() == []


def test_a_shown_support_that_falls_away_is_cleared(browser: Browser, page: Path) -> None:
    browser.open(page)
    focus(browser, 4)
    assert browser.one("#card").is_displayed()
    choose(browser, 1, "none")
    assert not browser.one("#card").is_displayed()
    focus(browser, 0)
    choose(browser, 2, "none")
    assert browser.text("#name") == embedded(page.read_text())["images"][0]["name"]


def test_all_of_it_works_from_the_keyboard(browser: Browser, made: Episode, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    names = [image["name"] for image in embedded(page.read_text())["images"]]
    browser.press(Keys.TAB)
    assert browser.text("#name") == names[0] and browser.one("#card").is_displayed()
    # What is shown after each key, noted by the page itself.
    browser.run(
        "window.walked = []; addEventListener('keydown', () => walked.push(document.getElementById('name').textContent))"
    )
    browser.press(*[Keys.ARROW_RIGHT] * len(names))
    assert browser.run("return walked") == [*names[1:], names[0]]
    for key, name in (
        (Keys.ARROW_LEFT, names[-1]),
        (Keys.ARROW_DOWN, names[0]),
        (Keys.END, names[-1]),
        (Keys.ARROW_UP, names[-2]),
        (Keys.HOME, names[0]),
    ):
        browser.press(key)
        assert browser.text("#name") == name
    assert "Support of class 0" in browser.run("return document.activeElement.getAttribute('aria-label')")
    browser.press(Keys.ESCAPE)
    assert not browser.one("#card").is_displayed() and browser.one("#hint").is_displayed()
    browser.press(Keys.ARROW_RIGHT)
    assert browser.text("#name") == names[1]
    # One stop for all images, one for the pictures, one for the table.
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.id") == "pictures"
    browser.press(Keys.TAB)
    assert browser.run("return document.activeElement.value") == "5 support"
    for key, value in (
        (Keys.ARROW_UP, "5 none"),
        (Keys.ARROW_UP, "5 none"),  # there is nothing above
        (Keys.ARROW_LEFT, "3 none"),
        (Keys.ARROW_DOWN, "3 support"),
    ):
        browser.press(key)
        assert browser.run("return document.activeElement.value") == value
    assert browser.text("#score") == f"{int(made.plane(3, 'support').right.sum())} of 24 queries right."
    assert browser.said() == []


def test_a_touch_shows_and_clears(browser: Browser, page: Path) -> None:
    browser.open(page, 400, 800)
    browser.run("scrollTo(0, 0)")
    place = centres(browser)[20]
    browser.touch(*place)
    assert browser.one("#card").is_displayed()
    found = browser.run("return document.activeElement.getAttribute('data-image')")
    assert found is not None
    box = browser.run("const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y]")
    corner = [box[0] + 4, box[1] + 4]
    assert min(np.hypot(*np.subtract(corner, other)) for other in centres(browser).values()) > 30
    browser.touch(*corner)
    assert not browser.one("#card").is_displayed()


def test_a_click_away_from_all_images_clears(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.point_at(*centres(browser)[30], click=True)
    assert browser.one("#card").is_displayed()
    assert browser.run("return document.activeElement.classList.contains('point')")
    browser.point_at(40, 250)
    assert browser.one("#card").is_displayed(), "leaving an image keeps it, so that one can read"
    box = browser.run("const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y]")
    browser.point_at(box[0] + 3, box[1] + 3, click=True)
    assert not browser.one("#card").is_displayed()


def test_pictures_can_take_the_place_of_marks(browser: Browser, page: Path) -> None:
    browser.open(page)
    count = "return document.querySelectorAll(arguments[0]).length"
    assert browser.run(count, ".point image") == 0 and browser.run(count, ".point .mark") == 44
    browser.one("#pictures").click()
    assert browser.run(count, ".point image") == 44 and browser.run(count, ".point .mark") == 0
    wrong = int(browser.run(count, "[data-kind=wrong]"))
    assert browser.run(count, ".picture.wrong") == wrong > 0
    choose(browser, 1, "none")
    assert browser.run(count, ".point[data-image='0'] image") == 1
    browser.one("#pictures").click()
    assert browser.run(count, ".point[data-image='0'] image") == 0
    assert browser.said() == []


@pytest.mark.parametrize(
    ("width", "height", "dark"), [(360, 640, True), (400, 800, False), (899, 700, True), (1200, 900, False)]
)
def test_it_fits_any_window(browser: Browser, page: Path, width: int, height: int, dark: bool) -> None:
    browser.open(page, width, height, dark)
    browser.run("document.querySelector('[data-kind=wrong]').focus()")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    plot = browser.run(
        "const b = document.getElementById('plot').getBoundingClientRect(); return [b.x, b.y, b.right, b.bottom]"
    )
    for x, y in centres(browser).values():
        assert plot[0] + 20 < x < plot[2] - 20 and plot[1] + 20 < y < plot[3] - 20
    paper = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", paper))) < 60) == dark


def test_it_follows_the_window(browser: Browser, page: Path) -> None:
    browser.open(page)
    before = centres(browser)
    metrics = {"width": 500, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    after = centres(browser)
    assert max(x for x, _ in after.values()) < 480 < max(x for x, _ in before.values())


def test_hostile_names_are_only_text(browser: Browser, tmp_path: Path) -> None:
    made = hostile()
    browser.open(made.write(tmp_path / "hostile.html"))
    told = browser.run("return [...document.querySelectorAll('#classes bdi')].map(l => l.textContent)")
    assert told == CLEAN
    for i in range(len(HOSTILE)):
        focus(browser, i)
        assert browser.text("#name") == CLEAN[i]
    assert browser.run("return document.querySelectorAll('script').length") == 2
    assert browser.run("return document.querySelectorAll('#classes img, #name img, b').length") == 0
    assert browser.said() == []


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


def test_settings_that_are_not_possible_are_disabled(browser: Browser, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    made = make(ways=2, shots=3)
    made.x[made.drawn.support[0, 1, 0]] = made.x[made.drawn.support[0, 0, 0]]
    made.planes = episode_planes(made.x, made.labels, made.drawn, shots=[1, 3], centers=["none", "support", "feature"])
    browser.open(made.write(tmp_path / "disabled.html"))
    radio = browser.one("#settings input[value='1 support']")
    assert not radio.is_enabled() and browser.one("#settings input[value='1 none']").is_enabled()
    label = radio.find_element("xpath", "..")
    assert "is zero, so it has no direction" in label.get_attribute("title") and label.text == "–"
    browser.run("document.querySelector(\"#settings input[value='1 none']\").focus()")
    browser.press(Keys.ARROW_DOWN)  # over the one that is disabled
    assert browser.run("return document.activeElement.value") == "1 feature"


def test_features_without_pictures_are_shown_too(browser: Browser, tmp_path: Path) -> None:
    made = make(ways=3, pictures=False)
    browser.open(made.write(tmp_path / "bare.html"))
    browser.run("document.querySelector('.point').focus()")
    assert browser.one("#no-picture").is_displayed() and not browser.one("#picture").is_displayed()
    assert not browser.one("#as-pictures").is_displayed()
    assert panel(browser)["numbers"] == expected_numbers(made, (5, "support"), embedded(made.page)["images"][0])
    assert browser.said() == []


@pytest.mark.parametrize("kind", ["coinciding", "one query"])
def test_degenerate_episodes_are_drawn(browser: Browser, tmp_path: Path, kind: str) -> None:
    made = make(ways=3, shots=2, queries=1)
    if kind == "coinciding":
        made.x = np.tile(np.arange(1.0, 5), (len(made.labels), 1))
    made.planes, made.start = {(2, "none"): made.plane(2, "none")}, (2, "none")
    browser.open(made.write(tmp_path / "odd.html"))
    assert ("coincide" in browser.text("#words")) == (kind == "coinciding")
    assert len(centres(browser)) == 9 and np.isfinite(list(centres(browser).values())).all()
    assert browser.said() == []
