"""Answers are kept row by row: a run that was cut goes on where it was, though ids repeat."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.errors import RefusedInput
from orchestrator.evaluation.predictions import (
    Prediction,
    Predictions,
    predictions_table,
    read_predictions,
    write_predictions,
)

_ASKED: dict[str, object] = {"model": "m", "file": "abc", "seed": 0}


def _said(row: int, sample: int = 0, order: str = "12", **more: object) -> Prediction:
    """Every third row has the id of the one before."""
    made = Prediction(
        row=row, digest=f"d{row % 5}", id=f"id{row - row % 3}", sample=sample, order=order, text=f"t{row}"
    )
    return replace(made, **more)  # type: ignore[arg-type]


def _all() -> list[Prediction]:
    return [_said(row, sample, order) for row in range(1, 31) for order in ("12", "21") for sample in (0, 1)]


def _ask(folder: Path, *, cut_after: int | None = None, size: int = 7) -> int:
    """Answer what is not answered, a shard at a time; return how many were asked about."""
    kept = Predictions(folder, asked=_ASKED)
    waiting = [one for one in _all() if one.key not in kept]
    for number, start in enumerate(range(0, len(waiting), size)):
        if number == cut_after:
            return start
        kept.add(waiting[start : start + size])
    kept.finish()
    return len(waiting)


def test_a_cut_run_goes_on_without_a_row_lost_or_doubled(tmp_path: Path) -> None:
    _ask(tmp_path / "whole")
    wanted = (tmp_path / "whole" / "predictions.parquet").read_bytes()
    for seed in range(5):
        folder, draw, asked = tmp_path / f"cut{seed}", random.Random(seed), 0
        for _ in range(3):
            asked += _ask(folder, cut_after=draw.randrange(1, 4), size=draw.randrange(1, 9))
        asked += _ask(folder)
        assert asked == len(_all())
        assert (folder / "predictions.parquet").read_bytes() == wanted
    assert _ask(tmp_path / "whole") == 0


def test_what_is_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    rows = [
        _said(1, rewards=(0.5, float("-inf")), order="", reply="Rating: 3"),
        _said(2, status="failed", text="", finish_reason="length"),
        _said(3, text="ünï\ncode \x00"),
    ]
    write_predictions(tmp_path / "p.parquet", rows)
    assert read_predictions(tmp_path / "p.parquet") == rows


def test_a_shard_that_was_not_finished_is_none(tmp_path: Path) -> None:
    kept = Predictions(tmp_path, asked=_ASKED)
    kept.add([_said(1)])
    (tmp_path / "predictions" / ".000001.parquet.partial").write_bytes(b"PAR1 cut")
    again = Predictions(tmp_path, asked=_ASKED)
    assert [one.row for one in again.current()] == [1]
    again.add([_said(2)])
    assert [one.row for one in Predictions(tmp_path, asked=_ASKED).current()] == [1, 2]


def test_what_failed_is_asked_again_and_the_later_answer_counts(tmp_path: Path) -> None:
    kept = Predictions(tmp_path, asked=_ASKED)
    kept.add([_said(1, status="failed", text=""), _said(2)])
    again = Predictions(tmp_path, asked=_ASKED)
    assert (_said(1).key in again, _said(2).key in again, len(again)) == (False, True, 1)
    again.add([_said(1)])
    assert [(one.row, one.status) for one in again.current()] == [(1, "answered"), (2, "answered")]
    assert len(Predictions(tmp_path, asked=_ASKED)) == 2


def test_answers_of_something_else_are_refused(tmp_path: Path) -> None:
    Predictions(tmp_path, asked=_ASKED)
    with pytest.raises(RefusedInput, match=r"holds answers made with seed = 0, now it is 1: name another folder"):
        Predictions(tmp_path, asked={**_ASKED, "seed": 1})
    with pytest.raises(RefusedInput, match=r"made with votes = None, now it is 5"):
        Predictions(tmp_path, asked={**_ASKED, "votes": 5})
    (tmp_path / "asked.json").write_text("{")
    with pytest.raises(RefusedInput, match=r"asked\.json' cannot be read as JSON"):
        Predictions(tmp_path, asked=_ASKED)
    (tmp_path / "asked.json").write_text("[]")
    with pytest.raises(RefusedInput, match=r"asked\.json' holds no JSON object"):
        Predictions(tmp_path, asked=_ASKED)


def test_a_prediction_is_kept_once(tmp_path: Path) -> None:
    kept = Predictions(tmp_path, asked=_ASKED)
    kept.add([_said(1), _said(1, order="21"), _said(1, sample=1)])
    for doubled in ([_said(1)], [_said(2), _said(2)]):
        with pytest.raises(ValueError, match="is kept once for each row, sample and order"):
            kept.add(doubled)
    kept.add([])
    write_predictions(tmp_path / "predictions" / "000009.parquet", [_said(1)])
    with pytest.raises(RefusedInput, match="holds two answers to row 1, sample 0"):
        Predictions(tmp_path, asked=_ASKED)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"row": [1]}), tmp_path / "t.parquet")
    with pytest.raises(RefusedInput, match="has no column 'digest': it holds no predictions"):
        read_predictions(tmp_path / "t.parquet")
    whole = predictions_table([_said(7)])
    for name, cell in (
        ("rewards", pa.array([[None]], pa.list_(pa.float64()))),
        ("text", pa.array([None], pa.string())),
    ):
        pq.write_table(whole.set_column(whole.schema.get_field_index(name), name, cell), tmp_path / "l.parquet")
        with pytest.raises(RefusedInput, match="holds no predictions: row 7 of the data lacks a value"):
            read_predictions(tmp_path / "l.parquet")
    (tmp_path / "n.parquet").write_text("no")
    with pytest.raises(RefusedInput, match="cannot be read as Parquet"):
        read_predictions(tmp_path / "n.parquet")
    with pytest.raises(RefusedInput, match=r"missing\.parquet' is not a file"):
        read_predictions(tmp_path / "missing.parquet")


def test_what_made_the_answers_is_written_beside_them(tmp_path: Path) -> None:
    Predictions(tmp_path, asked=_ASKED)
    assert json.loads((tmp_path / "asked.json").read_text()) == _ASKED
