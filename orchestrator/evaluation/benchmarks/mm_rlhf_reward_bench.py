"""MM-RLHF-RewardBench: does a reward model, or a judge, prefer what people prefer?

Invariant: a pair is right only if its better response has strictly the greater reward; equal rewards and NaN are wrong
and stay in every count. Of judgements in both orders a pair counts by the share that is right, and an instruction only
if all are.
"""

from collections.abc import Hashable, Sequence
from pathlib import PurePosixPath
from typing import Any

from orchestrator.data.media import media_parts
from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.benchmarks.fields import asked, said, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, keys_of
from orchestrator.evaluation.benchmarks.pairs import (
    PairRow,
    better_first,
    judge_counts,
    judge_figures,
    pair_rows,
    shares_right,
)
from orchestrator.evaluation.figures import Counting, Figure, count, mean
from orchestrator.evaluation.verdict_readings import r1_verdict

CATEGORIES = ("mcq", "long", "short", "safety", "video")
NUM_PAIRS, NUM_IDS = 170, 46
WAYS = ("strict", "mmrlhf_released", "r1_released")


def count_mm_rlhf_reward_bench(
    rows: Sequence[PairRow],
    keys: Sequence[Hashable] | None = None,
    *,
    way: str = "strict",
    votes: int | None = None,
) -> Counting:
    """ACC, ``accuracy``: right pairs among all; ACC+, ``accuracy_plus``: instructions with all their pairs right.

    Overall, of all pairs and all instructions alike, so no mean over categories, and of each category.

    Args:
        way: ``strict``: the category is the first folder of the path. ``mmrlhf_released``: it is the first name that
            occurs anywhere in the path, so ``short/belong.png`` is long; ACC+ of a category divides by the instructions
            whose path holds its name anywhere, and credits one category only; a path without a name counts overall.
            ``r1_released``: the same script over verdicts, the better response always first, what is unreadable for
            the second.
        keys: Are not used: an instruction is drawn with all its pairs.
        votes: Samples that vote, odd; of ``strict``.
    Raises:
        ValueError: ``strict``, and a path outside the categories.
    Source: Zhang et al. 2025, section 3.2, https://arxiv.org/abs/2502.10391; MM-RLHF,
        cal_performance_mmreweard_bench.py, which R1-Reward has as inference/MM-RLHF-Reward/get_acc.py.
    """
    right = _shares(rows, way, votes)
    first, whole = _instructions(rows, [share == 1.0 for share in right])
    figures = [mean("accuracy", right), mean("accuracy_plus", whole, among=first)]
    groups = [category_of(row) if way == "strict" else _first_name(row.media) for row in rows]
    for name in (n for n in CATEGORIES if n in groups):
        figures.append(mean(f"accuracy/{name}", right, among=[group == name for group in groups]))
        figures.append(_plus(rows, name, groups, whole, first, released=way != "strict"))
    if way == "strict":
        figures += judge_figures(rows, votes=votes)
    counts = {**judge_counts(rows, votes=votes if way == "strict" else None), "ids": sum(first)}
    missing = [name for name in CATEGORIES if name not in groups]
    notes = [f"no rows of {', '.join(missing)}: the overall figures compare with no published ones"] if missing else []
    return count(way, [row.id for row in rows], figures, counts=counts, notes=notes)


def category_of(row: PairRow) -> str:
    """The first component of the row's path.

    Raises:
        ValueError: it is none of ``CATEGORIES``.
    """
    parts = PurePosixPath(row.media).parts
    if not parts or parts[0] not in CATEGORIES:
        raise ValueError(f"media {row.media!r} of id {row.id!r} must begin with one of the folders {list(CATEGORIES)}")
    return parts[0]


def _first_name(media: str) -> str:
    return next((name for name in CATEGORIES if name in media), "")


def _shares(rows: Sequence[PairRow], way: str, votes: int | None) -> list[float]:
    if way != "r1_released":
        return shares_right(rows, votes=votes if way == "strict" else None)
    shares = []
    for row in rows:
        shown = better_first(row)
        if row.is_preferred is not None or shown is None:
            shares += shares_right([row])
        else:
            shares.append(float(r1_verdict(shown.text, script="first_line") == shown.better))
    return shares


def _instructions(rows: Sequence[PairRow], right: Sequence[bool]) -> tuple[list[bool], list[float]]:
    """Of each row, whether it is the first of its instruction, and whether all pairs of that are right."""
    all_right: dict[str, bool] = {}
    for row, fine in zip(rows, right, strict=True):
        all_right[row.id] = all_right.get(row.id, True) and fine
    seen: set[str] = set()
    first = [row.id not in seen and not seen.add(row.id) for row in rows]
    return first, [float(all_right[row.id]) for row in rows]


def _plus(
    rows: Sequence[PairRow],
    name: str,
    groups: Sequence[str],
    whole: Sequence[float],
    first: Sequence[bool],
    *,
    released: bool,
) -> Figure:
    """ACC+ of a category, over its instructions; each is counted at its first row."""
    members: dict[str, set[str]] = {}
    for row, group in zip(rows, groups, strict=True):
        named = {other for other in CATEGORIES if other in row.media} if released else {group}
        members.setdefault(row.id, set()).update(named)
    among = [f and name in members[row.id] for f, row in zip(first, rows, strict=True)]
    # Released, an instruction is right in the first of its categories and wrong in the others.
    credited = [not released or next((n for n in CATEGORIES if n in members[row.id]), "") == name for row in rows]
    return mean(f"accuracy_plus/{name}", [w * c for w, c in zip(whole, credited, strict=True)], among=among)


_KNOWN = {"id", "image", "video", "prompt", "chosen", "rejected", "chosen_reason", "rejected_reason"}


def read_mm_rlhf_reward_bench(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of mm_reward_bench.jsonl; a video is a folder of frames, in the order of their numbers, or a file.

    Raises:
        RowError: naming field and value, or it has no image and no video, whose path tells the category.
    """
    found = media_parts(row)
    media = [*found["image"], *found["video"]]
    if not media:
        raise RowError("fields 'image' and 'video' are empty: the path tells the category")
    path = media[0][media[0]["type"]]
    if PurePosixPath(path).parts[:1] not in {(name,) for name in CATEGORIES}:
        raise RowError(f"media {shown(path)} must begin with one of the folders {', '.join(CATEGORIES)}")
    return ItemDraft(
        id=text_of(row, "id"),
        question=asked(media, text_of(row, "prompt")),
        responses=(said(text_of(row, "chosen")), said(text_of(row, "rejected"))),
        truths=("1",),
        group=text_of(row, "id"),
        meta={"media": path},
        unread=unknown(row, _KNOWN),
    )


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = pair_rows(answered, reading=options.reading)
    return count_mm_rlhf_reward_bench(rows, keys_of(answered), way=options.way, votes=options.votes)


BENCHMARK = Benchmark(asks="verdict", read=read_mm_rlhf_reward_bench, count=_count, ways=WAYS)
