"""Files in the form of R1-Reward-RL: judgements that a model is asked for in the very words it would be trained on.

So it measures a judge on held-out judgements, and its predictions are attempts by which hard ones are chosen
(``orchestrator.data.attempts``). A row shows its two responses in one order and is asked in no other.
"""

from collections.abc import Sequence
from typing import Any

from orchestrator.data.judgements import pair_of
from orchestrator.data.readers.r1_reward import read_r1_reward
from orchestrator.data.rows import RowError
from orchestrator.evaluation.benchmarks.fields import text_of
from orchestrator.evaluation.benchmarks.items import Answered, Benchmark, CountOptions, ItemDraft, Part, keys_of
from orchestrator.evaluation.benchmarks.pairs import judge_counts, judge_figures, pair_rows, shares_right
from orchestrator.evaluation.figures import Counting, by_group, count, mean


def read_judgements(row: dict[str, Any], name: str) -> ItemDraft:
    """A row as it is released, or as ``orchestrator.data judgements`` makes it.

    Raises:
        RowError: naming field and value; or its message is not one turn of the user.
    """
    draft = read_r1_reward(row)
    roles = [turn["role"] for turn in draft.turns]
    if roles != ["user"]:
        raise RowError(f"field 'message' has the turns {', '.join(roles)}, expected one of the user")
    assert draft.label is not None, "the reader refuses a row without one"
    identity = text_of(row, "id", default="")
    return ItemDraft(
        id=identity,
        question=_with_pictures(draft.turns[0]["content"], draft.in_row),
        truths=(draft.label,),
        category=draft.label,
        group=pair_of(identity)[0],
        unread=draft.unread[0],
    )


def _with_pictures(parts: Sequence[Part], in_row: Sequence[str]) -> tuple[Part, ...]:
    """The parts with the row's own pictures, which count where there are as many as images."""
    if len(in_row) != sum(part["type"] == "image" for part in parts):
        return tuple(parts)
    pictures = iter(in_row)
    return tuple({"type": "image", "image": next(pictures)} if part["type"] == "image" else part for part in parts)


def _count(answered: Sequence[Answered], options: CountOptions) -> Counting:
    """Accuracy in [0, 1], overall and by the verdict that is right; both orders of a pair are drawn together."""
    rows = pair_rows(answered, reading=options.reading)
    right = shares_right(rows, votes=options.votes)
    return count(
        options.way,
        [one.item.group or key for one, key in zip(answered, keys_of(answered), strict=True)],
        [
            mean("accuracy", right),
            *by_group("accuracy", right, [f"better_{row.category}" for row in rows]),
            *judge_figures(rows, votes=options.votes),
        ],
        counts=judge_counts(rows, votes=options.votes),
    )


BENCHMARK = Benchmark(asks="verdict", read=read_judgements, count=_count, ways=("strict",))
