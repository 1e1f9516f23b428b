"""A page that shows commands, what they printed, and the figures they drew."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from urllib.parse import quote

import jinja2


@dataclass(frozen=True)
class Section:
    """One step of a report.

    title: its heading. text: a few words for people. commands: (command line, what it printed), in the order they ran.
    figures: (path relative to the page, description), in the order shown.
    """

    title: str
    text: str = ""
    commands: list[tuple[str, str]] = field(default_factory=list)
    figures: list[tuple[str, str]] = field(default_factory=list)


def report_page(title: str, introduction: str, sections: Sequence[Section]) -> str:
    """One HTML document: no scripts, nothing from elsewhere but the figures, which it names by relative path.

    Every text is escaped; characters that no encoding takes are replaced.
    """
    source = resources.files("figures.page").joinpath("report.html.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["link"] = lambda path: quote(os.fsencode(path))  # file names need not be UTF-8
    page = environment.from_string(source).render(title=title, introduction=introduction, sections=sections)
    return page.encode("utf-8", "replace").decode("utf-8")
