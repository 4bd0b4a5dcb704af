"""SIGKILL the pipeline of MM-DPO in each of its stages: tables and weights come out as if nothing had happened."""

import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import StoreWriter
from orchestrator.tasks.digits import DigitsPaths
from orchestrator.tasks.digits_critiques import REQUEST, build_digits_critiques
from tests.critique_models import write_critique_model
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(5400)]

_STEPS, _ROWS, _GROUP_ROWS = 4, 48, 8
_DEADLINE_S = 900.0
_TABLES = ("rewards", "reference")


@pytest.fixture(scope="module")
def store(digits: DigitsPaths) -> Path:
    """A small store with many row groups, so that its tables have many shards."""
    whole = PreferenceStore(build_digits_critiques(digits.train.parent, seed=0))
    folder = digits.train.parent / "few_critiques"
    with StoreWriter(
        folder,
        reader="mm_rlhf",
        source_name="d.jsonl",
        source_sha256="0" * 64,
        media_root=whole.media_root,
        held_out_frac=whole.manifest.held_out_frac,
        group_rows=_GROUP_ROWS,
    ) as writer:
        for row in sorted(whole.rows(), key=lambda row: row.uid)[:_ROWS]:
            writer.add(row)
        writer.commit()
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its turns without having learnt to, so that its critiques are whole after a few steps."""
    folder = write_critique_model(tmp_path_factory.mktemp("start") / "model")
    shutil.rmtree(folder / "reward_head")
    return folder


def _arguments(store: Path, start: Path, run_dir: Path, *flags: str) -> list[str]:
    return [
        *("--algo", "mm_dpo", "--run.dir", str(run_dir), "--run.steps", str(_STEPS), "--run.checkpoint_every", "2"),
        *("--run.eval_every", "2", "--model.path", str(start), "--data.path", str(store)),
        *("--reference.mode", "precomputed", "--policy.train_batch_size", "16", "--optimizer.lr", "1e-4"),
        *(
            "--rollout.engine",
            "transformers",
            "--rollout.max_new_tokens",
            "8",
            "--reward.critique.max_new_tokens",
            "16",
        ),
        *("--critique_rm.request", REQUEST, *flags),
    ]


def _kill_when(arguments: list[str], reached: Callable[[], bool], *, delay_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.train", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + _DEADLINE_S
        while not reached():
            assert driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run did not get that far"
            time.sleep(0.02)
        time.sleep(delay_s)
        driver.send_signal(signal.SIGKILL)


def _shards(folder: Path) -> int:
    file = folder / "train" / "shards.jsonl"
    return len(file.read_text().splitlines()) if file.is_file() else 0


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*.parquet"))}


def _known(run: Path) -> int:
    with sqlite3.connect(run / "critiques.sqlite") as db:
        return db.execute("SELECT count(*) FROM rewards").fetchone()[0]


def test_a_run_killed_in_every_stage_comes_out_the_same(store: Path, start: Path, tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    result = run_cli(*_arguments(store, start, calm), timeout_s=_DEADLINE_S)
    assert result.returncode == 0, result.stderr[-3000:]

    moment, num_shards = random.SystemRandom(), len(PreferenceStore(store).groups)
    rows, shards = [moment.randint(0, _STEPS - 1) for _ in range(2)], [moment.randint(1, num_shards - 1) for _ in "ab"]
    delays = [moment.uniform(0.0, 0.5) for _ in range(4)] + [moment.uniform(0.0, 20.0)]
    print(f"killed after rows {rows} and shards {shards}, delayed by {delays} s")  # noqa: T201
    last = killed / "checkpoints" / f"step_{_STEPS:06d}" / "manifest.json"
    reached = [
        lambda: len(metric_rows(killed / "critique_rm")) > rows[0],
        lambda: _shards(killed / "rewards") >= shards[0],
        lambda: _shards(killed / "reference") >= shards[1],
        lambda: len(metric_rows(killed)) > rows[1],
        last.is_file,
    ]
    for when, delay in zip(reached, delays, strict=True):
        _kill_when(_arguments(store, start, killed), when, delay_s=delay)
    result = run_cli(*_arguments(store, start, killed), timeout_s=_DEADLINE_S)
    assert result.returncode == 0, result.stderr[-3000:]

    for table in _TABLES:
        # A line of the list is a shard that was finished: none of them twice.
        assert _shards(killed / table) == _shards(calm / table) == num_shards
        assert len(_bytes(calm / table)) == num_shards
        assert _bytes(calm / table) == _bytes(killed / table)
    for name in ("critique_rm", "."):
        both = [
            load_file(run / name / "checkpoints" / f"step_{_STEPS:06d}" / "policy" / "model.safetensors")
            for run in (calm, killed)
        ]
        assert all(tensor.equal(both[1][key]) for key, tensor in both[0].items()), name
    kept = [(run / "rewards" / "counts.json").read_text() for run in (calm, killed)]
    assert kept[0] == kept[1] and '"ok"' in kept[0]
    told = [(run / "evaluations" / "answers.jsonl").read_text() for run in (calm, killed)]
    assert told[0] == told[1]

    known = _known(calm)
    again = run_cli(*_arguments(store, start, calm), timeout_s=_DEADLINE_S)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count(", made before\n") == 4
    assert _known(calm) == known
    other = run_cli(*_arguments(store, start, calm, "--mm_dpo.margin_weight", "1.0"), timeout_s=_DEADLINE_S)
    assert other.returncode == 2 and "mm_dpo.margin_weight = 0.5, this run has 1.0" in other.stderr
