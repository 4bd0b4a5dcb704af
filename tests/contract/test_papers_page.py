"""docs/papers.md has a row for mathematics that is there."""

import importlib
import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def test_every_function_that_it_names_exists() -> None:
    cells = [
        line.split("|")[1]
        for line in (_ROOT / "docs" / "papers.md").read_text().splitlines()
        if line.startswith("| `") and "remote_rm" not in line
    ]
    named = [pair for cell in cells for pair in re.findall(r"`([a-z_]+)\.([a-z_]+)`", cell)]
    assert len(named) > 20
    missing = [pair for pair in named if not hasattr(importlib.import_module(f"algorithms.maths.{pair[0]}"), pair[1])]
    assert missing == []
