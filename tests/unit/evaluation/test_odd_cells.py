"""Whatever stands in one cell of a released row makes an item or a bad row with its reason, and never a traceback.

And what was read can be counted whatever a model, or a judge, writes of it: that was paid for.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.row_pictures import RowPictures
from orchestrator.data.rows import JsonRow, RowError
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.files import ItemFile, items_of, read_rows
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, Item
from orchestrator.evaluation.benchmarks.math_vista import MathVistaRow, judge_strict
from orchestrator.evaluation.benchmarks.mmmu import judge_open
from orchestrator.evaluation.benchmarks.registry import BENCHMARKS, benchmark_of
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.verdict_readings import READINGS
from tests.integration.benchmark_rows import TEN_ROWS
from tests.unit.evaluation.released_files import parquet, text_png


def _nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


_DIGITS = "9" * 5000
_NUMBERS = [10**4000, -(10**400), -1, 0, 3, 2.5, 1e19, math.nan, math.inf, True, None]
_NESTED = [[], {}, [None], [[["x"]]], {"a": {"b": [1]}}, {"bytes": None, "path": "a.png"}, _nested(60), _nested(600)]
_TEXTS = [
    "", " ", "x", "a\0b", "\ud83d", ".", "..", "/", "/etc/passwd", "~", "x" * 5000, _DIGITS, f"<image {_DIGITS}> ?",
    f"<image_{_DIGITS}> ?", "<image 0>", "<image>", "nan", "sNaN", "-Infinity", "1e99999999999999999999",
    "1e-99999999999999999999", "1e400", "float", "integer", "list", "open", "[]", "[0x" + "f" * 5000 + "]",
    "[{(1, 2): 3}]", "[1+2j]", "[" * 600 + "]" * 600, "[" * 100_000, "ref:", "tied:1", "Ties",
    "data:image/png;base64,AA",
]  # fmt: skip
_ODD: list[Any] = [*_NUMBERS, *_NESTED, *_TEXTS]
_SAID = [
    "", "A", "yes", "\0", "nan", "Infinity", "[" * 2000, _DIGITS, f"{_DIGITS} {_DIGITS}", f"Rating: {_DIGITS}",
    f"Overall Judgment: Answer {_DIGITS} is better", "The answer is 1e99999999999999999999", "it is 1e999999",
    "answer: -1e-99999999999999999999", f"answer: 3 x 10^{_DIGITS}", f"<answer>{_DIGITS}</answer>", "1/0", "inf inf",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a benchmark that are fine, and what they are read as."""

    benchmark: Benchmark
    file: ItemFile
    rows: tuple[tuple[str, JsonRow], ...]
    items: tuple[Item, ...]


def _written(name: str, folder: Path) -> Path:
    if name == "judgements":
        message = '[{"role": "user", "content": [{"type": "text", "text": "which ?"}]}]'
        row = {"question": "q", "message": message, "answer": ["<answer>2</answer>"], "image": None, "id": "d:1>2:0:2"}
        shown = message.replace('{"type": "text"', '{"type": "image", "image": "0.png"}, {"type": "text"')
        return parquet(folder / "r.parquet", row, row | {"image": text_png(1), "message": shown})
    if name == "reward_bench_2":
        row = {"prompt": "?", "chosen": ["a"], "rejected": ["b", "c"], "subset": "Math", "id": "1"}
        ties = {"prompt": "?", "chosen": ["a", "b"], "rejected": ["c"], "subset": "Ties"}
        return parquet(folder / "r.parquet", row, ties | {"id": "tied:1"}, ties | {"id": "ref:1"})
    return TEN_ROWS["seed_bench" if name == "seed_bench_likelihood" else name].write(folder)


@pytest.fixture(scope="module", params=BENCHMARKS)
def fine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Rows:
    return _fine(request.param, tmp_path_factory.mktemp(request.param))


def _fine(name: str, folder: Path) -> _Rows:
    path, benchmark = _written(name, folder), benchmark_of(name)
    file = ItemFile(path=path, media_root=folder, pictures=folder / "pictures")
    rows = list(read_rows(file, benchmark))
    found = items_of(iter(rows), file, benchmark)
    assert found.items and not found.bad_rows
    return _Rows(benchmark, file, tuple((name, row) for name, row in rows if isinstance(row, JsonRow)), found.items)


def _with(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A value whose part at that place is another."""
    if not place:
        return odd
    first, *more = place
    changed = list(value) if isinstance(value, list) else dict(value)
    changed[first] = _with(value[first], tuple(more), odd)
    return changed


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Of every part of a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in inside:
        yield (name,)
        yield from ((name, *more) for more in _places(part))


def _read(fine: _Rows, name: str, row: JsonRow) -> Item | str:
    """The item, or the reason why it is none."""
    try:
        row = JsonRow(row.number, RowPictures(fine.file.pictures).of_json(row.value))
    except RowError as error:
        return str(error)
    found = items_of(iter([(name, row)]), fine.file, fine.benchmark)
    (one,) = [*found.items, *(bad.reason for bad in found.bad_rows)]
    return one


def _count(fine: _Rows, items: Sequence[Item], said: str) -> None:
    orders = ("12", "21") if fine.benchmark.asks == "verdict" else ("",)
    answered = [
        Answered(item=item, predictions=tuple(_predicted(item, order, said) for order in orders)) for item in items
    ]
    for item in items:
        assert fine.benchmark.judge is None or isinstance(fine.benchmark.judge(item, said), str)
    for way in fine.benchmark.ways:
        for reading in READINGS if fine.benchmark.asks == "verdict" else ("tagged",):
            try:
                fine.benchmark.count(answered, CountOptions(way=way, reading=reading))
            except (ValueError, RefusedInput) as error:
                # A sentence of ours, and none of Python's own.
                assert "integer string conversion" not in str(error) and not isinstance(error, UnicodeError)


def _predicted(item: Item, order: str, said: str) -> Prediction:
    rewards = () if order else tuple(float(n) for n, _ in enumerate(item.responses))
    return Prediction(row=item.row, digest=item.digest, order=order, text=said, reply=said, rewards=rewards)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_an_odd_cell_makes_an_item_or_a_bad_row(fine: _Rows, data: st.DataObject) -> None:
    name, row = data.draw(st.sampled_from(fine.rows))
    place = data.draw(st.sampled_from(list(_places(row.value))))
    odd = data.draw(st.sampled_from(_ODD) | st.text(max_size=9) | st.integers() | st.floats())
    found = _read(fine, name, JsonRow(row.number, _with(row.value, place, odd)))
    assert found, "a bad row has a reason"
    others = [item for item in fine.items if item.row != row.number]
    said = data.draw(st.sampled_from(_SAID) | st.text(max_size=9))
    _count(fine, others if isinstance(found, str) else [*others, found], said)


@pytest.mark.parametrize(
    ("name", "cells", "reason"),
    [
        ("mm_rlhf_reward_bench", {"image": "."}, 'media "." must begin with one of the folders mcq, long, short,'),
        ("mmbench", {"index": _DIGITS}, "expected a whole number of at most 18 digits"),
        (
            "mmmu",
            {"question": f"<image {_DIGITS}> ?"},
            "the question names '<image 999999999999999999...>', the row has 1",
        ),
        (
            "multimodal_reward_bench_2",
            {"prompt_text": f"<image_{_DIGITS}> ?"},
            "field 'prompt_text' names '<image_999999999999999999...>', the row has 1 images there",
        ),
        (
            "math_vista",
            {"precision": 1e19},
            "field 'precision' is 1e+19, expected a whole number of decimals, at most 15",
        ),
        ("math_vista", {"precision": -1}, "field 'precision' is -1, expected a whole number of decimals, at most 15"),
        ("math_vista", {"metadata": {"task": "\ud83d"}}, "field 'metadata' is not valid Unicode at character 1"),
        ("safety_bench", {"extra": {"text": "\ud83d"}}, "field 'extra' is not valid Unicode at character 1"),
        (
            "reward_bench_2",
            {"subset": "Ties", "id": "ref:"},
            "field 'id' is \"ref:\", expected ref:N or tied:N of a tie",
        ),
        ("vl_reward_bench", {"response": _nested(65)}, "field 'response' is nested more than 64 levels deep"),
        ("vl_reward_bench", {"response": "[{(1, 2): 3}]"}, "field 'response' is \"[{(1, 2): 3}]\", expected a list"),
    ],
)
def test_what_is_told_of_an_odd_cell(name: str, cells: dict[str, Any], reason: str, tmp_path: Path) -> None:
    fine = _fine(name, tmp_path)
    of, row = fine.rows[0]
    told = _read(fine, of, JsonRow(row.number, row.value | cells))
    assert isinstance(told, str) and reason in told


@pytest.mark.parametrize("said", ["the answer is 1e99999999999999999999", "answer: -1e-99999999999999999999"])
@pytest.mark.parametrize("answer", ["1.5", "1e400", "1e-400", "sNaN", "Infinity"])
def test_numbers_beyond_any_float_are_not_right(said: str, answer: str) -> None:
    assert not judge_strict(MathVistaRow(text=said, answer=answer, answer_type="float", precision=1))
    assert not judge_open(said, [answer])
