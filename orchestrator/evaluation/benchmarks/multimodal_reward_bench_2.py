"""Multimodal RewardBench 2: four tasks of a thousand pairs, whose responses are texts and images mixed."""

import re
from collections.abc import Hashable, Sequence
from typing import Any

from orchestrator.data.media import media_parts
from orchestrator.data.rows import RowError, shown
from orchestrator.evaluation.benchmarks.fields import image_numbers, text_of, unknown
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, Part, keys_of
from orchestrator.evaluation.benchmarks.pairs import (
    PairRow,
    judge_counts,
    judge_figures,
    pair_rows,
    shares_right,
    verdicts,
)
from orchestrator.evaluation.figures import Counting, Figure, by_group, count, mean, ratio

TASKS = ("t2i", "edit", "interleaved", "reasoning")
WAYS = ("strict", "official")


def count_multimodal_reward_bench_2(
    rows: Sequence[PairRow],
    keys: Sequence[Hashable] | None = None,
    *,
    way: str = "strict",
    votes: int | None = None,
) -> Counting:
    """Accuracy in [0, 1] of judgements, over all tasks and of each, which is the row's category.

    Args:
        way: ``strict``: what is unreadable is wrong. ``official``: it leaves the denominator, which raises the
            accuracy. The release calls this mean of both orders positional-consistent; how often both orders agree is
            ``consistent`` in ``strict``.
        keys: Names of the pairs; their numbers without.
        votes: Samples that vote, odd; of ``strict``.
    Source: Hu et al. 2025, https://arxiv.org/abs/2512.16899; MMRB2, evaluate/compute_scores/compute_accuracy.py.
    """
    tasks = [row.category for row in rows]
    if way == "strict" or not any(row.judgements for row in rows):
        right = shares_right(rows, votes=votes)
        figures = [mean("accuracy", right), *by_group("accuracy", right, tasks), *judge_figures(rows, votes=votes)]
        return count(way, _names(rows, keys), figures, counts=judge_counts(rows, votes=votes))
    read = [[(one, v) for one, v in verdicts(row) if v is not None] for row in rows]
    hits = [float(sum(verdict == one.better for one, verdict in own)) for own in read]
    asked = [float(len(own)) for own in read]
    figures = [Figure("accuracy", (ratio(hits, asked),))]
    for task in sorted(set(tasks)):
        own = [float(one == task) for one in tasks]
        part, whole = ([a * b for a, b in zip(n, own, strict=True)] for n in (hits, asked))
        figures.append(Figure(f"accuracy/{task}", (ratio(part, whole),)))
    counts = judge_counts(rows)
    left_out = counts["unreadable"]
    notes = [f"{left_out} unreadable verdicts are left out, which raises the accuracy"] if left_out else []
    return count(way, _names(rows, keys), figures, counts=counts, notes=notes)


def _names(rows: Sequence[PairRow], keys: Sequence[Hashable] | None) -> Sequence[Hashable]:
    return range(len(rows)) if keys is None else keys


_KNOWN = {
    "id", "pair_id", "chosen", "prompt_text", "prompt_images", "prompt_content", "prompt_source", "prompt_metadata",
    "human_annotations", "task",
    *(f"response_{side}{part}" for side in "ab" for part in ("", "_text", "_images", "_model")),
}  # fmt: skip
_PLACE = re.compile(r"<image_(\d+)>")


def rows_of_multimodal_reward_bench_2(whole: Any) -> list[Any] | None:
    """The pairs of a task's JSON file."""
    pairs = whole.get("pairs") if isinstance(whole, dict) else None
    return pairs if isinstance(pairs, list) else None


def read_multimodal_reward_bench_2(row: dict[str, Any], name: str) -> ItemDraft:
    """A row of the Parquet release, or a pair of the JSON that is built from it; responses hold images, too.

    Args:
        name: Last names of the file's path, which tell the task.
    Raises:
        RowError: naming field and value.
    """
    task = text_of(row, "task", default=next((one for one in TASKS if one in name), ""))
    if task not in TASKS:
        raise RowError(f"neither a column 'task' nor the file's path {shown(name)} names one of {', '.join(TASKS)}")
    chosen = text_of(row, "chosen").strip().upper()
    if chosen not in ("A", "B"):
        raise RowError(f"field 'chosen' is {shown(row.get('chosen'))}, expected A or B")
    return ItemDraft(
        id=text_of(row, "id", "pair_id"),
        question=_content(row, "prompt"),
        responses=(_content(row, "response_a"), _content(row, "response_b")),
        truths=("1" if chosen == "A" else "2",),
        category=task,
        unread=unknown(row, _KNOWN),
    )


def _content(row: dict[str, Any], of: str) -> tuple[Part, ...]:
    written = row.get(f"{of}_content")
    if written is None and isinstance(row.get(of), dict):
        written = row[of].get("response_content")
    if written is not None:
        return _listed(written, of)
    images = media_parts(row, image_fields=(f"{of}_images",))["image"]
    pieces = _PLACE.split(text_of(row, f"{of}_text", default=""))
    named = image_numbers(
        pieces[1::2], len(images), told=f"field '{of}_text' names '<image_{{}}>', the row has {{}} images there"
    )
    parts = [
        images[int(piece) - 1] if i % 2 else {"type": "text", "text": piece} for i, piece in enumerate(pieces) if piece
    ]
    # What nothing names stands behind the words, as the release shows a drawn picture.
    found = (*parts, *(part for number, part in enumerate(images, start=1) if number not in named))
    if not found:
        raise RowError(f"field '{of}_text' is empty, and so is '{of}_images'")
    return found


def _listed(written: Any, of: str) -> tuple[Part, ...]:
    """Parts of ``[["text", words], ["image", path], ...]``."""
    fine = isinstance(written, list) and all(
        isinstance(one, list) and len(one) == 2 and one[0] in ("text", "image") and isinstance(one[1], str)
        for one in written
    )
    if not fine or not written:
        raise RowError(f"field {of!r} has the content {shown(written)}, expected pairs of text or image and its words")
    return tuple({"type": kind, kind: words} for kind, words in written)


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    rows = pair_rows(answered, reading=options.reading)
    return count_multimodal_reward_bench_2(rows, keys_of(answered), way=options.way, votes=options.votes)


BENCHMARK = Benchmark(
    asks="verdict",
    read=read_multimodal_reward_bench_2,
    count=_count,
    ways=WAYS,
    unpack=rows_of_multimodal_reward_bench_2,
)
