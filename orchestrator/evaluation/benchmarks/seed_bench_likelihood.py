"""SEEDBench-Img by likelihood: the bare question, and which option the model would rather go on with."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from orchestrator.evaluation.benchmarks.fields import asked, said
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.benchmarks.seed_bench import (
    SeedRow,
    count_seed_bench,
    read_seed_bench,
    rows_of_seed_bench,
)
from orchestrator.evaluation.figures import Counting

_BEGUN = "The answer is: "


def read_seed_bench_likelihood(row: dict[str, Any], name: str) -> ItemDraft:
    """A row as ``seed_bench`` reads it, its options as whole responses.

    Raises:
        RowError: naming field and value.
    Source: VL-RLHF, seedbench/eval.py.
    """
    draft = read_seed_bench(row, name)
    (*images, _), question = draft.question, draft.meta["question"]
    responses = tuple(said(f"{_BEGUN}{text}") for text in draft.options.values())
    return replace(draft, question=asked(images, question), responses=responses)


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = []
    for one in answered:
        item = one.item
        likelihoods = next((p.rewards for p in one.predictions if p.rewards), (math.nan,) * len(item.options))
        nll = {letter: -mean for letter, mean in zip(item.options, likelihoods, strict=True)}
        rows.append(SeedRow(label=item.truths[0], type=item.category, nll=nll))
    return replace(count_seed_bench(rows, keys_of(answered), way="likelihood"), way=options.way)


BENCHMARK = Benchmark(
    asks="likelihoods",
    read=read_seed_bench_likelihood,
    count=_count,
    ways=("strict",),
    unpack=rows_of_seed_bench,
)
