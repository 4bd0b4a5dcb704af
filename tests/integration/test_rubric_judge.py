"""The embedded task by its command, rewarded by nobody but a judge at an endpoint: by a rubric, and by pairs."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.contract.fake_judge import Depends, Say, fake_judge
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows

pytestmark = pytest.mark.integration
_KEY = "sk-very-secret"
_CONFIG = """
[reward]
functions = ["judge?weight=0.5", "pairwise"]
judge_model = "m"
judge_rubric = "{question} R {response} L {label} {criteria}"
judge_criteria = ["brief: How short?", "named?weight=2: Is the sum named?"]
judge_request = "A {first} B {second}"
judge_scale = [0, 4]
"""


def _answer(request: dict[str, Any]) -> Say:
    """Likes short answers, by both ways of asking, and says so about half of what is odd."""
    picture, words = request["messages"][0]["content"]
    image = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert image.size == (56, 56)
    pair = re.fullmatch(r"A (.*) B (.*)", words["text"], re.DOTALL)
    if pair is not None:
        return Say(f"<answer>{1 if len(pair[1]) < len(pair[2]) else 2}</answer>")
    response, label = re.match(r"what is the sum \? R (.*) L (\d+) brief: How", words["text"], re.DOTALL).groups()  # type: ignore[union-attr]
    return Say(f"<answer>brief: {4 - len(response) % 5}\nnamed: {4 * (label in response.split())}</answer>")


def test_a_run_learns_from_what_an_endpoint_says_and_keeps_no_key(tmp_path: Path) -> None:
    data = build_count_data(tmp_path / "count", seed=0)
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)
    (tmp_path / "judge.toml").write_text(_CONFIG)
    (tmp_path / "key").write_text(_KEY)
    with fake_judge(Depends(_answer)) as judge:
        arguments = [
            *("--algo", "grpo", "--config", str(tmp_path / "judge.toml"), "--run.dir", str(tmp_path / "run")),
            *("--model.path", str(model), "--data.path", str(data.train), "--data.format", "task"),
            *("--reward.judge_url", judge.url, "--reward.judge_key_file", str(tmp_path / "key")),
            *("--run.steps", "1", "--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "4"),
            *("--policy.train_batch_size", "16", "--rollout.max_new_tokens", "8", "--rollout.engine", "transformers"),
        ]
        result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = metric_rows(tmp_path / "run")
    assert [row["judge/coverage"] for row in rows[1:]] == [1.0]
    assert {"reward/judge_brief", "reward/judge_named", "reward/pairwise", "judge/score_mean"} <= set(rows[1])
    assert (rows[1]["judge/unreadable_frac"], rows[1]["judge/unanswered_frac"]) == (0.0, 0.0)
    for sample in read_rollouts(tmp_path / "run" / "rollouts" / "step_000001.parquet"):
        brief, named = (
            (4 - len(sample.completion_text) % 5) / 4,
            float(str(sample.label) in sample.completion_text.split()),
        )
        assert (sample.parts["judge_brief"], sample.parts["judge_named"]) == (brief, named)
        assert sample.reward == pytest.approx(0.5 * brief + 1.0 * named + (sample.parts["pairwise"] or 0.0))
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or _KEY.encode() not in file.read_bytes(), file
    assert _KEY not in f"{result.stdout}{result.stderr}{json.dumps(judge.requests)}"
