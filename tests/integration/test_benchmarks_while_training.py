"""A real run that is measured on a benchmark, killed and gone on with: the figures of the run that was left alone.

The stage behind it measures what came of it on the same file, with the same answers.
"""

import json
from pathlib import Path

import pytest

from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.runs import metric_rows
from tests.unit.evaluation.released_files import cell, parquet

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]
_STAGES = """
run.dir = "{root}/{name}"
run.eval_every = 1
run.checkpoint_every = 1
model.path = "{model}"
rollout.engine = "transformers"
rollout.max_new_tokens = 6

[[stage]]
name = "judge"
algo = "grpo"
run.steps = 2
rollout.prompts_per_step = 4
rollout.samples_per_prompt = 2
policy.train_batch_size = 8
eval.benchmark = [{{ name = "vl_reward_bench", path = "{root}/pairs.parquet", template = "{root}/template.txt" }}]

[[stage]]
name = "measured"
evaluate = "vl_reward_bench"
from = "judge"
data.path = "{root}/pairs.parquet"
template = "{root}/template.txt"
"""


def _figures(run_dir: Path) -> dict[float, dict[str, float]]:
    own = "eval/vl_reward_bench/"
    rows = metric_rows(run_dir)
    return {row["step"]: {name: row[name] for name in row if name.startswith(own)} for row in rows}


def _stages(root: Path, name: str, model: Path) -> Path:
    file = root / f"{name}.toml"
    file.write_text(_STAGES.format(root=root, name=name, model=model))
    return file


def test_a_killed_run_is_measured_as_the_unbroken_one_and_as_the_stage_behind_it(
    tmp_path: Path, random_model: Path
) -> None:
    question = "which response names the digit ?"
    rows = [
        {"id": "mmmu", "query": question, "response": ["one", "two"], "human_ranking": [i % 2, 1 - i % 2],
         "image": cell(60 * i)}
        for i in range(4)
    ]  # fmt: skip
    parquet(tmp_path / "pairs.parquet", *rows)
    (tmp_path / "template.txt").write_text("{question} {first} 1 , {second} 2 .")
    whole, cut = (_stages(tmp_path, name, random_model) for name in ("whole", "cut"))

    done = run_cli("--config", str(whole))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "benchmark vl_reward_bench: 4 of 4 rows, 8 questions at every evaluation" in done.stdout
    unbroken = _figures(tmp_path / "whole" / "judge")
    assert list(unbroken) == [0, 1, 2] and all("eval/vl_reward_bench/accuracy" in row for row in unbroken.values())

    run_and_kill(["--config", str(cut)], tmp_path / "cut" / "judge", rows_before=2, delay_s=0.0)
    again = run_cli("--config", str(cut))
    assert again.returncode == 0, again.stderr[-3000:]
    assert _figures(tmp_path / "cut" / "judge") == unbroken

    strict = [
        json.loads((tmp_path / name / "measured" / "scores.json").read_text())["ways"]["strict"]["figures"]
        for name in ("whole", "cut")
    ]
    assert strict[0] == strict[1]
    told = {name.removeprefix("eval/vl_reward_bench/"): value for name, value in unbroken[2].items()}
    assert {name: strict[0][name]["value"] for name in told} == told
    assert again.stdout.endswith((tmp_path / "cut" / "measured" / "scores.md").read_text())
