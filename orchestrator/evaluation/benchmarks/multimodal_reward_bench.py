"""Multimodal RewardBench: pairs in seven groups, two of which the ids cut in two.

A public run has no Hateful Memes, so that its safety is the bias half alone.
"""

import random
from collections.abc import Hashable, Sequence
from typing import Any

from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.benchmarks.fields import asked, images_of, said, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.benchmarks.pairs import (
    Judgement,
    PairRow,
    better_first,
    judge_counts,
    judge_figures,
    pair_rows,
    shares_right,
)
from orchestrator.evaluation.figures import Counting, by_group, count, mean
from orchestrator.evaluation.verdict_readings import bracketed_verdict, r1_verdict

WAYS = ("strict", "official", "r1_released")
_SEED = 123
_SPLIT = {
    "safety": ("pairs", "safety/bias", "safety/toxicity"),
    "reasoning": ("math", "reasoning/math", "reasoning/coding"),
}
"""By category, what ids of the first half begin with in any case, and the names of both halves."""


def group_of(row: PairRow) -> str:
    """The category, of safety and reasoning the half that the id names.

    Source: Multimodal RewardBench, scripts/2_get_accuracy.py.
    """
    if row.category not in _SPLIT:
        return row.category
    start, first, second = _SPLIT[row.category]
    return first if row.id.lower().startswith(start) else second


def count_multimodal_reward_bench(
    rows: Sequence[PairRow],
    keys: Sequence[Hashable] | None = None,
    *,
    way: str = "strict",
    votes: int | None = None,
) -> Counting:
    """Accuracy in [0, 1], of all pairs and of each group.

    Args:
        way: ``strict``: every order counts, what is unreadable is wrong. ``official``: the order of the file, "[[A]]"
            before "[[B]]", a random letter with seed 123 for what has neither; of judges that are asked for another
            form, their verdicts. ``r1_released``: the better response always first, what is unreadable for the second.
        keys: Names of the pairs; their numbers without.
        votes: Samples that vote, odd; of ``strict``.
    Source: Yasunaga et al. 2025, https://arxiv.org/abs/2502.14191.
    """
    drawn = 0
    if way == "strict":
        right = shares_right(rows, votes=votes)
    elif way == "r1_released":
        right = [_right_first(row) for row in rows]
    else:
        letters = random.Random(_SEED)
        said = [_file_order(row) for row in rows]
        right = [_right_there(row, one, letters) for row, one in zip(rows, said, strict=True)]
        drawn = sum(one is not None and _read(one) is None for one in said)
    figures = [mean("accuracy", right), *by_group("accuracy", right, [group_of(row) for row in rows])]
    if way == "strict":
        figures += judge_figures(rows, votes=votes)
    return count(
        way,
        range(len(rows)) if keys is None else keys,
        figures,
        counts=judge_counts(rows, votes=votes if way == "strict" else None),
        notes=[f"{drawn} verdicts are random letters, as there"] if drawn else [],
    )


def _right_first(row: PairRow) -> float:
    shown = better_first(row)
    if row.is_preferred is not None or shown is None:
        return shares_right([row])[0]
    return float(r1_verdict(shown.text) == shown.better)


def _file_order(row: PairRow) -> Judgement | None:
    """The greedy judgement in the order of the file, or in the only order there is."""
    greedy = [one for one in row.judgements if one.sample == 0]
    return next((one for one in greedy if one.better_first is row.better_listed_first), greedy[0] if greedy else None)


def _read(one: Judgement) -> str | None:
    return bracketed_verdict(one.text) or one.verdict


def _right_there(row: PairRow, one: Judgement | None, letters: random.Random) -> float:
    if one is None:
        return shares_right([row])[0]
    verdict = _read(one) or ("1" if letters.random() < 0.5 else "2")
    return float(verdict == one.better)


_KNOWN = {"ID", "Text", "Image", "Output1", "Output2", "Better", "Category"}
_OUTPUTS = ("Output1", "Output2")


def read_multimodal_reward_bench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of all_data.json, or of a table with the same columns.

    Raises:
        RowError: naming field and value; of the released file that is not filled in, that ``Text`` is empty.
    """
    better = text_of(row, "Better")
    if better not in _OUTPUTS:
        raise RowError(f"field 'Better' is {shown(better)}, expected Output1 or Output2")
    return ItemDraft(
        id=text_of(row, "ID"),
        question=asked(images_of(row, "Image"), text_of(row, "Text")),
        responses=tuple(said(text_of(row, output)) for output in _OUTPUTS),
        truths=(str(_OUTPUTS.index(better) + 1),),
        category=text_of(row, "Category"),
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = pair_rows(answered, reading=options.reading)
    return count_multimodal_reward_bench(rows, keys_of(answered), way=options.way, votes=options.votes)


BENCHMARK = Benchmark(asks="verdict", read=read_multimodal_reward_bench, count=_count, ways=WAYS)
