"""A role is one record: what is made of two that the repository does not know, in placement, in a run and on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.records import Sequence
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.cluster.roles import ROLES
from orchestrator.config import TrainConfig, load_config
from orchestrator.data.stores import open_data
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from orchestrator.training.loop import run
from orchestrator.training.offline import offline_identity, offline_work
from orchestrator.training.session import open_session
from tests.in_process import InProcessPool
from tests.toy_roles import COUNT, LENGTH
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank", "toys")]
_BUDGET = 256


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two roles more."""
    for role in (LENGTH, COUNT):
        monkeypatch.setitem(ROLES, role.name, role)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("roles") / "model", seed=0)


def _flags(model: Path, root: Path, *flags: str) -> list[str]:
    rows = [plain(prompt=f"which {word} ?", chosen="which", rejected="? ?") for word in ("a", "b", "c", "d")]
    file = write_jsonl(root / "rows.jsonl", *rows)
    return [
        *("--algo", "dpo", "--model.path", str(model), "--run.dir", str(root / "run"), "--model.dtype", "float32"),
        *("--data.path", str(file), "--data.format", "plain_dpo", "--policy.train_batch_size", "2"),
        *("--policy.tokens_per_microbatch", str(_BUDGET), "--run.checkpoint_every", "100", *flags),
    ]


def _config(model: Path, root: Path, *flags: str) -> TrainConfig:
    config, _ = load_config(_flags(model, root, *flags))
    return config.model_copy(update={"run": config.run.model_copy(update={"trackers": ()})})


def _sequences(*lengths: int) -> list[Sequence]:
    return [
        Sequence(uid=str(n), sample_index=0, input_ids=np.zeros(length, np.int64), prompt_len=1, media=())
        for n, length in enumerate(lengths)
    ]


def test_they_are_placed_and_their_memory_is_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[[nodes]]\nname = "one"\ncpus = 8\ngpus = 8\ngpu_memory_gib = 10\n')
    there = ("--placement.cluster", str(cluster), "--placement.layout", "separate")
    flags = _flags(model, tmp_path, *there, "--policy.num_ranks", "2", "--dry-run")
    assert main(flags) == 0
    told = capsys.readouterr().out.splitlines()
    assert "group length (PACK)" in told and "group count (PACK)" in told
    assert "  bundle 1 on one, 1 GPU + 1 CPU: count 1 (1 GPU, 1 CPU)" in told
    assert "memory of one length worker: weights 2.0 = 2.0 GiB" in told
    assert "memory of one count worker: weights 1.0 = 1.0 GiB" in told
    plan = single_role_plan(
        _config(model, tmp_path), "length", ClusterResources(nodes=(NodeResources(name="a", cpus=4.0),))
    )
    assert [(w.role, w.index, w.num_gpus) for w in plan.workers] == [("length", 0, 0.0), ("length", 1, 0.0)]


def test_each_item_has_its_answer_in_the_order_given() -> None:
    pool = InProcessPool(tokens_per_microbatch=_BUDGET)
    pool.role("length").start(0.5)
    # Of these lengths micro-batches are made longest first.
    answers = pool.role("length").each("rewards", _sequences(20, 200, 7, 90), deadline_s=1.0, plus=1.0)
    assert answers == [11.0, 101.0, 4.5, 46.0]
    assert pool.role("length").each("rewards", [], deadline_s=1.0) == []
    assert pool.role("length").shared("called", "I am", deadline_s=1.0) == ["I am length-0"]
    assert pool.trained == []


def test_one_that_learns_is_saved_in_a_folder_of_its_own_and_resumed(model: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    try:
        first = _trained(model, tmp_path, folder, steps=1, updates=3)
        assert (first.updates, first._greeting, first.num_steps) == (3, "fresh", -1)
        (checkpoint,) = folder.complete_checkpoints()
        assert sorted(p.name for p in checkpoint.iterdir()) == ["count", "manifest.json", "policy", "state"]
        assert json.loads((checkpoint / "count" / "rank_0.json").read_text()) == {"updates": 3}
        second = _trained(model, tmp_path, folder, steps=2, updates=0)
        assert (second.updates, second._greeting, second.num_steps) == (3, "count", 1)
    finally:
        folder.release()


def _trained(model: Path, root: Path, folder: RunFolder, *, steps: int, updates: int) -> Any:
    """The rank that counts, after a run in which it took ``updates`` of its own."""
    config = _config(model, root, "--run.steps", str(steps), "--optimizer.schedule", "constant")
    data, pool = open_data(config, folder), InProcessPool(tokens_per_microbatch=_BUDGET)
    identity = offline_identity(config, data, {})
    with open_session(config, folder, pool, identity=identity, counts=data.counts, figures=()) as (session, start):
        (counting,) = pool.role("count").actors
        pool.role("count").update([[[]] * updates], deadline_s=1.0)
        assert pool.role("length").each("rewards", _sequences(4), deadline_s=1.0) == [2.0]
        run(session, offline_work(session, PromptEncoder(str(model)), data, {}), start)
    return counting.worker
