"""KTO: responses that somebody found desirable or not, each by itself, against a baseline of the whole step.

Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from algorithms.algorithm import Ask, Needs, Objective, StepSamples, Unlearnable
from algorithms.figures import Figure, Mean, Tallies
from algorithms.groups import (
    CHOSEN,
    HELD_OUT,
    NUM_PAIRS,
    REJECTED,
    Group,
    GroupObjective,
    parts,
    response_weights,
    weighted_sums,
)
from algorithms.preference import Preference
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from algorithms.tokens import ENTROPY, TOKEN_ACCURACY

if TYPE_CHECKING:
    from torch import Tensor

_REWARDS = "Desirable and undesirable reward"
_OF_STEP = (
    Figure("preference/baseline", "z0, nats", "KTO baseline, nats", "z0"),
    Figure(
        "preference/num_mismatched",
        "responses behind another instruction's prompt that z0 is the mean of; one that would not fit "
        "`policy.tokens_per_microbatch` behind any takes no part",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelGroup(Group):
    """Every score desired or not, by itself."""

    desirable: np.ndarray
    """bool ``[S]``."""
    weights: np.ndarray
    """float64 ``[S]``: each score's share of the global batch's objective, times the weight of its kind."""
    baseline: float
    """z₀ of the global batch, nats."""


@dataclass(frozen=True, slots=True)
class LabelObjective(GroupObjective):
    """Each labelled response's loss, by its share."""

    beta: float
    """1/nats."""

    def group_loss(self, group: LabelGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """Over the group's responses."""
        import torch

        from algorithms.maths.kto import kto_loss

        desirable = torch.from_numpy(np.array(group.desirable)).to(ratios.device)
        losses, rewards = kto_loss(
            ratios,
            desirable,
            baseline=group.baseline,
            beta=self.beta,
            # The weights of the two kinds are already part of each score's share.
            desirable_weight=1.0,
            undesirable_weight=1.0,
        )
        figures: Tallies = {
            CHOSEN.name: Mean(float(rewards[desirable].sum()), int(desirable.sum())),
            REJECTED.name: Mean(float(rewards[~desirable].sum()), int((~desirable).sum())),
        }
        return (losses * torch.from_numpy(np.array(group.weights)).to(ratios)).sum(), figures


class Kto(Preference):
    """Kahneman-Tversky optimisation."""

    figures = (
        *HELD_OUT[:2],
        NUM_PAIRS,
        replace(CHOSEN, meaning="mean over desirable responses", title=_REWARDS, label="desirable"),
        replace(REJECTED, meaning="mean over undesirable responses", title=_REWARDS, label="undesirable"),
        *_OF_STEP,
        TOKEN_ACCURACY,
        ENTROPY,
        *HELD_OUT[2:],
    )

    @property
    def needs(self) -> Needs:
        """Labelled responses, scored by what the policy thinks of them beyond the reference."""
        return Needs(data=("preferences",), responses="labels", reference=True)

    def check(self, config: Any) -> None:
        """Refuse what its baseline cannot be made with."""
        if config.reference.mode == "precomputed":
            raise ValueError("reference.mode = 'precomputed' cannot serve kto, whose baseline changes with every batch")
        if config.policy.train_batch_size < 2:
            raise ValueError("policy.train_batch_size = 1 must be at least 2 for kto: its baseline mixes instructions")

    def objective(self) -> Objective:
        """Of every labelled response."""
        return LabelObjective(self.preference.beta)

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """The baseline is what policy and reference think of responses to other instructions."""
        from algorithms.maths.kto import kto_baseline

        with ask.phase("reference"):
            mixed = mismatched_sequences(batch, longest=ask.longest_row)
            if not mixed:
                told = f"no response fits behind another instruction's prompt in {ask.longest_row} tokens"
                raise Unlearnable(f"KTO's baseline: {told}")
            # Asked together: strangers and siblings share prompts and images.
            answers = iter(ask.reference([*mixed, *(s for e in batch for s in e.sequences)]))
            of_reference = [next(answers) for _ in mixed]
            refs = [[next(answers) for _ in e.sequences] for e in batch]
        with ask.phase("baseline"):
            both = zip(ask.policy(mixed), of_reference, strict=True)
            ratios = [p.sum(dtype=np.float64) - r.sum(dtype=np.float64) for p, r in both]
            if not np.isfinite(ratios).all():
                at = mixed[int(np.flatnonzero(~np.isfinite(ratios))[0])]
                raise Unlearnable(f"the log-probs of prompt {at.uid}, for KTO's baseline, are not finite")
            baseline = kto_baseline(float(sum(ratios)), len(ratios))
        groups = self.labelled(batch, refs, baseline=baseline, together=ask.share_prompts)
        told = {figure.name: value for figure, value in zip(_OF_STEP, (baseline, float(len(mixed))), strict=True)}
        # Responses by themselves make no pairs.
        return StepSamples([groups], {NUM_PAIRS.name: 0.0, **told})

    def labelled(
        self, examples: Sequence[Example], refs: Sequence[Sequence[np.ndarray]], *, baseline: float, together: bool
    ) -> list[LabelGroup]:
        """Groups of labelled responses; without shared prompts each response is a group of its own."""
        total, settings = sum(len(e.sequences) for e in examples), self.preference
        groups = []
        for example, of_example in zip(examples, refs, strict=True):
            for part in parts(len(example.sequences), together=together):
                sequences = tuple(example.sequences[i] for i in part)
                desirable = np.array([example.desirable[i] for i in part])
                of_kind = np.where(desirable, settings.desirable_weight, settings.undesirable_weight)
                weights = tuple(response_weights(s, "sum") for s in sequences)
                groups.append(
                    LabelGroup(
                        sequences=sequences,
                        score_of=np.arange(len(sequences)),
                        score_weights=weights,
                        ref_scores=weighted_sums(sequences, weights, [of_example[i] for i in part]),
                        desirable=desirable,
                        weights=of_kind / total,
                        baseline=baseline,
                    )
                )
        return groups


def mismatched_sequences(examples: Sequence[Example], *, longest: int) -> list[TokenSequence]:
    """For every labelled response one of another instruction's behind the same prompt and images: KTO's baseline.

    The other instruction is the one before it in the step, so that siblings are never taken for strangers; where what
    that makes is too long, the nearest one before it that fits. A response that none fits takes no part. One always
    does: behind the step's shortest prompt any response takes less than behind its own.

    Args:
        longest: Most tokens of a sequence; none of the examples' has more.
    """
    mixed = []
    for number, example in enumerate(examples):
        # From the one before it on, backwards and around.
        others = [examples[number - distance] for distance in range(1, len(examples))]
        for index, sequence in enumerate(example.sequences):
            candidates = (other.sequences[index % len(other.sequences)] for other in others)
            made = (_behind(sequence, stranger) for stranger in candidates)
            fitting = next((m for m in made if len(m.input_ids) <= longest), None)
            if fitting is not None:
                mixed.append(fitting)
    return mixed


def _behind(sequence: TokenSequence, stranger: TokenSequence) -> TokenSequence:
    """The response of ``stranger`` behind the prompt of ``sequence``."""
    ids = np.concatenate([sequence.input_ids[: sequence.prompt_len], stranger.input_ids[stranger.prompt_len :]])
    return replace(sequence, input_ids=ids)
