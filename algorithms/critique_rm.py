"""A critique reward model (MM-RLHF): it says in words what is good and bad about a response, then gives a reward.

The loss is that of ``maths.critique_reward_loss``, each mean over the whole step. A response's critique counts once,
however many pairs the response is in, as the mean over its tokens.

Source: MM-RLHF, section 3.2, https://arxiv.org/abs/2502.10391; tie and centring terms: rm_trainer.py:211-355 of its
    release, which counts a critique once for every pair of its response
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from algorithms.algorithm import Ask, Needs, Objective, ScalarHead, StepSamples
from algorithms.figures import Figure, Tallies
from algorithms.groups import IMITATION, Group, GroupObjective, pair_figures, sides
from algorithms.preference import Preference, PreferenceSection
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from algorithms.settings import Section, Share, Text

if TYPE_CHECKING:
    from torch import Tensor

Compared = tuple[tuple[int, int], ...]
_GENERATED = Figure(
    "critique/generated_frac",
    "on a step of `scheduled_sampling`, share of the responses whose reward was read off a critique that the "
    "model wrote itself",
    "Rewards read off the model's own critiques",
    "share of the step's",
)


class CritiqueRmSection(Section):
    """A reward model that first says in words what is good and bad about a response (MM-RLHF)."""

    request: Text = (
        "Evaluate the response above. Is it correct, clear and complete? Say what is good and what is bad about it."
    )
    """What the model is asked once it has read a response; its answer is the critique."""
    head: Literal["linear", "mlp"] = "linear"
    """Scalar head: linear as in the paper, or two layers with tanh as released."""
    score_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the comparisons, pairs and ties together."""
    tie_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the squared difference of responses that tie."""
    centering: float = Field(default=0.01, ge=0.0)
    """Weight of the squared sum of a pair's rewards, which keeps them around 0."""
    critique_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the critiques' cross-entropy, each response's counted once."""
    scheduled_sampling: Share = 0.0
    """Share of the steps that read rewards off critiques which the model wrote itself; above 0 there are engines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardGroup(Group):
    """Rewards compared two by two, ties among them."""

    pairs: np.ndarray
    """int64 ``[P, 2]``: chosen and rejected, as indices of scores; of a tie, either."""
    is_tie: np.ndarray
    """bool ``[P]``."""
    weights: np.ndarray
    """float64 ``[P]``: each comparison's share of the global batch."""
    preference_weight: float
    tie_weight: float
    """These two as ``critique_pair_loss`` takes them."""


@dataclass(frozen=True, slots=True)
class RewardObjective(GroupObjective):
    """Comparisons, drawn to zero."""

    centre_weight: float

    def group_loss(self, group: RewardGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """Over the group's comparisons."""
        import torch

        from algorithms.maths.critique_reward_loss import critique_pair_loss

        chosen, rejected = sides(group.pairs, ratios)
        is_tie = torch.from_numpy(np.array(group.is_tie)).to(ratios.device)
        result = critique_pair_loss(
            chosen,
            rejected,
            is_tie,
            preference_weight=group.preference_weight,
            tie_weight=group.tie_weight,
            centre_weight=self.centre_weight,
        )
        weights = torch.from_numpy(np.array(group.weights)).to(ratios)
        return (result.loss * weights).sum(), pair_figures(result, where=~is_tie)


class CritiqueRm(Preference):
    """The critique reward model of MM-RLHF."""

    sections = {
        "preference": PreferenceSection,
        "critique_rm": CritiqueRmSection,
    }
    profiles = {
        # Section 5.1 and table 8 of https://arxiv.org/abs/2502.10391, which are the sections' own.
        "mmrlhf_paper": {},
        # scripts/train of https://github.com/yfzhang114/MM-RLHF
        "mmrlhf_released": {
            "critique_rm.head": "mlp",
            # It adds the means over both sides of the pairs, where ours is one mean over responses.
            "critique_rm.critique_weight": 2.0,
            "optimizer.lr": 1e-6,
            "optimizer.warmup_frac": 0.1,
            "optimizer.min_lr_frac": 0.0,
        },
    }

    figures = (*Preference.figures, IMITATION, _GENERATED)

    @property
    def critique(self) -> CritiqueRmSection:
        """Its own settings."""
        section = self.settings["critique_rm"]
        assert isinstance(section, CritiqueRmSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs and ties with people's critiques, and a head that gives rewards beside the one that writes."""
        return Needs(
            data=("preferences",),
            responses="pairs",
            head=ScalarHead(kind=self.critique.head, keeps_language=True, request=self.critique.request),
            critiques=True,
            generated_critiques=self.critique.scheduled_sampling,
        )

    def objective(self) -> Objective:
        """Of comparisons."""
        return RewardObjective(self.critique.centering)

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """Rewards are read off people's critiques, or, on the steps of scheduled sampling, off the model's own."""
        written = ask.critiques(batch)
        groups = reward_groups(batch, self.critique, together=ask.share_prompts, generated=written or ())
        if written is None:
            return StepSamples([groups])
        flat = [sequence for row in written for sequence in row]
        return StepSamples([groups], {_GENERATED.name: sum(s is not None for s in flat) / len(flat)})


def reward_groups(
    examples: Sequence[Example],
    settings: CritiqueRmSection,
    *,
    together: bool,
    generated: Sequence[Sequence[TokenSequence | None]] = (),
) -> list[RewardGroup]:
    """One group an instruction, or one a comparison.

    Args:
        generated: For each example, for each of its sequences, the one that its reward is read from instead; None
            reads it from its own. Empty reads every reward from its own.
    """
    from algorithms.maths.critique_reward_loss import mean_weights

    num_pairs, num_ties = sum(len(e.pairs) for e in examples), sum(len(e.ties) for e in examples)
    of_kind = mean_weights(num_pairs, num_ties, score_weight=settings.score_weight, tie_weight=settings.tie_weight)
    num_responses = sum(len({i for pair in (*e.pairs, *e.ties) for i in pair}) for e in examples)
    groups = []
    for number, example in enumerate(examples):
        others = generated[number] if generated else [None] * len(example.sequences)
        unwritten = set(range(len(example.sequences)))
        for pairs, ties in comparisons(example, together=together):
            used = sorted({i for pair in (*pairs, *ties) for i in pair})
            at = {index: position for position, index in enumerate(used)}
            share = settings.critique_weight / num_responses
            critiques = [_critique_weights(example, i, share * (i in unwritten)) for i in used]
            unwritten -= set(used)
            added = [(place, other) for place, i in enumerate(used) if (other := others[i]) is not None]
            score_of = np.arange(len(used))
            score_of[[place for place, _ in added]] = np.arange(len(added)) + len(used)
            critiques += [np.zeros(len(other.input_ids), np.float32) for _, other in added]
            groups.append(
                RewardGroup(
                    sequences=(*(example.sequences[i] for i in used), *(other for _, other in added)),
                    score_of=score_of,
                    ref_scores=np.zeros(len(used)),
                    imitation=tuple(critiques),
                    pairs=np.array([(at[i], at[j]) for i, j in (*pairs, *ties)]),
                    is_tie=np.array([False] * len(pairs) + [True] * len(ties)),
                    weights=np.full(len(pairs) + len(ties), 1.0 / (num_pairs + num_ties)),
                    preference_weight=of_kind[0],
                    tie_weight=of_kind[1],
                )
            )
    return groups


def comparisons(example: Example, *, together: bool) -> Iterator[tuple[Compared, Compared]]:
    """Pairs and ties of each group."""
    if together:
        yield example.pairs, example.ties
        return
    for pair in example.pairs:
        yield (pair,), ()
    for tie in example.ties:
        yield (), (tie,)


def _critique_weights(example: Example, index: int, share: float) -> np.ndarray:
    sequence, start = example.sequences[index], example.critique_starts[index]
    weights = np.zeros(len(sequence.input_ids), dtype=np.float64)
    weights[start:] = share / (len(weights) - start)
    return weights
