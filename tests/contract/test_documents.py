"""What README and the pages of docs/, examples/ and deploy/ tell people to type is understood; some of it also run."""

import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator import evaluate, judge
from orchestrator.config import load_config
from orchestrator.config.load import load_runs
from orchestrator.config.options import option_names
from orchestrator.evaluation.kits import run as kits
from orchestrator.tasks.digits_model import build_digits_model
from tests.pages import FENCE, command_of

_ROOT = Path(__file__).parents[2]
_PAGES = sorted(
    [_ROOT / "README.md", *(_ROOT / "docs").glob("*.md")]
    + [file for folder in ("examples", "deploy") for file in (_ROOT / folder).rglob("README.md")]
)
_RUNNING = ("start", "cluster")
"""Pages of docs/ whose commands run as they stand."""
_OWN = {"run.dir": "DIR", "data.path": "DATA", "model.path": "MODEL", "reward.functions": "exact"}
"""What a snippet that is part of a command says nothing of."""


def _blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    yield from FENCE.findall(page.read_text())


def _commands(page: Path) -> Iterator[list[str]]:
    """The words behind ``python -m MODULE`` of every command line, and that module first."""
    for language, _, text in _blocks(page):
        if language not in ("", "sh"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|-- |^\S*/)python -m (orchestrator\.\S+.*)", line):
                yield shlex.split(found[1], comments=True)


def _train(words: list[str]) -> None:
    # An algorithm of the reader's is in a file that the page shows, which test_own_task runs.
    algo = words[words.index("--algo") + 1] if "--algo" in words else ""
    load_runs([*words, "--algo", "grpo"] if ".py:" in algo else words)


def _evaluate(words: list[str]) -> None:
    if "--kit" in words:
        kits.parsed(words)
        return
    _, rest = evaluate.parsed(words)
    load_config(["--algo", "sft", *rest])


def _judge(words: list[str]) -> None:
    _, rest = judge.parsed(words)
    load_config(["--algo", "sft", *rest])


_PARSERS: dict[str, Callable[[list[str]], None]] = {
    "orchestrator.train": _train,
    "orchestrator.evaluate": _evaluate,
    "orchestrator.judge": _judge,
}


@pytest.mark.parametrize(
    "page", [page for page in _PAGES if page.stem not in _RUNNING], ids=lambda page: str(page.relative_to(_ROOT))
)
def test_every_command_is_one_that_would_be_understood(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_ROOT)
    for module, *words in _commands(page):
        importlib.import_module(module)
        missing = [word for word in words if word.endswith(".toml") and not Path(word).exists()]
        if parse := _PARSERS.get(module):
            parse([word for word in words if word not in missing])


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_option_that_it_names_exists(page: Path) -> None:
    sections = {name.partition(".")[0] for name in option_names() if "." in name}
    option = rf"(?:`|--)((?:{'|'.join(sections)})\.[a-z_.]*[a-z_])(?=[`\s=])"
    named = set(re.findall(option, page.read_text()))
    theirs = set(re.findall(r"^\| ([^|]*)\|", page.read_text(), re.MULTILINE)) if page.stem == "coming_from" else set()
    unknown = {name for name in named - set(option_names()) if not any(name in cell for cell in theirs)}
    assert {name for name in unknown if not _is_file_or_section(name)} == set()


def _is_file_or_section(name: str) -> bool:
    known = option_names()
    return name.endswith((".py", ".json", ".jsonl", ".toml", ".yaml", ".md", ".parquet")) or any(
        option.startswith(f"{name}.") for option in known
    )


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_every_file_that_it_shows_can_be_read(page: Path) -> None:
    for language, name, text in _blocks(page):
        if language == "toml":
            tomllib.loads(text)
        elif language == "json":
            json.loads(text)
        elif language == "jsonl":
            [json.loads(line) for line in text.splitlines()]
        elif language == "python":
            compile(text, name or "snippet", "exec")


@pytest.mark.parametrize("page", _RUNNING)
def test_its_commands_run_as_they_stand(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("examples").symlink_to(_ROOT / "examples")
    build_digits_model(Path("MODEL"), seed=0)
    Path("rows.jsonl").write_text('{"prompt": "3 + 4", "answer": "7"}\n')
    blocks = list(_blocks(_ROOT / "docs" / f"{page}.md"))
    for _, name, text in blocks:
        if "." in name:
            Path(name).write_text(text)
    for language, _, text in blocks:
        for line in text.splitlines() if language == "sh" else ():
            assert command_of(line) == 0, (line, capsys.readouterr().err)
    told = capsys.readouterr().out
    expected = {"start": ("3 + 4", "16 completions"), "cluster": (" of 80 GiB, fits",)}
    assert all(word in told for word in expected[page]), told
    assert not Path("runs").exists()


def test_a_run_of_a_frameworks_table_is_one_of_ours() -> None:
    rows = re.findall(r"^\| [^|]+\| ([^|]*)\|[^|]*\|$", (_ROOT / "docs" / "coming_from.md").read_text(), re.MULTILINE)
    flags = {flag for cell in rows for flag in re.findall(r"--([a-z_.]+)", cell)}
    known = {*option_names(), "benchmark", "config", "algo", "profile"}
    assert flags - known == set()
    assert len(flags) > 50
