"""The snippets of docs/, which tests run."""

import importlib
import re
import shlex
from pathlib import Path

PAGES = Path(__file__).parents[1] / "docs" / "adding"
FENCE = re.compile(r"^```(\w*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(page: str) -> list[tuple[str, str, str]]:
    """Language, name and text of each, in order."""
    return FENCE.findall((PAGES / f"{page}.md").read_text())


def snippet(page: str, name: str) -> str:
    """The text of the one that is called so."""
    (text,) = (text for _, given, text in snippets(page) if given == name)
    return text


def command_of(line: str) -> int:
    """Run a command line of ours in this process; its exit code."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"] and words[2].startswith("orchestrator.")
    package = importlib.import_module(words[2])
    main = importlib.import_module(f"{words[2]}.__main__").main if hasattr(package, "__path__") else package.main
    try:
        return main(words[3:])
    except SystemExit as end:  # --help
        return int(end.code or 0)
