"""Which tokens differ between a chosen and a rejected response, and the weights that DDPO gives to those tokens.

The diff takes the two responses themselves, never rows of a batch, so padding, prompt and batch cannot change it. It
is quadratic in the worst case: run it once a pair, in preprocessing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor

from algorithms.maths.masking import keep

MIN_MATCH = 3
"""Tokens; a shorter common run inside a rewritten passage is chance, as in the original of RLHF-V."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DdpoMode:
    """One of the things called DDPO: numbers for ``ddpo_weights``."""

    gamma: float
    average: bool
    base_weight: Literal[0, 1]


DDPO_MODES: dict[str, DdpoMode] = {
    # Yu et al. 2023, https://arxiv.org/abs/2312.00849, with beta 0.5.
    "paper": DdpoMode(gamma=5.0, average=True, base_weight=1),
    # Its authors' published recipe, thunlp/Muffin at 85d72b4, with beta 0.1.
    "rlhf_v_recipe": DdpoMode(gamma=1.1, average=False, base_weight=1),
    # VL-RLHF, trainer.py:149-188, with beta 0.1: unchanged tokens count nothing.
    "vl_rlhf": DdpoMode(gamma=1.0, average=False, base_weight=0),
}


def token_diff(
    chosen_ids: Sequence[int], rejected_ids: Sequence[int], *, min_match: int = MIN_MATCH
) -> tuple[list[bool], list[bool]]:
    """Mark the tokens of each response that the other one replaces or lacks; nothing for an identical pair.

    Common beginning and end are set aside, whatever their length; between them every common run of at least
    ``min_match`` tokens is unchanged. An insertion is marked in the response that has it.

    Returns:
        ``(chosen, rejected)``, one bool a token, True = corrected.
    Raises:
        ValueError: ``min_match`` below 1.
    Source: RLHF-V, https://arxiv.org/abs/2312.00849; VL-RLHF, diff_lib.py:73-180, less its losses
    """
    if min_match < 1:
        raise ValueError(f"min_match = {min_match} must be at least 1")
    start = _common_prefix(chosen_ids, rejected_ids)
    tail = _common_prefix(chosen_ids[start:][::-1], rejected_ids[start:][::-1])
    left = chosen_ids[start : len(chosen_ids) - tail]
    right = rejected_ids[start : len(rejected_ids) - tail]
    gaps = list(_gaps(SequenceMatcher(None, left, right, autojunk=False), min_match))
    head, rest = [False] * start, [False] * tail
    return (
        head + _marks(len(left), (span for span, _ in gaps)) + rest,
        head + _marks(len(right), (span for _, span in gaps)) + rest,
    )


def ddpo_weights(
    mask: Bool[Tensor, "B T"],
    corrected: Bool[Tensor, "B T"],
    *,
    gamma: float,
    average: bool,
    base_weight: Literal[0, 1],
) -> Float[Tensor, "B T"]:
    """What each token's log-prob counts in the score of its response: γ where corrected, else ``base_weight``; float64.

    ``average`` divides by the sum of the weights. γ = 1 with base weight 1 is DPO's sum or mean. A row of weight 0,
    such as an identical pair under base weight 0, scores 0 and has no gradient.

    Args:
        mask: Response tokens; ``corrected`` counts only inside it.
    Raises:
        ValueError: γ not positive and finite.
    Source: Yu et al. 2023 (RLHF-V, dense DPO), https://arxiv.org/abs/2312.00849; ``DDPO_MODES`` for the variants
    """
    if not 0.0 < gamma < float("inf"):
        raise ValueError(f"gamma = {gamma} must be positive and finite")
    weights = keep(corrected.double() * (gamma - base_weight) + base_weight, mask)
    if not average:
        return weights
    total = weights.sum(dim=1, keepdim=True)
    return weights / total.where(total > 0, total.new_ones(()))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _gaps(matcher: "SequenceMatcher[int]", min_match: int) -> Iterable[tuple[range, range]]:
    """Spans of both sides between common runs that are long enough; the end of both is the last run."""
    a_end = b_end = 0
    *runs, last = matcher.get_matching_blocks()
    for run in (*(run for run in runs if run.size >= min_match), last):
        yield range(a_end, run.a), range(b_end, run.b)
        a_end, b_end = run.a + run.size, run.b + run.size


def _marks(length: int, spans: Iterable[range]) -> list[bool]:
    marks = [False] * length
    for span in spans:
        marks[span.start : span.stop] = [True] * len(span)
    return marks
