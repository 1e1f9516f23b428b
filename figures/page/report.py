"""A page that shows commands, what they printed, and the figures they drew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from fewmatch.figures.page.document import html_document


@dataclass(frozen=True)
class Section:
    """One step of a report.

    title: its heading. text: a few words for people. commands: (command line, what it printed), in the order they ran.
    pages: (path relative to the page, what to call the link), other pages. figures: (path relative to the page, description), in the
    order shown.
    """

    title: str
    text: str = ""
    commands: list[tuple[str, str]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)
    pages: list[tuple[str, str]] = field(default_factory=list)


def report_page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """One HTML document: no scripts, nothing from elsewhere but the figures, which it names by relative path.

    Every text is escaped; characters that no encoding takes are replaced.
    """
    return html_document(
        "report.html.j2",
        title=title,
        styles=["document.css", "report.css"],
        introduction=introduction,
        sections=sections,
        link=lambda path: quote(os.fsencode(path)),  # file names need not be UTF-8
    )
