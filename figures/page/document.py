"""One HTML document from a template, with its style, its script and its data inside, and nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup


def html_document(
    template: str,
    *,
    title: str,
    styles: Sequence[str],
    script: str | Sequence[str] | None = None,
    data: object = None,
    **values: Any,
) -> str:
    """Render a template of this package that extends `document.html.j2`.

    Every text that a template inserts is escaped; characters that no encoding takes are replaced. With a script, the page's content
    security policy allows that script, these styles and images that are part of the page, and nothing else: no request ever leaves it.
    Without one it allows no script, and images may be files beside the page.

    Args:
        template: file name of the template. title: of the document, and `title` in the template.
        styles: file names of style sheets, in order. script: file name of the script, or of its parts in order.
        data: what the script finds as JSON in the element `data`; numbers must be finite.
        values: for the template.

    Returns:
        The document, the same text for the same arguments.
    """
    style = "".join(_packaged(name) for name in styles)
    if script is None:
        code, embedded = "", ""
        policy = "script-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'"
    else:
        code, embedded = "".join(map(_packaged, [script] if isinstance(script, str) else script)), script_json(data)
        policy = (
            f"default-src 'none'; script-src '{_digest(code)}'; style-src '{_digest(style)}'; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        )
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(
        title=title, policy=policy, style=Markup(style), script=Markup(code), data=Markup(embedded), **values
    )
    return page.encode("utf-8", "replace").decode("utf-8")


def script_json(data: object) -> str:
    """JSON that may stand in a script element: no letter in it can end the element, begin a comment or end a line, whatever the texts.

    Characters that no encoding takes (halves of surrogate pairs, from file names that are not UTF-8) are replaced.
    """
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text = text.encode("utf-8", "replace").decode("utf-8")
    for letter in "<>&\u2028\u2029":  # in JSON they stand in strings only
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _packaged(name: str) -> str:
    return resources.files("fewmatch.figures.page").joinpath(name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """A source expression of a content security policy that allows exactly this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
