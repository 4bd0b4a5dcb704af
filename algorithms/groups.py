"""Groups of responses to one prompt, and how they are scored: what every algorithm of stored responses computes with.

A score is what the policy thinks of a response: a weighted sum of its token log-probs, less what the reference thinks;
or the reward that a scalar head gives it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from algorithms.algorithm import Ask, Loss, Scores
from algorithms.figures import Figure, Mean, Sum, Tallies, added
from algorithms.records import Sequence as TokenSequence
from algorithms.tokens import ENTROPY, TOKEN_ACCURACY

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.preference_losses import PairLoss

Reduction = Literal["sum", "mean"]


TIE = 1e-7
"""Difference below which two responses count as equally good, nats: float32 sums of one forward differ by less."""


_REWARDS = "Chosen and rejected reward"


NUM_PAIRS = Figure("preference/num_pairs", "pairs of the step; ties of `critique_rm` are none")


ACCURACY = Figure(
    "preference/accuracy",
    "share of the step's own pairs whose chosen response has the greater reward, before its update; a tie counts "
    "nothing",
    "Pair accuracy",
    "the step's own",
)


MARGIN = Figure(
    "preference/margin",
    "mean difference of the rewards of the step's own pairs, before its update",
    "Margin of a pair, reward units",
    "the step's own",
)


CHOSEN = Figure("preference/chosen_reward", "mean over the chosen side of the pairs", _REWARDS, "chosen")


REJECTED = Figure("preference/rejected_reward", "mean over the rejected side of the pairs", _REWARDS, "rejected")


IMITATION = Figure(
    "policy/imitation_loss",
    "the part of `policy/loss` that is a cross-entropy, its weight included: of the chosen responses in `mm_dpo` and "
    "`mpo`, of the critiques in `critique_rm`; nats",
    "Cross-entropy in the loss, nats",
    "its share",
)


HELD_OUT = (
    Figure(
        "eval/pair_accuracy",
        "share of the held-out pairs in which the chosen response has the greater (implicit) reward; a tie counts one "
        "half. Of `critique_rm` it is read behind the annotators' critiques, which no answer comes with: what its own "
        "critiques are worth says the line `critique reward model: right on ...` of `mm_dpo`",
        "Pair accuracy",
        "held out",
    ),
    Figure(
        "eval/margin",
        "mean difference of the rewards of the held-out pairs",
        "Margin of a pair, reward units",
        "held out",
    ),
    Figure("eval/num_pairs", "held-out pairs"),
    Figure("eval/num_instructions", "held-out instructions that those pairs or tokens belong to"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Responses to one prompt and their scores; they learn in one forward."""

    sequences: tuple[TokenSequence, ...]
    score_of: np.ndarray
    """int64 ``[S]``: the sequence each score is of. One each, unless the weights of its tokens depend on the pair."""
    score_weights: tuple[np.ndarray, ...] = ()
    """float32 ``[T]`` for each score, 0 on the prompt: a score is the sum of its sequence's token log-probs times
    these. Empty where the model itself gives each sequence a scalar."""
    ref_scores: np.ndarray
    """float64 ``[S]``: the same sums under the reference; zeros where there is none."""
    imitation: tuple[np.ndarray, ...] = ()
    """float64 ``[T]`` for each sequence: each token's share of the cross-entropy in the global batch's objective, 0 on
    the prompt. Empty where nothing is imitated."""

    @property
    def uid(self) -> str:
        """What to call it when it is at fault."""
        return self.sequences[0].uid


@dataclass(frozen=True, slots=True, kw_only=True)
class PairGroup(Group):
    """Scores compared two by two."""

    pairs: np.ndarray
    """int64 ``[P, 2]``: chosen and rejected, as indices of scores."""
    weights: np.ndarray
    """float64 ``[P]``: each pair's share of the global batch's objective."""
    betas: np.ndarray
    """float64 ``[P]``, 1/nats; 1 for scalar rewards."""


@dataclass(frozen=True, slots=True)
class GroupObjective:
    """The sum of the groups' losses, and of what each group imitates."""

    def group_loss(self, group: Any, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """A group's share of the objective, a scalar, and figures.

        Args:
            ratios: float64 ``[S]``: its scores less the reference's.
        """
        raise NotImplementedError

    def __call__(self, scores: Scores, samples: Sequence[Group]) -> Loss:
        """The losses of a micro-batch."""
        import torch

        losses, shares, start = [], [_token_figures(scores)], 0
        for group in samples:
            own = slice(start, start + len(group.sequences))
            start = own.stop
            of_group = _scores(group, (scores.rewards or scores.logprobs)[own])
            # The difference to the reference is small beside the sums: in float64 it keeps its digits.
            ratios = of_group - torch.from_numpy(np.array(group.ref_scores)).to(of_group)
            loss, figures = self.group_loss(group, ratios)
            shares.append(figures)
            if group.imitation:
                terms = zip(group.sequences, group.imitation, scores.logprobs[own], strict=True)
                imitated = -torch.stack([_weighted(s, weights, piece) for s, weights, piece in terms]).sum()
                if any(weights.any() for weights in group.imitation):
                    shares.append({IMITATION.name: Sum(float(imitated.detach()))})
                loss = loss + imitated
            losses.append(loss)
        return Loss(torch.stack(losses), added(shares))


def parts(count: int, *, together: bool) -> Iterator[range]:
    """Which of an example's pairs, or labelled responses, are learned from together."""
    if together:
        yield range(count)
    else:
        yield from (range(i, i + 1) for i in range(count))


def response_weights(sequence: TokenSequence, reduction: Reduction) -> np.ndarray:
    """float32 ``[T]``: what each token's log-prob counts in the score of its response."""
    from algorithms.maths.preference_losses import score_weights

    return as_row(score_weights(response_mask(sequence), reduction=reduction))


def ratios_now(groups: Sequence[Group], ask: Ask) -> list[np.ndarray]:
    """float64 ``[S]`` a group: its scores less the reference's, under the weights that will learn."""
    rows = iter(ask.policy([s for g in groups for s in g.sequences]))
    return [score_ratios(g, [next(rows) for _ in g.sequences]) for g in groups]


def score_ratios(group: Group, logprobs: Sequence[np.ndarray]) -> np.ndarray:
    """float64 ``[S]``: the group's scores less the reference's.

    Args:
        logprobs: For each sequence float32 ``[L]`` of its response, nats; or ``[1]``, a scalar reward.
    """
    if not group.score_weights:
        return np.array([float(logprobs[i][0]) for i in group.score_of])
    of_scores = [group.sequences[i] for i in group.score_of]
    return weighted_sums(of_scores, group.score_weights, [logprobs[i] for i in group.score_of]) - group.ref_scores


def weighted_sums(
    sequences: Sequence[TokenSequence], weights: Sequence[np.ndarray], logprobs: Sequence[np.ndarray]
) -> np.ndarray:
    """float64 ``[S]``: log-probs of responses, float32 ``[L]`` each, times the weights of their tokens."""
    return np.array(
        [
            float(np.dot(row.astype(np.float64), weight[s.prompt_len :].astype(np.float64)))
            for s, weight, row in zip(sequences, weights, logprobs, strict=True)
        ]
    )


def pair_margins(groups: Sequence[PairGroup], ratios: Sequence[np.ndarray]) -> list[np.ndarray]:
    """float64 ``[P]`` a group: score of the chosen less that of the rejected."""
    return [r[g.pairs[:, 0]] - r[g.pairs[:, 1]] for g, r in zip(groups, ratios, strict=True)]


def sides(pairs: np.ndarray, scores: "Tensor") -> "list[Tensor]":
    """The chosen and the rejected scores of pairs."""
    import torch

    return [scores[torch.from_numpy(np.array(side)).to(scores.device)] for side in pairs.T]


def pair_figures(result: "PairLoss", *, where: "Tensor | None" = None) -> Tallies:
    """What a loss says of its pairs, of which ``where`` counts some."""
    import torch

    counted = torch.ones_like(result.correct) if where is None else where
    count = int(counted.sum())
    return {
        NUM_PAIRS.name: Sum(count),
        ACCURACY.name: Mean(int(result.correct[counted].sum()), count),
        MARGIN.name: Mean(float(result.margin[counted].sum()), count),
        CHOSEN.name: Mean(float(result.chosen_rewards[counted].sum()), count),
        REJECTED.name: Mean(float(result.rejected_rewards[counted].sum()), count),
    }


def _scores(group: Group, pieces: "Sequence[Tensor]") -> "Tensor":
    """float64 ``[S]``."""
    import torch

    if not group.score_weights:
        return torch.cat([pieces[i] for i in group.score_of]).double()
    return torch.stack(
        [
            _weighted(group.sequences[i], weights, pieces[i])
            for i, weights in zip(group.score_of, group.score_weights, strict=True)
        ]
    )


def _weighted(sequence: TokenSequence, weights: np.ndarray, logprobs: "Tensor") -> "Tensor":
    import torch

    from algorithms.maths.preference_losses import weighted_scores

    of_response = torch.from_numpy(np.array(weights[sequence.prompt_len :], dtype=np.float64)).to(logprobs.device)
    return weighted_scores(logprobs[None], of_response[None])[0]


def _token_figures(scores: Scores) -> Tallies:
    if scores.entropy is None or scores.greedy is None:
        return {}
    count = len(scores.entropy)
    return {
        ENTROPY.name: Mean(float(scores.entropy.sum()), count),
        TOKEN_ACCURACY.name: Mean(int(scores.greedy.sum()), count),
    }


def response_mask(sequence: TokenSequence) -> "Tensor":
    """bool ``[1, T]``: its response."""
    import torch

    return torch.from_numpy(sequence.action_mask)[None]


def as_row(weights: "Tensor") -> np.ndarray:
    """float32 ``[T]`` of weights ``[1, T]``."""
    return weights[0].float().numpy()
