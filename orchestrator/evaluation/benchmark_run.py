"""A model on a benchmark: what is missing is asked of a scorer, answers are kept shard by shard, and counted.

    items ──► what the scorer cannot be asked ──► scorer ──► answers, shard by shard ──► counted by every way

Workers are started only where an answer is missing, so that a second call counts what is there.
"""

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions, ask_all, missing
from orchestrator.evaluation.benchmarks.files import ItemFile, Items
from orchestrator.evaluation.benchmarks.items import Benchmark, CountOptions, Item, Questions
from orchestrator.evaluation.predictions import FILE, READING, Prediction, Predictions, asked_in, read_predictions
from orchestrator.evaluation.results import Scores, answered, score
from orchestrator.evaluation.scorers.scorer import Ask, Scorer, with_workers
from orchestrator.evaluation.verdict_readings import READINGS
from orchestrator.rewards.asking import Writer
from orchestrator.run.folder import RunFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkRun:
    """What is measured, and how."""

    name: str
    benchmark: Benchmark
    file: ItemFile
    items: Items
    options: AskOptions
    counting: CountOptions
    ways: tuple[str, ...] | None
    """None is all of them."""
    config: TrainConfig
    """Of the judge, where answers are rated."""
    folder: RunFolder


def answers_of(run: BenchmarkRun, scorer: Scorer) -> Predictions:
    """Every answer that is wanted; see ``kept_answers``."""
    judge = _judge(run.config) if run.benchmark.judge is not None else None
    asked = _made_from(run, scorer)
    return kept_answers(
        run.items.items, run.benchmark, run.options, scorer, run.folder, asked=asked, of=run.file, judge=judge
    )


def kept_answers(
    items: Sequence[Item],
    questions: Questions,
    options: AskOptions,
    scorer: Scorer,
    folder: RunFolder,
    *,
    asked: dict[str, object],
    of: ItemFile,
    judge: Writer | None = None,
) -> Predictions:
    """Every answer that is wanted; those that the folder has already are not asked for again.

    Args:
        asked: see ``Predictions``.
        of: Where the items are from, for people.
        judge: Rates answers, where the questions have that.
    Raises:
        RefusedInput: rows that the model cannot be asked, or a folder that holds answers of something else.
        GuardStop: engines, or the judge, cannot go on, or everything is refused.
    """
    if unusable := scorer.unusable(items):
        (row, reason), count = unusable[0], len(unusable)
        raise RefusedInput(f"{count} rows of {str(of.path)!r} cannot be asked; row {row}: {reason}")
    kept = Predictions(folder.root, asked=asked)

    def ask_with(ask: Ask) -> None:
        ask_all(
            items,
            questions,
            options,
            asks=scorer.asks,
            ask=ask,
            kept=kept,
            judge=judge,
            on_shard=lambda: _tell(kept, wanted),
        )

    to_go = sum(len(one.samples) for item in items for one in missing(item, scorer.asks, options, kept))
    wanted = len(kept) + to_go
    if to_go:
        sys.stderr.write(f"{to_go} answers to ask for{'' if scorer.plan is None else '; workers are started'}\n")
        with_workers(scorer, folder, ask_with)
    if items and not len(kept):
        raise GuardStop(f"none of {len(items)} rows has an answer; {_why(kept.current()[0])}")
    kept.finish()
    return kept


def scores_of(run: BenchmarkRun, predictions: Sequence[Prediction], asked: dict[str, Any], *, model: str) -> Scores:
    """The answers counted by every way.

    Raises:
        RefusedInput: rows that are no whole benchmark, such as one of the two questions about an image.
    """
    found, others = answered(run.items.items, predictions)
    notes = [*run.items.lines(), *_without_number(run, predictions), *_failed(predictions)]
    notes += [f"{others} answers are about no row of the file"] if others else []
    try:
        return score(
            run.name,
            run.benchmark,
            found,
            model=model,
            options=run.counting,
            ways=run.ways,
            asked=asked,
            notes=notes,
        )
    except ValueError as error:
        raise RefusedInput(f"{str(run.file.path)!r}: {error}") from error


def scores_in(run: BenchmarkRun, folder: Path) -> Scores:
    """Those of another model, from the answers in the folder of its run, whose verdicts are read as it was asked.

    Raises:
        RefusedInput: there are none, they are of other rows, or their verdicts are in a form that nobody knows.
    """
    asked = {"benchmark": run.name, READING: run.counting.reading} | asked_in(folder)
    if asked["benchmark"] != run.name:
        raise RefusedInput(f"{str(folder)!r} holds answers to {asked['benchmark']!r}, not to {run.name!r}")
    if (reading := str(asked[READING])) not in READINGS:
        raise RefusedInput(f"{str(folder)!r} has verdicts of reading = {reading!r}: expected {', '.join(READINGS)}")
    counted = replace(run, counting=replace(run.counting, reading=reading))
    return scores_of(counted, read_predictions(folder / FILE), asked, model=folder.name)


def _without_number(run: BenchmarkRun, predictions: Sequence[Prediction]) -> list[str]:
    """How many responses have no reward, or no likelihood, and why the first."""
    without = [one for one in predictions for reward in one.rewards if math.isnan(reward)]
    if not without:
        return []
    first, number = without[0], "likelihood" if run.benchmark.asks == "likelihoods" else "reward"
    return [f"{len(without)} responses have no {number}; the first is in row {first.row}, {first.finish_reason}"]


def _failed(predictions: Sequence[Prediction]) -> list[str]:
    """How many questions have no answer, and why the first."""
    failed = [one for one in predictions if one.status == "failed"]
    if not failed:
        return []
    return [
        f"{len(failed)} questions have no answer, and count as unreadable until the same command gets one; the first "
        f"is {_why(failed[0])}"
    ]


def _why(failed: Prediction) -> str:
    return f"about row {failed.row}: {'the judge gave no rating' if failed.text else failed.finish_reason}"


def _tell(kept: Predictions, wanted: int) -> None:
    sys.stderr.write(f"{len(kept)} of {wanted} answers are kept\n")


def _judge(config: TrainConfig) -> Writer:
    from orchestrator.rewards.check import secret_in
    from orchestrator.rewards.endpoint import EndpointWriter  # deferred: the client takes a second to load

    reward = config.reward
    assert reward.judge_url is not None and reward.judge_model is not None, "refused before anything is asked"
    return EndpointWriter(
        reward.judge_url,
        reward.judge_model,
        key=secret_in(reward.judge_key_file, option="reward.judge_key_file", what="key"),
        max_new_tokens=reward.judge_max_new_tokens,
        timeout_s=reward.timeout_s,
        max_outage_s=reward.max_outage_s,
    )


def _made_from(run: BenchmarkRun, scorer: Scorer) -> dict[str, object]:
    """All that the answers depend on; not how many samples there are, for more of them are asked for."""
    judge = run.config.reward if run.benchmark.judge is not None else None
    return scorer.made_from() | {
        "benchmark": run.name,
        "file": run.file.sha256,
        "request": hashlib.sha256(run.options.request.encode()).hexdigest(),
        READING: run.counting.reading,
        "both_orders": run.options.both_orders,
        "video_frames": run.file.video_frames,
        "judge": None if judge is None else judge.judge_model,
        "judge_max_new_tokens": None if judge is None else judge.judge_max_new_tokens,
    }
