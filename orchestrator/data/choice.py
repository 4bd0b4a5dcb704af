"""Which responses of an instruction an algorithm learns from, told from texts, ranks and scores alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from algorithms.algorithm import Needs
from orchestrator.data.pairs import preference_pairs, tied_pairs, unpaired_reason
from orchestrator.data.records import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Some of an instruction's responses, and how they compare."""

    responses: tuple[int, ...]
    """Indices among the instruction's responses, ascending."""
    pairs: tuple[tuple[int, int], ...]
    """Chosen and rejected, as positions in ``responses``."""
    ties: tuple[tuple[int, int], ...] = ()
    """Equally good responses, as positions in ``responses``; empty where the algorithm learns nothing from them."""
    desirable: tuple[bool, ...]
    """For each of ``responses``; empty where the algorithm asks for no labels."""


def choose(responses: Sequence[Response], needs: Needs, *, score_margin: float) -> Choice | str:
    """What ``algorithm`` learns from these responses; a reason where that is nothing.

    A response is desirable that wins more pairs than it loses, undesirable that loses more, and neither takes part in
    ``labels`` otherwise. A response that stands alone is desirable where its score is above 0. What is imitated is the
    best, see ``_best``, and never a response that somebody disliked.

    Args:
        score_margin: see ``preference_pairs``.
    """
    if needs.responses == "best":
        best = _best(responses)
        choice = best if isinstance(best, str) else Choice(responses=(best,), pairs=(), desirable=())
    elif needs.responses == "labels" and len(responses) == 1 and responses[0].score is not None:
        choice = Choice(responses=(0,), pairs=(), desirable=(responses[0].score > 0,))
    else:
        choice = _compared(
            responses,
            labelled=needs.responses == "labels",
            score_margin=score_margin,
            ties=tied_pairs(responses) if needs.critiques else [],
        )
    if isinstance(choice, Choice):
        for index in choice.responses:
            if not responses[index].text.strip():
                return f"response {index + 1} of {len(responses)} has no text"
            if needs.critiques and not (responses[index].critique or "").strip():
                return f"response {index + 1} of {len(responses)} has no critique"
    return choice


def without_strangers(choice: Choice) -> tuple[Choice, tuple[int, ...]]:
    """The same without responses that are in no pair and no tie, and the places of those that stay."""
    compared = (choice.pairs, choice.ties)
    kept = tuple(sorted({i for kind in compared for pair in kind for i in pair}))
    at = {place: number for number, place in enumerate(kept)}
    pairs, ties = (tuple((at[i], at[j]) for i, j in kind) for kind in compared)
    desirable = tuple(choice.desirable[i] for i in kept) if choice.desirable else ()
    responses = tuple(choice.responses[i] for i in kept)
    return Choice(responses=responses, pairs=pairs, ties=ties, desirable=desirable), kept


def _compared(
    responses: Sequence[Response], *, labelled: bool, score_margin: float, ties: list[tuple[int, int]]
) -> Choice | str:
    pairs = preference_pairs(responses, score_margin=score_margin)
    if not pairs:
        return unpaired_reason(responses, score_margin=score_margin) or "it makes no pair"
    wins = Counter(pair.chosen for pair in pairs)
    losses = Counter(pair.rejected for pair in pairs)
    taking_part = sorted({*wins, *losses, *chain.from_iterable(ties)})
    if labelled:
        taking_part = [i for i in taking_part if wins[i] != losses[i]]
    at = {index: position for position, index in enumerate(taking_part)}
    return Choice(
        responses=tuple(taking_part),
        pairs=tuple((at[p.chosen], at[p.rejected]) for p in pairs if p.chosen in at and p.rejected in at),
        ties=tuple((at[i], at[j]) for i, j in ties),
        desirable=tuple(wins[i] > losses[i] for i in taking_part) if labelled else (),
    )


def _best(responses: Sequence[Response]) -> int | str:
    """The best by comparison, else by rank, else by score, the first among equals; or why none is to be imitated.

    A response alone that nobody judged is a demonstration. A judged one is disliked if its score is not above 0, as for
    ``labels``: a score's sign is its verdict, so that a rating of 1 of 5 is not disliked by itself. A rank below the
    first says that there was a better one. Of several that nobody judged, or that all tie by rank or comparison, no one
    is the best: an annotator may have found them all bad.
    """
    if not responses:
        return "it has no response"
    if len(responses) > 1 and not any(response.is_valued for response in responses):
        return f"nobody judged which of its {len(responses)} responses is the best"
    best = min(range(len(responses)), key=lambda index: (*_place(responses, index), index))
    one, told = responses[best], "only" if len(responses) == 1 else "best"
    if one.score is not None and one.score <= 0:
        return f"its {told} response is disliked (score {one.score:g})"
    if one.rank is not None and one.rank > 1:
        return f"its {told} response is disliked (rank {one.rank}, and the better one is not there)"
    num_ordered = sum(response.rank is not None or response.preferred_to is not None for response in responses)
    return (unpaired_reason(responses, score_margin=0.0) if num_ordered > 1 else None) or best


def _place(responses: Sequence[Response], index: int) -> tuple[float, float, float]:
    """Smaller is better: by comparison those come first to which none is preferred and that are preferred to some."""
    own = responses[index]
    beaten = sum(index in (other.preferred_to or ()) for other in responses)
    compared = (beaten > 0, not own.preferred_to) if own.preferred_to is not None else (True, True)
    rank = float("inf") if own.rank is None else own.rank
    return (2 * compared[0] + compared[1], rank, -(own.score if own.score is not None else -float("inf")))
