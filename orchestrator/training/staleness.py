"""Learning from what earlier weights sampled: which answers are taken next, and how far they are from the policy.

A batch is the first answers, in the order of issue, that are whole. The i-th of those that wait is learned from at most
i // batch steps after the next one; nothing is begun, and no batch is taken, where that would be later than allowed.
"""

from collections.abc import Sequence

import numpy as np
import torch

from algorithms.algorithm import Weighing
from algorithms.figures import Figure
from algorithms.maths.importance import correction_weights
from algorithms.policy_objective import GUARDS
from algorithms.records import Rollout
from orchestrator.run.ahead import AheadGroup, Span

Taken = tuple[tuple[AheadGroup, ...], tuple[AheadGroup, ...]]
"""A batch, and what still waits."""
_TITLE = "Staleness, steps"
FIGURES = (
    Figure(
        "rollout/staleness_max",
        "steps between the weights that began the oldest answer of the batch and those that learn from it; at most "
        "`rollout.staleness`",
        _TITLE,
        "largest",
    ),
    Figure("rollout/staleness_mean", "the same, mean over the prompts of the batch", _TITLE, "mean"),
    Figure("rollout/carried_frac", "share of the answers that weights of several versions sampled"),
    Figure(
        "rollout/drift",
        "mean gap of log-probs between the weights that learn and those that sampled, nats a token",
        "Drift since sampling, nats a token",
        "drift",
    ),
    Figure(
        "rollout/capped_frac",
        "share of the action tokens whose weight against the weights that sampled them, or whose sequence's, is at its "
        "upper bound; where `algorithm.correction` masks, that it gives no weight",
        GUARDS,
        "capped",
    ),
    Figure("rollout/weight_mean", "mean weight of the action tokens against the weights that sampled them"),
    Figure(
        "rollout/late",
        "answers under way or not begun that wait for the next weights, since no engine was left to sample them while "
        "the policy learned",
    ),
)
"""Of steps that learn from earlier weights' answers."""


def next_batch(groups: Sequence[AheadGroup], *, count: int, step: int, staleness: int) -> Taken | None:
    """What the step learns from, and what still waits; None where more has to be sampled first.

    Args:
        groups: In the order of issue.
        count: Groups of a step.
        step: Steps finished by the weights that will learn.
        staleness: Most steps that an answer may be old.
    """
    batch = tuple([group for group in groups if group.is_whole][:count])
    taken = {group.uid for group in batch}
    rest = tuple(group for group in groups if group.uid not in taken)
    if len(batch) < count or not in_time(rest, count=count, step=step + 1, staleness=staleness):
        return None
    assert in_time(batch, count=count, step=step, staleness=staleness), "an answer is older than rollout.staleness"
    return batch, rest


def in_time(groups: Sequence[AheadGroup], *, count: int, step: int, staleness: int) -> bool:
    """Whether all can be learned from, the first ``count`` by ``step``, before any is too old."""
    return all(step + place // count - group.begun <= staleness for place, group in enumerate(groups))


def staleness_figures(batch: Sequence[AheadGroup], *, step: int, late: int) -> dict[str, float]:
    """Of a batch that the step learns from."""
    ages = [step - group.begun for group in batch]
    carried = [len(sample.spans) > 1 for group in batch for sample in group.samples]
    told = (float(max(ages)), float(np.mean(ages)), float(np.mean(carried)))
    return {**dict(zip((figure.name for figure in FIGURES), told, strict=False)), "rollout/late": float(late)}


def sampled_by(version: int, rollouts: Sequence[Rollout], spans: Sequence[Sequence[Span]]) -> list[np.ndarray]:
    """bool ``[T]`` for each rollout: tokens that weights of this version sampled."""
    return [
        np.repeat([False, *(by == version for _, by in own)], [r.sequence.prompt_len, *(tokens for tokens, _ in own)])
        for r, own in zip(rollouts, spans, strict=True)
    ]


def drift_figures(rollouts: Sequence[Rollout], weighing: Weighing) -> dict[str, float]:
    """How far the policy has moved from what sampled the rollouts that have a reward, and what these count."""
    known = [
        (r.old_logprobs[begin:], r.rollout_logprobs[begin:], r.sequence.action_mask[begin:])
        for r, begin in zip(rollouts, (r.sequence.prompt_len for r in rollouts), strict=True)
        if r.reward is not None and r.old_logprobs is not None
    ]
    old, sampled, mask = (torch.from_numpy(np.concatenate(rows)) for rows in zip(*known, strict=True))
    mask = mask & torch.isfinite(sampled) & torch.isfinite(old)
    weights = correction_weights(
        old[None], sampled[None], mask[None], [len(row) for row, *_ in known],
        mode=weighing.mode, minimum=weighing.minimum, maximum=weighing.maximum,
    )[0][mask]  # fmt: skip
    bounded = weights >= weighing.maximum if weighing.mode.endswith("truncate") else weights == 0
    told = ((old - sampled)[mask].abs(), bounded, weights)
    names = ("rollout/drift", "rollout/capped_frac", "rollout/weight_mean")
    return {name: float(values.double().mean()) for name, values in zip(names, told, strict=True)}
