"""Rows that belong together, wherever they stand in a file."""

import json
from pathlib import Path

import pytest

from orchestrator.data.rows import BadRow, JsonRow, read_json_groups
from orchestrator.errors import RefusedInput

A1, B, A2, NONE, TRUE, ONE = {"id": "a", "n": 1}, {"id": "b"}, {"id": "a", "n": 2}, {"n": 3}, {"id": True}, {"id": 1}


def _alone(number: int, value: object) -> JsonRow:
    return JsonRow(number, (JsonRow(number, value),))


def test_rows_with_one_id_come_together_in_the_order_of_the_first(tmp_path: Path) -> None:
    expected = [
        JsonRow(1, (JsonRow(1, A1), JsonRow(3, A2))),
        _alone(2, B),
        *(_alone(number, row) for number, row in ((4, NONE), (5, TRUE), (6, ONE), (7, "text"), (8, NONE))),
    ]
    rows = [A1, B, A2, NONE, TRUE, ONE, "text", NONE]
    (tmp_path / "d.json").write_text(json.dumps(rows))
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("d.json", "d.jsonl"):
        assert list(read_json_groups(tmp_path / name, field="id")) == expected


def test_a_line_is_found_again_behind_a_mark_blank_lines_letters_of_two_bytes_and_a_bad_line(tmp_path: Path) -> None:
    lines = ["\ufeff" + json.dumps(A1), "", '{"id": "é"}', "{", json.dumps(A2)]
    (tmp_path / "d.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert list(read_json_groups(tmp_path / "d.jsonl", field="id")) == [
        JsonRow(1, (JsonRow(1, A1), JsonRow(5, A2))),
        _alone(3, {"id": "é"}),
        BadRow(4, "not valid JSON: Expecting property name enclosed in double quotes at column 2"),
    ]


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(f"{json.dumps(A1)}\n{json.dumps(B)}\n" * 5000)
    groups = read_json_groups(file, field="id")
    next(groups)
    file.write_text("{\n" * 200_000)
    with pytest.raises(RefusedInput, match=r"changed while it was read \(line 2\)$"):
        next(groups)
