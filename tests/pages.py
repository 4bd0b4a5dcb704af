"""The snippets of docs/adding/, which tests run."""

import re
from pathlib import Path

PAGES = Path(__file__).parents[1] / "docs" / "adding"
_FENCE = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: str) -> list[tuple[str, str, str]]:
    """Language, name and text of each, in order."""
    return _FENCE.findall((PAGES / f"{page}.md").read_text())


def snippet(page: str, name: str) -> str:
    """The text of the one that is called so."""
    (text,) = (text for _, given, text in snippets(page) if given == name)
    return text
