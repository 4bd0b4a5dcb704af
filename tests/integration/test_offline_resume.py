"""SIGKILL an offline run while it scores its reference and while it trains: it comes out as if nothing had happened."""

import random
import signal
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
from orchestrator.tasks.digits_preferences import build_digits_preferences
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(900)]

_STEPS, _ROWS, _GROUP_ROWS = 6, 160, 8
_START_DEADLINE_S = 120.0
_TRACED = ("step", "policy/loss", "policy/grad_norm", "preference/margin", "data/batch_digest48", "eval/pair_accuracy")


@pytest.fixture(scope="module")
def store(digits: DigitsPaths) -> Path:
    """A small store with many row groups, so that its table has many shards."""
    whole = PreferenceStore(build_digits_preferences(digits.train.parent, seed=0))
    folder = digits.train.parent / "small_store"
    with StoreWriter(
        folder,
        reader="vlfeedback",
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


def _arguments(store: Path, model: Path, run_dir: Path) -> list[str]:
    return [
        *("--algo", "dpo", "--run.dir", str(run_dir), "--run.steps", str(_STEPS), "--run.checkpoint_every", "2"),
        *("--run.eval_every", "3", "--model.path", str(model), "--data.path", str(store)),
        *("--reference.mode", "precomputed", "--policy.train_batch_size", "16", "--optimizer.lr", "1e-3"),
    ]


def _kill_when(arguments: list[str], reached: Callable[[], bool], *, delay_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator.train", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + _START_DEADLINE_S
        while not reached():
            assert driver.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "the run did not get that far"
            time.sleep(0.02)
        time.sleep(delay_s)
        driver.send_signal(signal.SIGKILL)


def _finished_shards(run_dir: Path) -> list[str]:
    file = run_dir / "reference" / "train" / "shards.jsonl"
    return file.read_text().splitlines() if file.is_file() else []


def test_a_run_killed_twice_comes_out_the_same(store: Path, random_model: Path, tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    result = run_cli(*_arguments(store, random_model, calm))
    assert result.returncode == 0, result.stderr[-3000:]
    num_shards = len(PreferenceStore(store).groups)
    assert num_shards >= _ROWS // _GROUP_ROWS

    moment = random.SystemRandom()
    shards, rows = moment.randint(1, num_shards // 2), moment.randint(1, _STEPS - 2)
    delays = [moment.uniform(0.0, 0.3) for _ in range(2)]
    print(f"killed {delays[0]:.2f} s after {shards} shards, {delays[1]:.2f} s after row {rows}")  # noqa: T201
    arguments = _arguments(store, random_model, killed)
    _kill_when(arguments, lambda: len(_finished_shards(killed)) >= shards, delay_s=delays[0])
    _kill_when(arguments, lambda: len(metric_rows(killed)) > rows, delay_s=delays[1])
    result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr[-3000:]

    # A line of the list is a shard that was finished: none of them twice.
    assert len(_finished_shards(killed)) == len(_finished_shards(calm)) == num_shards
    tables = [
        {f.name: f.read_bytes() for f in (run / "reference" / "train").glob("*.parquet")} for run in (calm, killed)
    ]
    assert len(tables[0]) == num_shards and tables[0] == tables[1]
    traces = [[{name: row.get(name) for name in _TRACED} for row in metric_rows(run)] for run in (calm, killed)]
    assert [row["step"] for row in traces[0]] == list(range(_STEPS + 1))
    assert traces[0] == traces[1]
    weights = [load_file(run / f"checkpoints/step_{_STEPS:06d}/policy/model.safetensors") for run in (calm, killed)]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())
