"""A real run that is measured on a benchmark, killed and gone on with: the figures of the run that was left alone.

The stage behind it measures what came of it on the same file, with the same answers.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tasks.digits import QUESTION, DigitsPaths
from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.runs import MAX_NEW_TOKENS, metric_rows
from tests.unit.evaluation.released_files import parquet

_OWN = "eval/vl_reward_bench/"
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
_TRAINED = """
run.dir = "{root}/{name}"
run.eval_every = 1
run.checkpoint_every = 1
model.path = "{model}"
rollout.engine = "transformers"
rollout.max_new_tokens = {max_new_tokens}

[[stage]]
name = "judge"
algo = "grpo"
data.path = "{train}"
run.steps = 2
optimizer.lr = 1e-3
rollout.prompts_per_step = 4
rollout.samples_per_prompt = 2
policy.train_batch_size = 8
eval.benchmark = [{{ name = "vl_reward_bench", path = "{root}/pairs.parquet", template = "{root}/template.txt" }}]
"""
_MEASURED = """
[[stage]]
name = "measured"
evaluate = "vl_reward_bench"
from = "judge"
data.path = "{root}/pairs.parquet"
template = "{root}/template.txt"
"""


def test_a_killed_run_is_measured_as_the_unbroken_one_and_as_the_stage_behind_it(
    tmp_path: Path, warm_model: Path, digits: DigitsPaths
) -> None:
    (tmp_path / "template.txt").write_text("{question} {first} 1 , {second} 2 .")
    judgements = digits.held_out.read_text().splitlines()[:8:2]
    parquet(tmp_path / "pairs.parquet", *(_pair(line, digits.held_out.parent) for line in judgements))
    for name, stages in (("whole", _TRAINED), ("cut", _TRAINED + _MEASURED)):
        text = stages.format(
            root=tmp_path, name=name, model=warm_model, train=digits.train, max_new_tokens=MAX_NEW_TOKENS
        )
        (tmp_path / f"{name}.toml").write_text(text)

    done = run_cli("--config", str(tmp_path / "whole.toml"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "benchmark vl_reward_bench: 4 of 4 rows, 8 questions at every evaluation" in done.stdout
    unbroken = _figures(tmp_path / "whole" / "judge")
    assert list(unbroken) == [0, 1, 2] and all(f"{_OWN}accuracy" in row for row in unbroken.values())
    assert unbroken[0][f"{_OWN}unreadable"] < 1.0

    cut = ["--config", str(tmp_path / "cut.toml")]
    run_and_kill(cut, tmp_path / "cut" / "judge", rows_before=2, delay_s=0.0)
    again = run_cli(*cut)
    assert again.returncode == 0, again.stderr[-3000:]
    assert _figures(tmp_path / "cut" / "judge") == unbroken

    scores = json.loads((tmp_path / "cut" / "measured" / "scores.json").read_text())
    strict = scores["ways"]["strict"]["figures"]
    told = {name.removeprefix(_OWN): value for name, value in unbroken[2].items()}
    assert {name: strict[name]["value"] for name in told} == told
    assert again.stdout.endswith((tmp_path / "cut" / "measured" / "scores.md").read_text())


def _pair(line: str, folder: Path) -> dict[str, Any]:
    """A row of the benchmark from a judgement of a digit; the right one is listed first."""
    image, text = json.loads(json.loads(line)["message"])[0]["content"]
    right, _, _, wrong, _, _ = text["text"].removeprefix(QUESTION).split()
    picture = {"bytes": (folder / image["image"]).read_bytes(), "path": None}
    return {"id": "mmmu", "query": QUESTION, "response": [right, wrong], "human_ranking": [0, 1], "image": picture}


def _figures(run_dir: Path) -> dict[float, dict[str, float]]:
    return {row["step"]: {name: row[name] for name in row if name.startswith(_OWN)} for row in metric_rows(run_dir)}
