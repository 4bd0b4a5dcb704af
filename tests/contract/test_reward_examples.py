"""The examples of rewards: what their files say is what happens."""

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.config import load_config
from orchestrator.config.load import load_runs
from orchestrator.train import main
from remote_rm.app import create_app
from remote_rm.functions.pool import Bounds, FunctionPool
from remote_rm.functions.spec import function_specs
from remote_rm.judges.rules import RulesJudge
from tests.contract.service import in_process
from tests.tiny_models import write_qwen2_5_vl

_EXAMPLES = Path(__file__).parents[2] / "examples"


def _picture(rng: np.random.Generator) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).save(file, format="PNG")
    return {"bytes": file.getvalue(), "path": None}


def test_geometry3k_is_read_and_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, problems = np.random.default_rng(0), [("<image>Find x.", "3"), ("<image>Find the area.", "4\\sqrt{3}")]
    table = pa.table(
        {
            "images": [[_picture(rng)] for _ in problems],
            "problem": [problem for problem, _ in problems],
            "answer": [answer for _, answer in problems],
        }
    )
    pq.write_table(table, tmp_path / "train.parquet")
    model = write_qwen2_5_vl(tmp_path / "model")
    arguments = [
        *("--dry-run", "--config", str(_EXAMPLES / "geometry3k" / "config.toml"), "--model.path", str(model)),
        *("--data.path", str(tmp_path / "train.parquet"), "--rollout.max_new_tokens", "64"),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "512 prompts x 5 samples = 2560 completions" in said and "learned from: 2 rows" in said


def test_own_rewards_score_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(_EXAMPLES.parent)
    config, _ = load_config(["--config", str(_EXAMPLES / "own_reward" / "config.toml")])
    texts = [
        "<think> two plus nine </think> <answer> 11 </answer>",
        "<think> two plus eight </think> <answer> 10 </answer>",
    ]
    items = [{"id": text, "prompt": "?", "response": text, "label": "11"} for text in texts]

    async def scored() -> Any:
        pool = FunctionPool(function_specs(config.reward.functions), Bounds(workers=1))
        async with in_process(create_app(RulesJudge(), None, functions=pool)) as client:
            return (await client.post("/v1/rewards", json={"request_id": "r", "items": items})).json()

    assert [one["reward"] for one in asyncio.run(scored())["items"]] == [1.5, 0.5]


def test_the_blind_judge_differs_from_the_pipelines_last_stage_in_what_it_sees_alone() -> None:
    folder = _EXAMPLES / "judge_then_policy"
    seeing = load_runs(["--config", str(folder / "pipeline.toml")])[0][-1].config
    blind, _ = load_config(["--config", str(folder / "blind.toml")])
    one, other = (json.loads(config.model_dump_json()) for config in (seeing, blind))
    assert (one["reward"].pop("judge_images"), other["reward"].pop("judge_images")) == ("own", "shuffled")
    for config, at in ((one, "stage:"), (other, "runs/judge_then_policy/")):
        assert config["model"].pop("path").startswith(at) and config["reward"].pop("judge_path").startswith(at)
        config["run"].pop("dir")
    assert one == other
