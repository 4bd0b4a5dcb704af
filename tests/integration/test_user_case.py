"""A model and a file this project has never seen, through three flags; and every switch a user of them may turn."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows
from tests.user_files import write_llava, write_preferences

pytestmark = [pytest.mark.integration, pytest.mark.soak]


def test_a_users_own_llava_and_preference_file(tmp_path: Path) -> None:
    model = write_llava(tmp_path / "llava")
    data = write_preferences(tmp_path / "mine")
    moved = tmp_path / "elsewhere.json"
    moved.write_text(data.read_text())
    source = ("--data.path", str(moved), "--data.media_root", str(data.parent), "--data.video_frames", "2")

    cold = tmp_path / "cold"
    result = run_cli(
        *("--algo", "sft", "--run.dir", str(cold), "--run.steps", "2", "--model.path", str(model), *source),
        *("--policy.train_batch_size", "4", "--optimizer.lr", "1e-3", "--policy.num_ranks", "2"),
        *("--policy.zero_stage", "3", "--rollout.engine", "transformers", "--rollout.num_engines", "2"),
        *("--model.freeze", "vision", "--model.gradient_checkpointing", "true"),
        *("--rollout.max_new_tokens", "8"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    shown = cold / "checkpoints" / "step_000002" / "policy"
    _check_weights(model, shown)

    online = tmp_path / "online"
    result = run_cli(
        *("--algo", "stable_reinforce", "--run.dir", str(online), "--run.steps", "2", "--model.path", str(shown)),
        *(*source, "--data.eval_path", str(data), "--profile", "r1_released", "--reward.min_coverage", "0"),
        *("--rollout.prompts_per_step", "8", "--rollout.samples_per_prompt", "2", "--rollout.max_new_tokens", "8"),
        *("--policy.train_batch_size", "8"),
    )
    assert result.returncode == 0, result.stderr[-3000:]
    start, *steps = metric_rows(online)
    assert "eval/accuracy" in start and "eval/accuracy" in steps[-1]
    assert len(steps) == 2
    for row in steps:
        assert row["mismatch/logprob_abs_max"] < 1e-4
        assert row["judge/coverage"] == 1.0
        assert row["memory/rss_gib/reference"] > 0.0


def _check_weights(before: Path, after: Path) -> None:
    """The released names are kept, the frozen tower is untouched, the rest has learned."""
    old, new = load_file(before / "model.safetensors"), load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    moved = {name for name in old if not old[name].equal(new[name])}
    assert not any(name.startswith("vision_tower.") for name in moved)
    assert {"language_model.lm_head.weight", "multi_modal_projector.linear_1.weight"} <= moved
