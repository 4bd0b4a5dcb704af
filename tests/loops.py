"""Whole loops in the test's own process: their configuration, prompts and folder, and rewards by chance."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.config import TrainConfig, load_config
from orchestrator.data.counted import Told
from orchestrator.data.prompts import RunData
from orchestrator.data.reading import Dataset
from orchestrator.rewards.reward import Reward
from orchestrator.run.folder import RunFolder
from tests.tiny_prompts import picture_prompts

BUDGET = 256
"""Tokens of a micro-batch."""


def loop_config(model: Path, root: Path, algo: str, *flags: str) -> TrainConfig:
    config, _ = load_config(
        [
            *("--algo", algo, "--model.path", str(model), "--run.dir", str(root / "run"), "--run.steps", "3"),
            *("--run.eval_every", "2", "--run.checkpoint_every", "100", "--optimizer.warmup_frac", "0"),
            *("--model.dtype", "float32"),
            *("--policy.tokens_per_microbatch", str(BUDGET), "--policy.train_batch_size", "4", *flags),
        ]
    )
    return config.model_copy(update={"run": config.run.model_copy(update={"trackers": ()})})


def metric_rows(folder: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in folder.metrics.read_text().splitlines()]


@contextmanager
def run_folder(root: Path) -> Iterator[RunFolder]:
    folder = RunFolder(root / "run")
    folder.create()
    try:
        yield folder
    finally:
        folder.release()


def told_prompts(root: Path) -> RunData:
    prompts = picture_prompts(root, {f"train-{n}": n % 2 for n in range(8)})
    told = [replace(p, target="which ?", label="1", meta={"question": "which ?"}) for p in prompts]
    train = Dataset(prompts=tuple(told[:6]), bad_rows=(), fingerprint="f")
    return RunData(train=train, held_out=tuple(told[6:]), held_out_fingerprint="h", told=Told())


class ScoresByChance:
    """A reward client of whose rewards a share fails at random."""

    def __init__(self, failing: float) -> None:
        self._failing, self._random = failing, np.random.default_rng(0)

    def open_stream(self) -> Any:
        found: dict[str, Reward] = {}
        scores = self

        class Stream:
            def add(self, item: Any) -> None:
                lost = scores._random.random() < scores._failing
                value = None if lost else float(scores._random.integers(0, 3))
                part = None if lost else 1.0
                found[f"{item.uid}/{item.sample_index}"] = Reward(
                    value=value, parts={"format": part, "accuracy": part},
                    status="failed" if lost else "scored", detail="the judge is away" if lost else None,
                )  # fmt: skip

            def results(self) -> dict[str, Reward]:
                return found

        return Stream()
