"""What nothing is learned from is counted with the reason and the first row, and refused where it is too much."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import load_config
from orchestrator.data.counted import Counted
from orchestrator.data.learnable import look
from orchestrator.data.rows import BadRow
from orchestrator.data.stores import OfflineData, open_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from orchestrator.training.offline import looked_through
from tests.unit.algorithms.asks import learner
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import feedback, labelled, plain, rated, records
from tests.user_files import write_llava

_LONG = "many words " * 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


def _open(tmp_path: Path, model: Path, algo: str, reader: str, rows: list[Any], *flags: str) -> OfflineData:
    file = write_jsonl(tmp_path / "d.jsonl", *rows)
    folder = tmp_path / f"run-{algo}-{'-'.join(flags)}"
    folder.mkdir()
    config, _ = load_config(
        ["--algo", algo, "--model.path", str(model), "--data.path", str(file), "--data.format", reader, *flags]
    )
    return looked_through(config, open_data(config, RunFolder(folder)))


_EIGHT = [plain(prompt=f"{i} ?" if i in (1, 4) else f"{i} {_LONG}?") for i in range(8)]
_SHORT = ("--data.max_prompt_tokens", "100")


@pytest.mark.parametrize("mode", ["worker", "precomputed"])
def test_pairs_that_are_too_long_are_refused_with_their_count(tmp_path: Path, model: Path, mode: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        _open(tmp_path, model, "dpo", "plain_dpo", _EIGHT, *_SHORT, "--reference.mode", mode)
    told = str(refused.value)
    assert "has 6 bad rows out of 8, data.max_bad_frac = 0 allows 0; the first is row 1: its prompt has " in told
    assert told.endswith(" tokens, data.max_prompt_tokens = 100")


@pytest.mark.parametrize("mode", ["worker", "precomputed"])
def test_those_that_may_be_passed_over_are_told_with_the_first(tmp_path: Path, model: Path, mode: str) -> None:
    flags = (*_SHORT, "--reference.mode", mode, "--data.max_bad_frac", "0.75")
    data = _open(tmp_path, model, "dpo", "plain_dpo", _EIGHT, *flags)
    learned, rows, pairs, _ = data.lines()
    assert learned == "learned from: 2 of 8 rows, 4 of their 16 responses, 2 pairs"
    assert rows.startswith("rows not learned from: 6 of 8; the first is row 1: its prompt has ")
    assert pairs.startswith("pairs passed over: 6 of 8; the first is row 1: its prompt has ")
    counts = data.counts.data_counts
    assert counts["rows_not_learned_from"]["count"] == counts["pairs_passed_over"]["count"] == 6
    assert counts["rows_not_learned_from"]["reasons"][0]["first_row"] == 1
    assert counts["bad_rows"] == {"count": 0, "of": 8, "reasons": []}


def test_nothing_that_could_be_learned_is_refused_whatever_is_allowed(tmp_path: Path, model: Path) -> None:
    with pytest.raises(RefusedInput, match="8 bad rows out of 8, at least 1 must be usable"):
        _open(tmp_path, model, "dpo", "plain_dpo", _EIGHT, "--data.max_prompt_tokens", "5", "--data.max_bad_frac", "1")


def test_bad_rows_that_an_import_skips_are_told(tmp_path: Path, model: Path) -> None:
    rows = [plain(), plain(chosen=3), plain(prompt="why ?")]
    bad, learned, images = _open(tmp_path, model, "ipo", "plain_dpo", rows, "--data.max_bad_frac", "0.5").lines()
    assert bad == "bad rows: 1 of 3; the first is row 2: field 'chosen' is 3, expected text"
    assert learned == "learned from: 2 of 2 rows, 4 of their 4 responses, 2 pairs"
    assert images == "none of the 2 rows has an image"


def test_kto_is_refused_where_length_takes_away_a_kind(tmp_path: Path, model: Path) -> None:
    rows = [labelled(prompt=f"{i} ?", label=True) for i in range(3)]
    rows += [labelled(prompt=f"{i} {_LONG}?", label=False) for i in range(3)]
    with pytest.raises(RefusedInput, match="needs desirable and undesirable responses, found 3 and 0"):
        _open(tmp_path, model, "kto", "plain_kto", rows, *_SHORT, "--data.max_bad_frac", "0.5")


def test_every_reason_is_told_with_its_first_row(tmp_path: Path) -> None:
    tie = feedback(rated("4", "4", "4"), rated("4", "4", "4", response="that"))
    alone = feedback(rated("5", "5", "5"))
    rows = records(tmp_path, "vlfeedback", feedback(), alone, tie, tie)
    of_dpo = look((r for r in rows if not isinstance(r, BadRow)), learner("dpo").needs, score_margin=0.0)
    assert list(of_dpo.lines()) == [
        "learned from: 1 of 4 rows, 2 of their 7 responses, 1 pairs",
        "rows not learned from: 3 of 4, for 2 reasons",
        "  2; the first is row 3: all its responses tie",
        "  1; the first is row 2: it has 1 responses, a pair needs 2",
    ]
    of_sft = look((r for r in rows if not isinstance(r, BadRow)), learner("sft").needs, score_margin=0.0)
    assert list(of_sft.lines()) == ["learned from: 4 of 4 rows, 4 of their 7 responses"]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 12), st.integers(0, 99)), max_size=40))
def test_counts_add_up_and_never_flood(rows: list[tuple[int, int, int]]) -> None:
    counted = Counted("things")
    for number, field, value in rows:
        counted.add(BadRow(number, f"field '{'abcdefghijklm'[field]}' is \"{value}\", image 'x{value}.png' {value}"))
    lines = list(counted.lines(len(rows)))
    assert counted.total == len(rows)
    assert len(lines) <= 10 and bool(lines) == bool(rows)
    assert len(lines) - 2 <= len({field for _, field, _ in rows})
    if len(lines) > 1:
        assert sum(int(line.split()[0].rstrip(";")) for line in lines[1:]) == len(rows)
