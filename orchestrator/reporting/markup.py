"""HTML by construction: text is escaped unless it is an ``Html`` that these functions made. And the style sheet."""

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


def document(title: str, *body: str) -> str:
    """A whole page that loads nothing from anywhere and runs nothing, whatever stands in it."""
    head = join([_HEAD, _POLICY, element("title", None, title), element("style", None, Html(STYLE))])
    page = element("html", {"lang": "en"}, element("head", None, head), element("body", None, *body))
    return f"<!doctype html>\n{page}\n"


_HEAD = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
_POLICY = Html(
    '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
    "style-src 'unsafe-inline'\">"
)
STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fff; --card: #f5f7fa; --rule: #dde3ea;
  --c0: #1f6fd6; --c1: #d9730d; --c2: #0f8f7e; --c3: #8a4fd3; --c4: #b8336a; --c5: #7a7f2c;
  --good: #0f7a4d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #12161c; --card: #1b212a;
  --rule: #2c3541; --c0: #6aa8ff; --c1: #ffa657; --c2: #4fd1bd; --c3: #b694ff; --c4: #ff8ab5; --c5: #c9cf6a;
  --good: #56d39a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0; } h2 { font-size: 18px; margin: 36px 0 12px; } h3 { font-size: 15px; }
.headline { font-size: 26px; font-weight: 600; margin: 12px 0; }
.note { color: var(--soft); font-size: 13px; margin: 4px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; vertical-align: top; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 500; }
.yes, .right { color: var(--good); font-weight: 600; } .no, .wrong { color: var(--bad); font-weight: 600; }
.unknown { color: var(--soft); }
.curves, .samples { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 16px; }
figure, article { margin: 0; padding: 14px; background: var(--card); border-radius: 8px; min-width: 0; }
figcaption { font-weight: 600; } svg { display: block; width: 100%; height: auto; }
.legend { margin: 2px 0 6px; font-size: 13px; color: var(--soft); }
.entry { display: inline-block; margin-right: 14px; }
.mark { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 5px; }
.mark.bound { height: 0; border-top: 2px dashed var(--soft); border-radius: 0; vertical-align: middle; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); }
.c3 { --c: var(--c3); } .c4 { --c: var(--c4); } .c5 { --c: var(--c5); }
.mark, .piece { background: var(--c); } .line { fill: none; stroke: var(--c); stroke-width: 1.8; }
.dot, .area { fill: var(--c); } .area { opacity: 0.85; } .grid { stroke: var(--rule); }
line.bound { stroke: var(--soft); stroke-dasharray: 5 4; } .tick { fill: var(--soft); font-size: 11px; }
.bar { display: flex; height: 22px; border-radius: 6px; overflow: hidden; }
.pictures { display: flex; gap: 8px; flex-wrap: wrap; } .pictures img { max-width: 100%; min-width: 56px; }
.missing { color: var(--bad); font-size: 13px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.45 ui-monospace, monospace; margin: 8px 0; }
pre.prompt { color: var(--soft); } .figures { margin: 4px 0; font-size: 13px; }
details { margin: 8px 0; } summary { cursor: pointer; }
"""
