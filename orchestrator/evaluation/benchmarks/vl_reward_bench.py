"""VL-RewardBench: 1,250 pairs, in three categories that are cut in three ways, so that only the overall compares.

Rows of each category, general / hallucination / reasoning: 183 / 749 / 318 by the official script and lmms-eval,
631 / 301 / 318 by UnifiedReward's, 484 / 448 / 318 by R1-Reward's. Of 1,245 of the rows the better response is listed
first, so that a judge that always says "1" is right 99.6 % of the time where nobody changes the order.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.benchmarks.fields import asked, list_of, needed_images, said, text_of, texts_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.benchmarks.pairs import (
    PairRow,
    better_first,
    judge_counts,
    judge_figures,
    one_order,
    pair_rows,
    shares_right,
)
from orchestrator.evaluation.figures import Counting, Figure, by_group, count, macro, masked
from orchestrator.evaluation.verdict_readings import r1_verdict, says_unified, unified_verdict

CATEGORIES = ("general", "hallucination", "reasoning")
NUM_ROWS = 1_250
_OFFICIAL = {
    "hallucination": "hallucination",
    "rlhf": "hallucination",
    "rlaif": "hallucination",
    "mathverse": "reasoning",
    "mmmu": "reasoning",
}
_UNIFIED = {"RLAIF": "hallucination", "RLHF": "hallucination", "mathverse": "reasoning", "mmmu": "reasoning"}


def category_official(name: str) -> str:
    """By what the id begins with, in any case; anything else is general.

    Source: VL-RewardBench, cal.py, which has folders of images for it; lmms-eval, tasks/vl_rewardbench, has the ids.
    """
    return _OFFICIAL.get(name.split("-")[0].split("_")[0].lower(), "general")


def category_unified(name: str) -> str:
    """The same, but that ids are told apart by case and "hallucination_pair" is in no list: those rows are general.

    Source: UnifiedReward, benchmark_evaluation, test_qwen_vlreward_bench.py.
    """
    return _UNIFIED.get(name.split("-")[0].split("_")[0], "general")


def category_r1(name: str) -> str:
    """By what stands anywhere in the id, in lower case: "RLAIF-V-1" and "RLHF-V-1" are general.

    Source: R1-Reward, inference/VL-Reward-Bench/get_acc.py:5-11.
    """
    if "mmmu" in name or "mathverse" in name:
        return "reasoning"
    return "hallucination" if any(word in name for word in ("hallucination", "rlhf", "rlaif")) else "general"


_CATEGORY: dict[str, Callable[[str], str]] = {"r1_released": category_r1, "unified_reward": category_unified}
WAYS = ("strict", "official", "r1_released", "unified_reward")


def count_vl_reward_bench(
    rows: Sequence[PairRow],
    keys: Sequence[Hashable] | None = None,
    *,
    way: str = "strict",
    votes: int | None = None,
    seed: int = 0,
) -> Counting:
    """Accuracy in [0, 1], overall, of each category, and ``macro``, the mean of the three.

    Args:
        way: ``strict``: every order counts, what is unreadable is wrong. ``official``: one order of each pair, its
            samples vote, a pair with an unreadable one is left out. ``r1_released``: the better response always first,
            what is unreadable is for the second. ``unified_reward``: one order of each pair, "Answer N is better"
            anywhere in the text. Of rewards all ways say the same but for the categories.
        keys: Names of the pairs; their numbers without. Ids repeat, so they are none.
        votes: Samples that vote, odd; see ``pairs.verdicts``. R1-Reward's and UnifiedReward's scripts have no votes.
        seed: Chooses the order where one counts.
    Source: Li et al. 2024, https://arxiv.org/abs/2411.17451.
    """
    names = list(range(len(rows))) if keys is None else list(keys)
    if way == "strict":
        right: list[float | None] = list(shares_right(rows, votes=votes))
    else:
        right = [_right(row, way, votes, seed, key) for row, key in zip(rows, names, strict=True)]
    groups, among = [_group(row, way) for row in rows], [one is not None for one in right]
    values = [one or 0.0 for one in right]
    figures = [
        Figure("accuracy", (masked(values, among),)),
        macro("macro", values, groups, of=CATEGORIES, among=among),
        *by_group("accuracy", values, groups, among=among),
    ]
    counts = judge_counts(rows, votes=votes if way == "strict" else None)
    if way == "strict":
        figures += judge_figures(rows, votes=votes)
    return count(way, names, figures, counts=counts, notes=_notes(rows, groups, among, way))


def _group(row: PairRow, way: str) -> str:
    """By the id, as the way has it; of a TSV file, whose ids are numbers, the official one that it names."""
    return row.category if row.category in CATEGORIES else _CATEGORY.get(way, category_official)(row.id)


def _right(row: PairRow, way: str, votes: int | None, seed: int, key: Hashable) -> float | None:
    """Whether the pair is right; None where it is left out."""
    if row.is_preferred is not None:
        return float(row.is_preferred)
    if way == "r1_released":
        shown = better_first(row)
        return None if shown is None else float(r1_verdict(shown.text) == shown.better)
    asked = one_order(row, seed=seed, key=key)
    if way == "unified_reward":
        (one, *_) = asked
        right = unified_verdict(one.text, better=one.better) if says_unified(one.text) else one.is_right
        return float(right)
    sampled = asked[1 : 1 + votes] if votes else asked[:1]
    if not sampled or any(one.verdict is None for one in sampled):
        return None
    return float(sum(one.is_right for one in sampled) > len(sampled) / 2)


def _notes(rows: Sequence[PairRow], groups: Sequence[str], among: Sequence[bool], way: str) -> list[str]:
    notes = []
    if len(rows) != NUM_ROWS:
        notes.append(f"the benchmark has {NUM_ROWS} pairs, these are {len(rows)}")
    if missing := [name for name in CATEGORIES if name not in groups]:
        notes.append(f"no rows of {', '.join(missing)}, which count as 0 in the macro average")
    if way in _CATEGORY and any(row.category in CATEGORIES for row in rows):
        notes.append("the file names the official categories and no ids, from which others could be made")
    if left_out := list(among).count(False):
        why = (
            "were never shown with the better response first" if way == "r1_released" else "have an unreadable verdict"
        )
        notes.append(f"{left_out} pairs {why} and are left out")
    return notes


_KNOWN = {
    "id", "index", "query", "question", "prompt", "response", "image", "human_ranking", "answer", "category", "models",
    "judge", "rationale", "query_source", "meta", "human_error_analysis", "ground_truth", "chosen", "rejected",
    "chosen_reason", "rejected_reason",
}  # fmt: skip


def read_vl_reward_bench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of the Parquet release, of VLMEvalKit's TSV, or of the JSONL that R1-Reward ships.

    Raises:
        RowError: naming field and value.
    """
    if "chosen" in row:
        responses, better = [text_of(row, "chosen"), text_of(row, "rejected")], 0
    else:
        responses, better = texts_of(row, "response"), _better(row)
        if len(responses) != 2:
            raise RowError(f"field 'response' holds {len(responses)} responses, expected two")
    return ItemDraft(
        id=text_of(row, "id", "index"),
        question=asked(needed_images(row), text_of(row, "query", "question", "prompt")),
        responses=tuple(map(said, responses)),
        truths=(str(better + 1),),
        category=text_of(row, "category", default=""),
        unread=unknown(row, _KNOWN),
    )


def _better(row: dict[str, Any]) -> int:
    column = "human_ranking" if "human_ranking" in row else "answer"
    ranking = list_of(row, column)
    if sorted(map(str, ranking)) != ["0", "1"]:
        raise RowError(f"field {column!r} is {shown(ranking)}, expected [0, 1] or [1, 0], 0 the better")
    return [str(one) for one in ranking].index("0")


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = pair_rows(answered, reading=options.reading)
    return count_vl_reward_bench(rows, keys_of(answered), way=options.way, votes=options.votes, seed=options.seed)


BENCHMARK = Benchmark(asks="verdict", read=read_vl_reward_bench, count=_count, ways=WAYS)
