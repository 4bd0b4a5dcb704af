"""HTML by construction: text is escaped unless it is an ``Html`` that these functions made."""

import html
from collections.abc import Iterable, Mapping


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
