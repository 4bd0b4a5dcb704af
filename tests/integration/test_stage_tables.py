"""Three runs in one file: each begins from the one before it, one reads a format of the user's, none is done twice."""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows
from tests.pages import snippet

pytestmark = pytest.mark.integration
_STAGES = """
run.dir = "{root}/run"
rollout.engine = "transformers"
rollout.max_new_tokens = 8

[[stage]]
name = "cold"
algo = "sft"
run.steps = 4

[[stage]]
name = "judge"
algo = "grpo"
from = "cold"
run.steps = 1
rollout.prompts_per_step = 8
policy.train_batch_size = 64

[[stage]]
name = "likes"
algo = "dpo"
from = "judge"
data.path = "{root}/votes.jsonl"
data.reader = "{root}/votes.py:read_votes"
reference.mode = "precomputed"
run.steps = 2
policy.train_batch_size = 2
"""


def test_each_begins_from_the_one_before_it_and_none_is_done_twice(tmp_path: Path) -> None:
    for name in ("votes.py", "votes.jsonl"):
        (tmp_path / name).write_text(snippet("data_format", name))
    file, root = tmp_path / "stages.toml", tmp_path / "run"
    file.write_text(_STAGES.format(root=tmp_path))
    result = run_cli("--config", str(file))
    assert result.returncode == 0, result.stderr[-3000:]
    assert [max(row["step"] for row in metric_rows(root / name)) for name in ("cold", "judge", "likes")] == [4, 1, 2]
    began = {
        name: json.loads((root / name / "config.json").read_text())["model"]["path"] for name in ("judge", "likes")
    }
    assert began["judge"] == str(root / "cold" / "checkpoints" / "step_000004" / "policy")
    assert began["likes"] == str(root / "judge" / "checkpoints" / "step_000001" / "policy")
    first = metric_rows(root / "likes")[0]
    assert first["eval/margin"] == 0.0 if "eval/margin" in first else True

    rows = [metric_rows(root / name) for name in ("cold", "judge", "likes")]
    again = run_cli("--config", str(file))
    assert again.returncode == 0, again.stderr[-3000:]
    assert [f"{root / name}, made before" in again.stdout for name in ("cold", "judge", "likes")] == [True] * 3
    assert [metric_rows(root / name) for name in ("cold", "judge", "likes")] == rows

    changed = run_cli("--config", str(file), "--run.seed", "7")
    assert changed.returncode == 2 and "step_000004 has run.seed = 0, this run has 7" in changed.stderr
