"""A checkpoint is what its manifest says, or it is refused by name, before a worker starts."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import TrainConfig, load_config
from orchestrator.errors import RefusedInput
from orchestrator.run.checkpoint import find_checkpoint, finished_checkpoint
from orchestrator.run.checkpoint_files import sealed
from orchestrator.run.folder import RunFolder
from orchestrator.run.model_folder import policy_folder
from tests.checkpoints import leave_checkpoint

_FILES = ("policy/model.safetensors", "policy/config.json", "state/rank_00000.safetensors")


@pytest.fixture
def config() -> TrainConfig:
    return load_config(["--algo", "dpo", "--model.path", "m", "--data.path", "rows.jsonl", "--run.steps", "5"])[0]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """One of step 5, with a model and a state."""
    folder = RunFolder(tmp_path).checkpoint(5)
    for name in _FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 9)
    return leave_checkpoint(tmp_path, {}, step=5)


def _refusal(checkpoint: Path, config: TrainConfig) -> str:
    with pytest.raises(RefusedInput) as refusal:
        find_checkpoint(RunFolder(checkpoint.parents[1]), config, {})
    told = str(refusal.value)
    assert told.startswith("run.resume: checkpoint step_000005 ") and "\n" not in told and len(told) < 400
    return told


def _edit(checkpoint: Path, *, reseal: bool, **fields: Any) -> None:
    file = checkpoint / "manifest.json"
    manifest = json.loads(file.read_text()) | fields
    file.write_text(sealed(checkpoint, manifest) if reseal else json.dumps(manifest))


def test_a_checkpoint_that_nobody_touched_is_continued(checkpoint: Path, config: TrainConfig) -> None:
    found = find_checkpoint(RunFolder(checkpoint.parents[1]), config, {})
    assert found is not None and found[1].step == 5
    assert policy_folder(checkpoint) == checkpoint / "policy"


@pytest.mark.parametrize("reseal", [True, False])
@pytest.mark.parametrize("step", [math.nan, math.inf, -1, 10**30, "5", 5.0, None, True, [5], 4, 6])
def test_a_manifest_of_no_step_or_of_another_is_refused(
    step: Any, reseal: bool, checkpoint: Path, config: TrainConfig
) -> None:
    _edit(checkpoint, reseal=reseal, step=step)
    told = _refusal(checkpoint, config)
    assert ("manifest.json with a bad step" in told) or (f"of another step: step = {step}" in told), told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_updates", -3), ("num_updates", "many"), ("policy_version", None), ("mismatch_strikes", 1.5),
        ("num_critic_updates", 2**60), ("learner_state", {"coef": math.nan}), ("learner_state", []), ("ahead", "../x"),
        ("cursor", {}), ("cursor", {"num_prompts": 9, "seed": 0, "epoch": 0, "position": 9}),
        ("cursor", {"num_prompts": 9, "seed": "a", "epoch": 0, "position": 0}),
    ],
)  # fmt: skip
def test_progress_that_cannot_be_is_refused_by_field(
    name: str, value: Any, checkpoint: Path, config: TrainConfig
) -> None:
    _edit(checkpoint, reseal=True, **{name: value})
    assert f"manifest.json with a bad {name}" in _refusal(checkpoint, config)


def test_a_value_that_could_be_and_was_not_written_is_refused(checkpoint: Path, config: TrainConfig) -> None:
    _edit(checkpoint, reseal=False, num_updates=6)
    assert "a manifest.json that has changed since it was written" in _refusal(checkpoint, config)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": ' + "9" * 5000 + "}", "\ufeff[]", '"5"', "\x00" * 99])
def test_a_manifest_that_nobody_can_read_is_refused(text: str, checkpoint: Path, config: TrainConfig) -> None:
    (checkpoint / "manifest.json").write_text(text)
    assert "has a manifest.json that is no JSON object" in _refusal(checkpoint, config)


def test_a_checkpoint_without_digests_of_its_files_is_refused(checkpoint: Path, config: TrainConfig) -> None:
    _edit(checkpoint, reseal=False, files=None, seal=None)
    assert "a manifest.json without digests of its files" in _refusal(checkpoint, config)


def _emptied(file: Path) -> None:
    file.write_bytes(b"")


def _flipped(file: Path) -> None:
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _foldered(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [_emptied, _flipped, _piped, _foldered, Path.unlink])
@pytest.mark.parametrize("name", _FILES)
def test_a_file_that_has_changed_is_refused_by_name(
    name: str, damage: Callable[[Path], None], checkpoint: Path, config: TrainConfig
) -> None:
    damage(checkpoint / name)
    assert repr(name) in _refusal(checkpoint, config)
    with pytest.raises(RefusedInput, match=name):
        finished_checkpoint(RunFolder(checkpoint.parents[1]), config, {}, stage=False)
    if name.startswith("policy/"):
        with pytest.raises(RefusedInput, match=name):
            policy_folder(checkpoint)


def test_weights_that_were_put_beside_those_of_the_run_are_refused(checkpoint: Path, config: TrainConfig) -> None:
    (checkpoint / "policy" / "model.safetensors.index.json").write_text("{}")
    assert "a file 'policy/model.safetensors.index.json' that its manifest.json does not name" in _refusal(
        checkpoint, config
    )
    (checkpoint / "policy" / "model.safetensors.index.json").unlink()
    (checkpoint / "policy" / "README.md").write_text("mine")
    assert find_checkpoint(RunFolder(checkpoint.parents[1]), config, {}) is not None
