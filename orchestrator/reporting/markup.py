"""HTML by construction: text is escaped unless it is an ``Html`` that these functions made."""

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping
from pathlib import Path


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def element(name: str, attributes: Mapping[str, str | float] | None = None, *children: str) -> Html:
    """One element; children that are no ``Html`` are text and are escaped, as is every attribute value."""
    given = "".join(f' {key}="{html.escape(str(value))}"' for key, value in (attributes or {}).items())
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str]) -> Html:
    """Parts side by side, text escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts))


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Html:
    """A table; cells are text or ``Html``."""
    head = element("tr", None, *(element("th", None, cell) for cell in header))
    body = (element("tr", None, *(element("td", None, cell) for cell in row)) for row in rows)
    return element("table", None, element("thead", None, head), element("tbody", None, *body))


def document(title: str, *body: str, with_script: bool = False) -> str:
    """A whole page that loads nothing from anywhere, and runs nothing but our own script, whatever stands in it.

    Args:
        with_script: For what has filters, or shows a picture twice.
    """
    script = Html(_SCRIPT.read_text(encoding="utf-8")) if with_script else Html("")
    # A browser runs the script with this digest and no other; a stray one has none.
    allowed = f"script-src 'sha256-{_digest(script)}'; " if with_script else ""
    told = f"default-src 'none'; {allowed}img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    policy = Html(f'<meta http-equiv="Content-Security-Policy" content="{told}">')
    style = element("style", None, Html(_STYLE.read_text(encoding="utf-8")))
    head = element("head", None, _HEAD, policy, element("title", None, title), style)
    run = [element("script", None, script)] if with_script else []
    page = element("html", {"lang": "en"}, head, element("body", None, *body, *run))
    return f"<!doctype html>\n{page}\n"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_HEAD = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
_STYLE, _SCRIPT = (Path(__file__).with_name(name) for name in ("page.css", "page.js"))
