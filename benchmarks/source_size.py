"""What the source consists of, at any commit: lines of code, docstrings, comments, imports and blank ones.

PYTHONPATH=. python benchmarks/source_size.py COMMIT...
"""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter

_PACKAGES = ("orchestrator", "workers", "algorithms", "remote_rm")


def main() -> None:
    """Print one table row for each commit."""
    print("| commit | files | lines | code | docstrings | comments | imports | blank |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for commit in sys.argv[1:]:
        files = [f for f in _git("ls-tree", "-r", "--name-only", commit, "--", *_PACKAGES).split() if f.endswith(".py")]
        kinds = sum((_kinds(_git("show", f"{commit}:{file}")) for file in files), Counter[str]())
        told = (kinds[name] for name in ("code", "docstring", "comment", "import", "blank"))
        print("|", " | ".join(map(str, (commit, len(files), kinds.total(), *told))), "|")  # noqa: T201


def _kinds(source: str) -> Counter[str]:
    kinds = ["blank" if not line.strip() else "code" for line in source.splitlines()]
    for node in ast.walk(ast.parse(source)):
        is_text = (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        )
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            name = "docstring" if is_text else "import"
            kinds[node.lineno - 1 : node.end_lineno] = [name] * ((node.end_lineno or 0) - node.lineno + 1)  # type: ignore[attr-defined]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            kinds[token.start[0] - 1] = "comment"
    return Counter(kinds)


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    main()
