"""Short runs of the command line, and what two of them must have in common."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.digits import QUESTION, DigitsPaths
from tests.unit.evaluation.released_files import parquet

STEPS = 5
WARM_UP_STEPS = 30
MAX_NEW_TOKENS = 32
NUM_HELD_OUT = 24
BENCHMARK = "vl_reward_bench"
_COMPARED = (
    "reward/mean",
    "policy/loss",
    "policy/grad_norm",
    "policy/lr",
    "mismatch/logprob_abs_max",
    "sync/weights_digest48",
    "eval/accuracy",
)


def write_held_out(digits: DigitsPaths) -> Path:
    """The first pairs of the held-out file, in a file beside it, so that its media stay where they are."""
    file = digits.held_out.with_name(f"held_out_{NUM_HELD_OUT}.jsonl")
    file.write_text("".join(f"{row}\n" for row in digits.held_out.read_text().splitlines()[:NUM_HELD_OUT]))
    return file


def online_arguments(model: Path, digits: DigitsPaths, run_dir: Path) -> list[str]:
    """Five steps of StableReinforce on the digits file, two updates each, a checkpoint every second, one kept."""
    return [
        *("--algo", "stable_reinforce", "--run.dir", str(run_dir), "--run.steps", str(STEPS)),
        *("--run.checkpoint_every", "2", "--run.keep_checkpoints", "1", "--run.eval_every", "3", "--run.seed", "7"),
        *("--model.path", str(model), "--data.path", str(digits.train)),
        *("--data.eval_path", str(write_held_out(digits))),
        *("--rollout.prompts_per_step", "16", "--rollout.samples_per_prompt", "2", "--policy.train_batch_size", "16"),
        *("--rollout.max_new_tokens", str(MAX_NEW_TOKENS), "--optimizer.lr", "2e-4", "--optimizer.schedule", "linear"),
    ]


def benchmark_arguments(digits: DigitsPaths) -> list[str]:
    """Measure a run on a benchmark of four pairs at every evaluation, also in its files beside the held-out data."""
    folder = digits.held_out.parent
    pairs, template, table = (folder / name for name in ("pairs.parquet", "template.txt", "benchmark.toml"))
    judgements = digits.held_out.read_text().splitlines()[:8:2]
    parquet(pairs, *(_pair(line, folder) for line in judgements))
    template.write_text("{question} {first} 1 , {second} 2 .")
    table.write_text(f'[[eval.benchmark]]\nname = "{BENCHMARK}"\npath = "{pairs}"\ntemplate = "{template}"\n')
    return ["--config", str(table)]


def _pair(line: str, folder: Path) -> dict[str, Any]:
    """A row of the benchmark from a judgement of a digit; the right one is listed first."""
    image, text = json.loads(json.loads(line)["message"])[0]["content"]
    right, _, _, wrong, _, _ = text["text"].removeprefix(QUESTION).split()
    picture = {"bytes": (folder / image["image"]).read_bytes(), "path": None}
    return {"id": "mmmu", "query": QUESTION, "response": [right, wrong], "human_ranking": [0, 1], "image": picture}


def benchmark_trace(run_dir: Path) -> dict[float, dict[str, float]]:
    """What the benchmark said, by step."""
    own = f"eval/{BENCHMARK}/"
    told = {row["step"]: {k: v for k, v in row.items() if k.startswith(own)} for row in metric_rows(run_dir)}
    return {step: figures for step, figures in told.items() if figures}


def warm_up_arguments(model: Path, digits: DigitsPaths, run_dir: Path) -> list[str]:
    """A few supervised steps, after which the model answers in the format and is right half of the time."""
    return [
        *("--algo", "sft", "--run.dir", str(run_dir), "--model.path", str(model), "--data.path", str(digits.train)),
        *("--run.steps", str(WARM_UP_STEPS), "--run.eval_every", "1000", "--rollout.engine", "transformers"),
        *("--optimizer.lr", "2e-3", "--optimizer.schedule", "constant", "--policy.train_batch_size", "64"),
        *("--rollout.max_new_tokens", str(MAX_NEW_TOKENS)),
    ]


def metric_rows(run_dir: Path) -> list[dict[str, float]]:
    """The rows of ``metrics.jsonl``; a line that is still being written is left out."""
    file = run_dir / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def training_trace(run_dir: Path) -> list[dict[str, float]]:
    """What a resumed run must repeat exactly, row by row."""
    return [{"step": r["step"]} | {k: r[k] for k in _COMPARED if k in r} for r in metric_rows(run_dir)]


def rollout_trace(run_dir: Path) -> dict[str, list[object]]:
    """Every sampled id, seed, log-prob and reward, by file.

    Whether a verdict came from the cache depends on which of two equal questions was asked first, and changes nothing.
    """
    files = sorted((run_dir / "rollouts").glob("*.parquet"))
    return {file.name: [replace(row, reward_status="") for row in read_rollouts(file)] for file in files}
