"""Damaged files of every kind that a run reads: refused in a sentence, or what is read is what was written."""

import json
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config import load_config
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction
from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.run.ahead import AheadGroup, AheadSample, write_ahead
from orchestrator.run.best import best_step
from orchestrator.run.checkpoint import find_checkpoint
from orchestrator.run.folder import RunFolder
from orchestrator.training.session import evaluation_in
from tests.checkpoints import leave_checkpoint
from tests.damaged_files import damage
from tests.unit.data.rows import picture, source, write_jsonl
from tests.unit.data.store_rows import plain, text_instruction, written

_DEADLINE_S = 10
_PRINT = Fingerprint(store="s", model={"weights": "w"}, settings={"dtype": "float32"}, limits={"data.max": 9})
_STEPS = (1, 2, 3)


@dataclass(frozen=True)
class Kind:
    """Files of one kind: how they are made, and what is read of them."""

    make: Callable[[Path], object]
    read: Callable[[Path], Any]


def _store(folder: Path) -> None:
    written(
        folder / "store", (text_instruction(n, held_out_frac=0.3) for n in range(12)), group_rows=3, held_out_frac=0.3
    )


def _of_store(folder: Path) -> Any:
    store = PreferenceStore(folder / "store", media_root=folder)
    return list(store.rows()), list(store.iterate("train", seed=3)), [bad.row for bad in store.bad_rows()]


def _checkpoint(folder: Path) -> None:
    target = RunFolder(folder).checkpoint(3)
    for name in ("policy/model.safetensors", "policy/config.json", "state/rank_00000.safetensors"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(json.dumps({"name": name}).encode() * 5)
    sample = AheadSample(ids=np.arange(3, dtype=np.int32), logprobs=np.ones(3, np.float32), spans=((3, 1),))
    write_ahead(target, [AheadGroup(uid="u", index=0, begun=1, samples=(sample,))])
    leave_checkpoint(folder, {"run.seed": 0}, step=3, ahead="ahead.parquet", learner_state={"coef": 0.5})


def _of_checkpoint(folder: Path) -> Any:
    config = load_config(["--algo", "dpo", "--model.path", "m", "--data.path", "rows.jsonl"])[0]
    found = find_checkpoint(RunFolder(folder), config, {"run.seed": 0})
    if found is None:
        raise RefusedInput(f"{folder.name} has no manifest.json: it does not exist, as its manifest is written last")
    files = [(found[0] / name).read_bytes() for name in ("policy/model.safetensors", "state/rank_00000.safetensors")]
    ahead = [(g.uid, [s.ids.tolist() for s in g.samples]) for g in found[1].ahead]
    return files, ahead, found[1].step, found[1].num_updates, found[1].cursor, found[1].learner_state


def _table(folder: Path) -> None:
    table = SideTable(folder / "table", fingerprint=_PRINT, num_shards=3)
    for shard in range(3):
        with table.begin(shard) as writer:
            writer.add(f"u{shard}", 0, np.arange(shard + 2, dtype=np.float32))


def _of_table(folder: Path) -> Any:
    table = SideTable(folder / "table", fingerprint=_PRINT, num_shards=3)
    for shard in table.missing_shards():  # those are made again
        with table.begin(shard) as writer:
            writer.add(f"u{shard}", 0, np.arange(shard + 2, dtype=np.float32))
    return [(shard.keys, [v.tobytes() for v in shard.values]) for shard in map(table.read, range(3))]


def _data(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(folder / name, color="red" if name == "a.png" else "blue")
    write_jsonl(folder / "d.jsonl", *(plain(prompt=f"of {n} <image> ?", image=f"{'ab'[n % 2]}.png") for n in range(9)))


def _of_data(folder: Path) -> Any:
    """Rows are people's own: whether one is another is not for us to know, so that it only must be one."""
    records = list(read_records(source(folder / "d.jsonl", "plain_dpo")))
    for record in records:
        assert isinstance(record, Instruction) or (record.reason.isprintable() and record.row >= 1)
    return None


def _run(folder: Path) -> None:
    root = RunFolder(folder)
    root.create()
    root.release()
    root.evaluations.mkdir()
    rows = [{"step": step, "eval/accuracy": step / 10} for step in (0, *_STEPS)]
    write_jsonl(root.metrics, *rows)
    for step in _STEPS:
        root.evaluation_file(step).write_text(json.dumps({"eval/accuracy": step / 10}))


def _of_run(folder: Path) -> Any:
    """What is dropped is told; figures are for people, and no weight is made of them."""
    root = RunFolder(folder)
    root.create()
    try:
        told = root.truncate_after(3)
        assert all(line.isprintable() for line in told)
        best_step(root, "eval/accuracy")
        for step in _STEPS:
            evaluation_in(root, step)
    finally:
        root.release()
    return None


KINDS = {
    "store": Kind(_store, _of_store),
    "checkpoint": Kind(_checkpoint, _of_checkpoint),
    "side table": Kind(_table, _of_table),
    "data and pictures": Kind(_data, _of_data),
    "metrics and evaluations": Kind(_run, _of_run),
}


class _TooLate(BaseException):
    """What reads has no word for it: a TimeoutError would be a file that cannot be read."""


def _too_late(*_: object) -> None:
    raise _TooLate


def _damages(name: str, count: int, root: Path, *, seed: int) -> Counter[str]:
    """How many were refused and how many harmless."""
    kind, counted = KINDS[name], Counter[str]()
    kind.make(root / "whole")
    signal.signal(signal.SIGALRM, _too_late)
    expected = repr(kind.read(shutil.copytree(root / "whole", root / "first")))
    for number in range(count):
        folder = shutil.copytree(root / "whole", root / "damaged")
        what = damage(random.Random(f"{seed}/{name}/{number}"), folder, spared=(".lock",))
        where = (name, seed, number, what)
        signal.alarm(_DEADLINE_S)
        try:
            assert repr(kind.read(folder)) == expected, where
            counted["harmless"] += 1
        except RefusedInput as refusal:
            told = str(refusal)
            assert told.isprintable() and len(told) < 700 and any(part in told for part in _names(folder)), (
                where,
                told,
            )
            counted["refused"] += 1
        except Exception as error:
            raise AssertionError(where) from error
        finally:
            signal.alarm(0)
        shutil.rmtree(folder)
    return counted


def _names(folder: Path) -> list[str]:
    return [str(folder), "step_000003", "manifest.json", *(path.name for path in folder.rglob("*") if path.suffix)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "whole").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_by_name_or_does_no_harm(name: str, root: Path) -> None:
    counted = _damages(name, 20, root, seed=0)
    assert counted.total() == 20


@pytest.mark.soak
@pytest.mark.parametrize("name", KINDS)
def test_two_hundred_damages_of_a_kind_are_refused_by_name_or_do_no_harm(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counted = _damages(name, 250, root, seed=1)
    with capsys.disabled():
        sys.stdout.write(f"\n{name}: {counted['refused']} refused, {counted['harmless']} harmless\n")
