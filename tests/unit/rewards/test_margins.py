"""A table of rewards: one a response, the same whatever killed the pass, and how often it agrees with the ranks."""

import math
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from algorithms.records import Sequence as TokenSequence
from orchestrator.data.order import assign_split
from orchestrator.data.records import Instruction, Response
from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.rewards import critique_judge as judging
from orchestrator.rewards.critique_judge import CritiqueCache
from orchestrator.rewards.critique_margins import agreement, fill_rewards, reward_statuses
from orchestrator.tasks.digits import WORDS
from tests.critique_models import judge_of
from tests.unit.data.store_rows import written
from tests.unit.rewards.fake_workers import FakeWorkers

PRINT = Fingerprint(store="s", model={"weights": "m"}, settings={"model.dtype": "float32"}, limits={}, asked="a")
_HELD_OUT = 0.5


class Killed(Exception):
    """What a SIGKILL would be, had the test a process to spare."""


def _instruction(number: int, ranks: Sequence[int], *, held_out_frac: float = 0.0) -> Instruction:
    words = " ".join(WORDS[int(digit)] for digit in str(number))
    messages = ({"role": "user", "content": [{"type": "text", "text": f"which digit ? {words}"}]},)
    return Instruction(
        uid=f"d-{number:06d}",
        split=assign_split(messages, (), held_out_frac=held_out_frac),
        messages=messages,
        media=(),
        responses=tuple(Response(text=f"it is {WORDS[k]} .", rank=rank) for k, rank in enumerate(ranks)),
    )


def _in_split(split: str, *all_ranks: Sequence[int]) -> list[Instruction]:
    """Instructions with these ranks whose prompts fall into ``split``."""
    fitting = (number for number in range(1000) if _instruction(number, (1,), held_out_frac=_HELD_OUT).split == split)
    return [_instruction(next(fitting), ranks, held_out_frac=_HELD_OUT) for ranks in all_ranks]


def _of_content(sequence: TokenSequence) -> float:
    return float(np.float32(crc32(sequence.input_ids.tobytes()) / 7))


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    """Three shards of four instructions with three responses each."""
    return written(tmp_path / "store", (_instruction(n, (1, 2, 2)) for n in range(12)), group_rows=4)


def _table(folder: Path, store: PreferenceStore) -> SideTable:
    return SideTable(folder, fingerprint=PRINT, num_shards=len(store.groups))


def _files(table: SideTable) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in table.folder.iterdir()}


@pytest.fixture
def undisturbed(store: PreferenceStore, speller: Path, tmp_path: Path) -> dict[str, bytes]:
    with CritiqueCache(tmp_path / "calm.sqlite") as cache:
        table = _table(tmp_path / "calm", store)
        fill_rewards(table, store, judge_of(FakeWorkers(reward=_of_content), speller, cache))
    return _files(table)


def test_every_response_has_its_reward_once_whatever_pairs_it_is_in(
    store: PreferenceStore, speller: Path, cache: CritiqueCache, tmp_path: Path
) -> None:
    workers, table, told = FakeWorkers(reward=_of_content), _table(tmp_path / "table", store), list[tuple[int, int]]()
    fill_rewards(table, store, judge_of(workers, speller, cache), on_shard=lambda *shards: told.append(shards))
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert len(workers.requests) == len(workers.scored) == 12 * 3
    rows = [row for shard in range(3) for row in store.read_group(shard)]
    keys = [key for shard in range(3) for key in table.read(shard).keys]
    values = [value for shard in range(3) for value in table.read(shard).values]
    assert keys == [(row.uid, index) for row in rows for index in range(3)]
    assert [v.tolist() for v in values] == [[_of_content(s)] for s in workers.scored]
    # Nothing is missing now, so nothing is asked.
    nobody = FakeWorkers()
    fill_rewards(table, store, judge_of(nobody, speller, cache))
    assert nobody.batches == []


def test_killed_between_shards_it_goes_on_with_the_next(
    store: PreferenceStore, speller: Path, cache: CritiqueCache, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    table = _table(tmp_path / "table", store)

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        fill_rewards(table, store, judge_of(FakeWorkers(reward=_of_content), speller, cache), on_shard=kill)
    assert table.missing_shards() == [2]
    workers, reopened = FakeWorkers(reward=_of_content), _table(tmp_path / "table", store)
    fill_rewards(reopened, store, judge_of(workers, speller, cache))
    assert len(workers.requests) == 4 * 3
    assert _files(reopened) == undisturbed


def test_killed_inside_a_shard_it_asks_only_for_the_piece_it_was_in(
    store: PreferenceStore,
    speller: Path,
    cache: CritiqueCache,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(judging, "_QUESTIONS_AT_ONCE", 6)
    victim = store.read_group(1)[2].uid

    def dies(sequence: TokenSequence) -> float:
        if sequence.uid == victim:
            raise Killed
        return _of_content(sequence)

    table = _table(tmp_path / "table", store)
    with pytest.raises(Killed):
        fill_rewards(table, store, judge_of(FakeWorkers(reward=dies), speller, cache))
    assert table.missing_shards() == [1, 2]
    workers, reopened = FakeWorkers(reward=_of_content), _table(tmp_path / "table", store)
    fill_rewards(reopened, store, judge_of(workers, speller, cache))
    second, third = store.read_group(1), store.read_group(2)
    assert list(dict.fromkeys(r.uid for r in workers.requests)) == [row.uid for row in (*second[2:], *third)]
    assert _files(reopened) == undisturbed


def test_killed_before_a_shard_is_on_disk_its_answers_are_known(
    store: PreferenceStore,
    speller: Path,
    cache: CritiqueCache,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(self: SideTable, row: object) -> None:
        raise Killed

    table = _table(tmp_path / "table", store)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(SideTable, "append_row", killed)
        fill_rewards(table, store, judge_of(FakeWorkers(reward=_of_content), speller, cache))
    workers, reopened = FakeWorkers(reward=_of_content), _table(tmp_path / "table", store)
    assert reopened.missing_shards() == [0, 1, 2]
    fill_rewards(reopened, store, judge_of(workers, speller, cache))
    assert {r.uid for r in workers.requests} == {row.uid for shard in (1, 2) for row in store.read_group(shard)}
    assert _files(reopened) == undisturbed


def test_a_response_without_a_reward_has_an_empty_row_and_is_counted(
    store: PreferenceStore, speller: Path, cache: CritiqueCache, tmp_path: Path
) -> None:
    first, second = (row.uid for row in store.read_group(0)[:2])
    workers = FakeWorkers(
        finish=lambda request: "length" if (request.uid, request.sample_index) == (first, 0) else "stop",
        reward=lambda sequence: math.nan if sequence.uid == second else 0.5,
    )
    table, judge = _table(tmp_path / "table", store), judge_of(workers, speller, cache)
    fill_rewards(table, store, judge)
    lengths = {key: len(value) for key, value in zip(table.read(0).keys, table.read(0).values, strict=True)}
    empty = {key for key, length in lengths.items() if length == 0}
    assert empty == {(first, 0), (second, 0), (second, 1), (second, 2)}
    # Over the whole store, whichever pass asked.
    nobody = FakeWorkers()
    assert reward_statuses(store, judge_of(nobody, speller, cache)) == {"ok": 32, "cut": 1, "not_finite": 3}
    assert nobody.batches == []


def test_agreement_counted_by_hand(tmp_path: Path) -> None:
    strict, tie, gap = _in_split("train", (1, 2, 3), (1, 2), (1, 1, 2))
    (apart,) = _in_split("held_out", (2, 1))
    rewards: dict[str, list[float | None]] = {
        strict.uid: [3.0, 1.0, 2.0],  # 3 > 1 and 3 > 2 as ranked, 1 < 2 not
        tie.uid: [1.0, 1.0],  # no agreement
        gap.uid: [None, 5.0, 0.0],  # 5 > 0; the other pair has one side only
        apart.uid: [0.0, 0.1],
    }
    in_order = sorted((strict, tie, gap, apart), key=lambda row: row.uid)
    store = written(tmp_path / "store", in_order, group_rows=2, held_out_frac=_HELD_OUT)
    table = _table(tmp_path / "table", store)
    for shard in range(len(store.groups)):
        with table.begin(shard) as writer:
            for row in store.read_group(shard):
                for index, reward in enumerate(rewards[row.uid]):
                    writer.add(row.uid, index, np.array([] if reward is None else [reward], np.float32))
    assert agreement(store, table, ("train",), score_margin=0.0) == (3 / 6, 6)
    assert agreement(store, table, ("held_out",), score_margin=0.0) == (1.0, 1)
    assert agreement(store, table, ("train", "held_out"), score_margin=0.0) == (4 / 7, 7)
    share, count = agreement(store, table, (), score_margin=0.0)
    assert math.isnan(share) and count == 0
