"""Report pages: all text is escaped, figures are named relatively, nothing comes from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from fewmatch.figures.page.report import Section, report_page


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, Any]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "link", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "the elements are nested"

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)


def attributes(page: Page, tag: str, name: str) -> list[Any]:
    return [found[name] for element, found in page.elements if element == tag]


HOSTILE = "<script>alert('x')</script> & \"quotes\" </pre> {{ 7 * 7 }} \udc80"


def test_everything_is_there_in_order() -> None:
    sections = [
        Section("First", "Words.", [("fewmatch match a b", "199 matches\n  two lines"), ("fewmatch again", "")]),
        Section(
            "Second",
            figures=[("results/a b#1.png", "A figure"), ("results/c.png", "Another")],
            pages=[("results/d e?.html", "A page")],
        ),
    ]
    page = Page(report_page("Title", "Hello.", sections))
    assert page.text["title"] == page.text["h1"] == ["Title"]
    assert page.text["h2"] == ["First", "Second"]
    assert page.text["b"] == ["$ fewmatch match a b", "$ fewmatch again"]
    assert "199 matches\n  two lines" in "".join(page.text["pre"])
    assert attributes(page, "img", "src") == ["results/a%20b%231.png", "results/c.png"]
    assert attributes(page, "img", "alt") == page.text["figcaption"] == ["A figure", "Another"]
    inner = [link for link in attributes(page, "a", "href") if link.startswith("#")]
    assert [link[1:] for link in inner] == attributes(page, "h2", "id")
    assert "results/d%20e%3F.html" in attributes(page, "a", "href") and "A page" in page.text["a"]


def test_text_never_becomes_markup() -> None:
    section = Section(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)], [(HOSTILE, HOSTILE)], [(HOSTILE, HOSTILE)])
    text = report_page(HOSTILE, HOSTILE, [section])
    page = Page(text)
    plain = Page(report_page("t", "t", [Section("t", "t", [("t", "t")], [("t", "t")], [("t", "t")])]))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    shown = HOSTILE.replace("\udc80", "?")
    assert page.text["h1"] == [shown]
    assert attributes(page, "img", "alt") == [shown]
    text.encode("utf-8")


def test_nothing_comes_from_elsewhere() -> None:
    text = report_page("t", "i", [Section("s", figures=[("results/a.png", "a")])])
    assert not re.search("https?:|//", text)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in Page(text).elements}


@pytest.mark.parametrize("sections", [[], [Section("only a title")]])
def test_an_empty_report_is_a_page(sections: list[Section]) -> None:
    assert Page(report_page("t", "i", sections)).text.get("h2", []) == [section.title for section in sections]
