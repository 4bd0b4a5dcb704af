"""Whatever a row or an option holds, what is said of it is a line and no more."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.config import load_config
from orchestrator.data.__main__ import main
from orchestrator.data.rows import BadRow
from orchestrator.errors import RefusedInput, one_line
from tests.unit.data.rows import row, write_jsonl
from tests.unit.data.store_rows import FORMATS, good_row

_HUGE = "iVBORw0KGgo" * 20_000


def _spoiled(value: Any) -> Any:
    """The row with every text of it, and every key, one of 220,000 characters."""
    if isinstance(value, dict):
        return {key: _spoiled(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_spoiled(part) for part in value]
    return _HUGE if isinstance(value, str) else value


@pytest.mark.parametrize("reader", FORMATS)
def test_a_row_of_huge_values_is_told_in_short_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reader: str
) -> None:
    good = good_row(reader, images=["a.png"])  # type: ignore[arg-type]
    rows = [{**good, name: _spoiled(good[name])} for name in good]
    rows += [_spoiled(good), {**good, _HUGE: 1}, {**good, "image": _HUGE}, {**good, "answer": _HUGE}, _HUGE, [_HUGE]]
    file = write_jsonl(tmp_path / "d.jsonl", *rows)
    with file.open("a") as more:
        more.write("{" + _HUGE + "\n")
    assert main(["check", str(file), "--format", reader]) == 2
    for number in range(1, len(rows) + 2):
        main(["show", str(file), "--format", reader, "--row", str(number)])
    said = capsys.readouterr()
    assert max(map(len, said.err.splitlines())) < 2100
    # What show prints of a good row is the row.
    checked = said.out[: said.out.index("\nrows ")]
    assert max(map(len, checked.splitlines())) < 700


def test_keys_without_end_are_not_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row(**{f"key{number}": 1}) for number in range(60)] + [row(**{_HUGE: 1})]
    assert main(["check", str(write_jsonl(tmp_path / "d.jsonl", *rows))]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "41 more keys are not read" in told
    assert len(told) < 30 and max(map(len, told)) < 200


@pytest.mark.parametrize("flag", ["--run.steps", "--rollout.engine", "--run.trackers", f"--{_HUGE}"])
def test_a_huge_option_is_refused_in_a_line(flag: str) -> None:
    with pytest.raises(RefusedInput) as refused:
        load_config(["--algo", "sft", flag, _HUGE])
    assert len(str(refused.value)) < 2100 and "\n" not in str(refused.value)


_PRINTED = st.characters(exclude_categories=("C", "Z"), include_characters=" \n")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(_PRINTED, max_size=900), st.integers(30, 300))
def test_both_ends_of_a_message_stay(text: str, most: int) -> None:
    line = one_line(text, most=most)
    assert len(line) <= most + len(" ... ") and len(line.splitlines()) <= 1
    whole = " ".join(text.splitlines())
    assert line == whole or (whole.startswith(line[: most // 2]) and whole.endswith(line[-(most // 4) :]))


def test_a_bad_row_keeps_who_and_why() -> None:
    reason = BadRow(1, f"image {_HUGE!r} is not found").reason
    assert reason.startswith("image 'iVBOR") and reason.endswith("' is not found")
    assert len(reason) < 610
    assert json.loads(json.dumps(reason)) == reason
