"""Modules and function bodies stay small enough to read in one go."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("algorithms", "workers", "orchestrator", "remote_rm")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_MODULE_LINES = 300
MAX_BODY_LINES = 60
NAMES_THAT_EXPLAIN_NOTHING = {"utils", "util", "helpers", "common", "misc"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, its docstring not counted."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not statements:
        return 0
    last = statements[-1]
    return (last.end_lineno or last.lineno) - statements[0].lineno + 1


def _long_functions(source: str) -> dict[str, int]:
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return {f.name: lines for f in functions if (lines := _body_lines(f)) > MAX_BODY_LINES}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_module_has_at_most_300_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_function_bodies_have_at_most_60_lines(path: Path) -> None:
    assert _long_functions(path.read_text()) == {}


def test_the_measure_counts_the_body_and_not_the_docstring() -> None:
    body = "\n".join(f"    x = {n}" for n in range(MAX_BODY_LINES))
    documented = 'def f():\n    """One.\n\n    Two.\n    """\n' + body
    assert _long_functions(documented) == {}
    assert _long_functions(documented + "\n    x = 0") == {"f": MAX_BODY_LINES + 1}


def test_no_module_has_a_name_that_fits_everything() -> None:
    assert [_name(path) for path in MODULES if path.stem in NAMES_THAT_EXPLAIN_NOTHING] == []
