"""The stream goes on from any position, in the same order, and says whom it passes over."""

from pathlib import Path

import pytest

from algorithms.records import Example
from orchestrator.data.records import Instruction
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stream import ExampleStream, encoded
from orchestrator.errors import RefusedInput
from orchestrator.run.cursor import PromptCursor
from tests.unit.algorithms.examples import example
from tests.unit.data.store_rows import text_instruction, written

_ROWS = 11


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return written(tmp_path / "store", map(text_instruction, range(_ROWS)), group_rows=3)


def _encode(row: Instruction) -> Example | str:
    return "it is the fifth" if row.uid.endswith("5") else example(row.uid, [[1], [2]], pairs=((0, 1),))


def _stream(store: PreferenceStore) -> ExampleStream:
    return ExampleStream(store, _encode, side_tables={})


def test_it_continues_from_any_position_as_if_it_had_never_stopped(store: PreferenceStore) -> None:
    cursor, stream, batches, cursors = PromptCursor(num_prompts=_ROWS, seed=3), _stream(store), [], []
    for _ in range(9):
        cursors.append(cursor)
        examples, cursor, _ = stream.take(cursor, 4)
        batches.append([e.uid for e in examples])
    assert cursor.epoch == 3
    for number, start in enumerate(cursors):
        examples, _, _ = _stream(store).take(start, 4)
        assert [e.uid for e in examples] == batches[number]


def test_each_epoch_has_every_example_once_in_an_order_of_its_own(store: PreferenceStore) -> None:
    cursor, stream = PromptCursor(num_prompts=_ROWS, seed=3), _stream(store)
    epochs = []
    for _ in range(2):
        examples, cursor, _ = stream.take(cursor, _ROWS - 1)
        epochs.append([e.uid for e in examples])
    assert epochs[0] != epochs[1]
    assert {len(set(epoch)) for epoch in epochs} == {_ROWS - 1}


def test_who_is_passed_over_is_named(store: PreferenceStore, caplog: pytest.LogCaptureFixture) -> None:
    cursor = PromptCursor(num_prompts=_ROWS, seed=3)
    _, cursor, passed_over = _stream(store).take(cursor, 15)
    assert set(passed_over) == {"t-000005"}
    assert "t-000005 is passed over: it is the fifth" in caplog.text


def test_a_held_out_instruction_without_an_example_is_named_and_counted(
    store: PreferenceStore, caplog: pytest.LogCaptureFixture
) -> None:
    examples, left_out = encoded(store.rows(), _encode)
    assert len(examples) == _ROWS - 1
    assert "held-out instruction t-000005 is left out: it is the fifth" in caplog.text
    assert list(left_out.lines(_ROWS)) == ["held-out rows left out: 1 of 11; the first is row 5: it is the fifth"]


def test_a_store_without_an_example_is_refused(store: PreferenceStore) -> None:
    stream = ExampleStream(store, lambda row: "no", side_tables={})
    with pytest.raises(RefusedInput, match=r"no instruction can be used; the last is t-0000\d\d: no"):
        stream.take(PromptCursor(num_prompts=_ROWS, seed=3), 1)
