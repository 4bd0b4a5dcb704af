"""A scalar reward model that is told the facts: what is known to be true of a sample stands behind the response.

The loss is that of ``maths.preference_losses.centred_pair_loss``. Its second term is the size of a mean over the whole
step: the driver scores the step first, and what is left to the workers is linear in that term, whose sign is known.

Source: LLaVA-RLHF, section 3.3 of https://arxiv.org/abs/2309.14525; reward_model.py:275-318 of its release, which takes
    the mean over each device
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from algorithms.algorithm import Ask, Needs, Objective, ScalarHead, StepSamples
from algorithms.figures import Figure, Tallies
from algorithms.groups import GroupObjective, PairGroup, pair_figures, sides
from algorithms.preference import PreferenceSection
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from algorithms.scalar_rm import ScalarRm
from algorithms.settings import Section, Text

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "{facts}"
"""Where a request has the facts."""
_SHUFFLED = Figure(
    "eval/pair_accuracy_shuffled_facts",
    "the same where each held-out sample is told another's facts: a reward model that reads them falls",
    "Pair accuracy",
    "facts shuffled",
)


class FactRmSection(Section):
    """A reward model that is told the facts (LLaVA-RLHF)."""

    request: Text = f"""Say how good the answer above is. These statements are true of what was shown:
{PLACE}
A good answer says nothing that the statements, taken together, do not bear out. It helps whoever asked, reads like \
natural language, and is no longer than it need be."""
    """What is said behind a response: {facts} stands for what is true of the sample, a line each."""
    opening: Text = "The quality of the answer is"
    """Words by which the model begins to say it; the score is read at the last of them."""
    centring: float = Field(default=1e-3, ge=0.0, allow_inf_nan=False)
    """Weight of the size of a step's mean sum of a pair's rewards, which keeps them around 0."""

    def check(self, config: object) -> None:
        """Refuse a request without one place for the facts."""
        if self.request.count(PLACE) != 1:
            raise ValueError(
                f"fact_rm.request has {self.request.count(PLACE)} places {PLACE} for the facts, expected 1"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CentredGroup(PairGroup):
    """Pairs of a step whose rewards lie on one side of 0."""

    sign: float
    """Of the mean reward over the pairs of the whole step: 1, −1 or 0."""


@dataclass(frozen=True, slots=True)
class CentredObjective(GroupObjective):
    """Each pair's loss and its part of the centring."""

    weight: float

    def group_loss(self, group: CentredGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """Over the group's pairs."""
        import torch

        from algorithms.maths.preference_losses import centred_pair_loss

        chosen, rejected = sides(group.pairs, ratios)
        result = centred_pair_loss(chosen, rejected, centre_weight=self.weight, sign=group.sign)
        weights = torch.from_numpy(np.array(group.weights)).to(ratios)
        return (result.loss * weights).sum(), pair_figures(result)


@dataclass(frozen=True, slots=True)
class HeldOut:
    """What a reward model is measured on."""

    own: Sequence[PairGroup]
    shuffled: Sequence[PairGroup]
    """The same pairs, told other samples' facts; those that have none of other words are left out."""


class FactRm(ScalarRm):
    """The reward model of Factually Augmented RLHF."""

    sections = {"preference": PreferenceSection, "fact_rm": FactRmSection}
    profiles = {
        # train_reward_model.sh of https://github.com/llava-rlhf/LLaVA-RLHF
        "llava_rlhf_released": {
            "model.lora_rank": 64,
            "model.lora_alpha": 16,
            "optimizer.lr": 2e-5,
            "optimizer.schedule": "constant",
            "optimizer.warmup_frac": 0.03,
            "optimizer.max_grad_norm": 0.3,
            "policy.train_batch_size": 32,
        }
    }
    figures = (*ScalarRm.figures, _SHUFFLED)

    @property
    def facts(self) -> FactRmSection:
        """Its own settings."""
        section = self.settings["fact_rm"]
        assert isinstance(section, FactRmSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs with facts, and a head that is read at the end of what the model is made to begin to say."""
        head = ScalarHead(bias=True, request=self.facts.request, opening=self.facts.opening)
        return Needs(data=("preferences",), responses="pairs", head=head, facts=True)

    def objective(self) -> Objective:
        """Of pairs, drawn to zero."""
        return CentredObjective(self.facts.centring)

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """Pair groups that know on which side of 0 the rewards of the step lie."""
        groups = self.groups(batch, ask)
        sign = self._sign(groups, ask) if self.facts.centring else 0.0
        return StepSamples([[_centred(group, sign) for group in groups]])

    def prepared(self, examples: Sequence[Example], ask: Ask) -> HeldOut:  # type: ignore[override]
        """As they are, and with the facts of others."""
        shuffled = with_others_facts(examples, longest=ask.longest_row)
        return HeldOut(super().prepared(examples, ask), super().prepared(shuffled, ask))

    def evaluate(self, prepared: HeldOut, ask: Ask) -> dict[str, float]:  # type: ignore[override]
        """Accuracy and margin, and what the facts have to do with it."""
        found, shuffled = super().evaluate(prepared.own, ask), super().evaluate(prepared.shuffled, ask)
        accuracy = shuffled.get("eval/pair_accuracy")
        return found if accuracy is None else {**found, _SHUFFLED.name: accuracy}

    def _sign(self, groups: Sequence[PairGroup], ask: Ask) -> float:
        import torch

        from algorithms.maths.preference_losses import centring_sign

        with ask.phase("baseline"):
            rewards = iter(ask.rewards([s for group in groups for s in group.sequences]))
        told = [np.array([next(rewards) for _ in group.sequences])[group.score_of] for group in groups]
        of_pairs = np.concatenate([own[group.pairs] for own, group in zip(told, groups, strict=True)])
        return centring_sign(*torch.from_numpy(of_pairs).unbind(dim=1))


def with_others_facts(examples: Sequence[Example], *, longest: int) -> list[Example]:
    """Each example told the facts of another: the next one, half way round, that is told other words.

    One for which there is none is left out, and so is one that would be longer than ``longest`` tokens with them.
    """
    found, count = [], len(examples)
    for place, example in enumerate(examples):
        own = _told(example)
        others = (_told(examples[(place + count // 2 + step) % count]) for step in range(count))
        told = next((other for other in others if not np.array_equal(other, own)), None)
        if told is not None and max(example.fact_starts) + len(told) <= longest:
            found.append(replace(example, sequences=_retold(example, told)))
    return found


def _told(example: Example) -> np.ndarray:
    """What is said behind its responses, which is the same for all."""
    return example.sequences[0].input_ids[example.fact_starts[0] :]


def _retold(example: Example, told: np.ndarray) -> tuple[TokenSequence, ...]:
    pairs = zip(example.sequences, example.fact_starts, strict=True)
    return tuple(replace(s, input_ids=np.concatenate([s.input_ids[:start], told])) for s, start in pairs)


def _centred(group: PairGroup, sign: float) -> CentredGroup:
    return CentredGroup(**{field.name: getattr(group, field.name) for field in fields(PairGroup)}, sign=sign)
