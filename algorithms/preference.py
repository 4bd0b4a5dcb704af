"""Learning from stored responses that somebody compared: what the family shares, and what a pair's loss is made of.

Weights are shares of the whole step's objective: all pairs of a step count alike, so micro-batches and ranks only ever
add up.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from algorithms.algorithm import Algorithm, Ask, Needs, Objective, StepSamples
from algorithms.figures import Tallies
from algorithms.groups import (
    ACCURACY,
    CHOSEN,
    HELD_OUT,
    MARGIN,
    NUM_PAIRS,
    REJECTED,
    TIE,
    GroupObjective,
    PairGroup,
    Reduction,
    pair_figures,
    pair_margins,
    parts,
    response_weights,
    score_ratios,
    sides,
    weighted_sums,
)
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from algorithms.settings import Section
from algorithms.tokens import ENTROPY, TOKEN_ACCURACY

if TYPE_CHECKING:
    from torch import Tensor


class PreferenceSection(Section):
    """Offline learning from preferences."""

    beta: float = Field(default=0.1, gt=0.0)
    """How far the policy may move from the reference: larger is nearer, 1/nats."""
    label_smoothing: float = Field(default=0.0, ge=0.0, le=0.5)
    """Probability that a pair's labels are swapped; for dpo and ddpo."""
    score_margin: float = Field(default=0.0, ge=-1.0)
    """Least difference of scores that makes a pair; -1 = only the pairs with an instruction's largest difference."""
    ipo_reduction: Literal["mean", "sum"] = "mean"
    """Whether ipo compares log-probs per token or of whole responses."""
    ddpo_mode: Literal["paper", "rlhf_v_recipe", "vl_rlhf"] = "paper"
    """Which weights ddpo gives to the tokens in which the responses of a pair differ."""
    desirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of desirable responses in kto."""
    undesirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of undesirable responses in kto."""

    def check(self, config: Any) -> None:
        """Refuse labels that are smoothed for nobody, and a margin that is neither a difference nor -1."""
        if self.label_smoothing and not getattr(config.learner, "smooths_labels", False):
            raise ValueError(
                f"preference.label_smoothing = {self.label_smoothing} has no meaning for algo = {config.algo!r}"
            )
        if -1 < self.score_margin < 0:
            raise ValueError(
                f"preference.score_margin = {self.score_margin} must be at least 0, or -1 for the largest gap only"
            )


@dataclass(frozen=True, slots=True)
class PairObjective(GroupObjective):
    """Each pair's loss, by its share."""

    algorithm: "Preference"
    """Says what the loss of a pair is."""

    def group_loss(self, group: PairGroup, ratios: "Tensor") -> "tuple[Tensor, Tallies]":
        """Over the group's pairs."""
        import torch

        from algorithms.maths.preference_losses import pair_loss

        chosen, rejected = sides(group.pairs, ratios)
        betas = torch.from_numpy(np.array(group.betas)).to(ratios)
        losses = self.algorithm.pair_loss(chosen, rejected, betas)
        result = pair_loss(losses, chosen, rejected, betas)
        weights = torch.from_numpy(np.array(group.weights)).to(ratios)
        return (losses * weights).sum(), pair_figures(result)


class Preference(Algorithm):
    """Learning from stored responses that somebody compared; here from pairs, whose loss the members say."""

    sections = {"preference": PreferenceSection}
    figures = (*HELD_OUT[:2], NUM_PAIRS, ACCURACY, MARGIN, CHOSEN, REJECTED, TOKEN_ACCURACY, ENTROPY, *HELD_OUT[2:])
    smooths_labels = False
    """Whether ``preference.label_smoothing`` has a meaning."""

    @property
    def preference(self) -> PreferenceSection:
        """The settings that all of the family share."""
        section = self.settings["preference"]
        assert isinstance(section, PreferenceSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs, scored by what the policy thinks of them beyond the reference."""
        return Needs(data=("preferences",), responses="pairs", reference=True)

    @property
    def reduction(self) -> Reduction:
        """How a response's token log-probs make its score."""
        return "sum"

    def pair_loss(self, chosen: "Tensor", rejected: "Tensor", betas: "Tensor") -> "Tensor":
        """Loss of each pair, ``[P]``, with gradient.

        Args:
            chosen: float64 ``[P]``: score of the chosen response less the reference's; ``rejected`` likewise.
            betas: float64 ``[P]``, 1/nats.
        """
        raise NotImplementedError

    def objective(self) -> Objective:
        """Of every pair."""
        return PairObjective(self)

    def samples(self, batch: Sequence[Example], ask: Ask) -> StepSamples:
        """One group an instruction; without shared prompts each pair is a group of its own."""
        return StepSamples([self.groups(batch, ask)])

    def groups(self, examples: Sequence[Example], ask: Ask) -> list[PairGroup]:
        """What is made of the pairs of these examples, whose shares add up to one."""
        refs: Sequence[Sequence[np.ndarray]] = []
        if self.needs.reference:
            with ask.phase("reference"):
                refs = ask.reference_of(examples)
        num_pairs = sum(len(e.pairs) for e in examples)
        shares = self.imitation(examples)
        groups = []
        for number, example in enumerate(examples):
            for part in parts(len(example.pairs), together=ask.share_prompts):
                own = refs[number] if refs else []
                groups.append(self._group(example, part, own, num_pairs, shares[number] if shares else None))
        return groups

    def imitation(self, examples: Sequence[Example]) -> list[dict[int, float]]:
        """For each example, for each of its sequences that is imitated, the weight of each of its tokens.

        Empty where nothing is imitated.
        """
        return []

    def weighing(
        self, sequences: Sequence[TokenSequence], pairs: Sequence[tuple[int, int]]
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
        """``(score_of, score_weights, pairs as indices of scores)``; without weights where a head gives the scores."""
        weights = () if self.needs.head else tuple(response_weights(s, self.reduction) for s in sequences)
        return np.arange(len(sequences)), weights, np.array(pairs)

    def beta(self, example: Example, pair: int) -> float:
        """Of one of its pairs, 1/nats."""
        return example.betas[pair] if example.betas else self.preference.beta

    def prepared(self, examples: Sequence[Example], ask: Ask) -> list[PairGroup]:
        """Responses with a label and no rival have no pair to be right about."""
        paired = [e for e in examples if e.pairs]
        return self.groups(paired, ask) if paired else []

    def evaluate(self, prepared: Sequence[PairGroup], ask: Ask) -> dict[str, float]:
        """Pair accuracy and margin."""
        if not prepared:
            return {}
        sequences = [s for g in prepared for s in g.sequences]
        if self.needs.head:
            rows, scale = iter([np.array([r]) for r in ask.rewards(sequences)]), 1.0
        else:
            rows, scale = iter(ask.policy(sequences)), self.preference.beta
        ratios = [score_ratios(g, [next(rows) for _ in g.sequences]) for g in prepared]
        margins = np.concatenate(pair_margins(prepared, ratios)) * scale
        found = (
            float(np.mean(np.where(np.abs(margins) <= TIE, 0.5, margins > 0))),
            float(np.mean(margins)),
            float(len(margins)),
            float(len({group.uid for group in prepared})),
        )
        return {figure.name: value for figure, value in zip(HELD_OUT, found, strict=True)}

    def _group(
        self,
        example: Example,
        part: range,
        refs: Sequence[np.ndarray],
        num_pairs: int,
        shares: dict[int, float] | None,
    ) -> PairGroup:
        """
        Args:
            shares: Weight of each token of the responses that are imitated; those of this group are taken out.
        """
        pairs = [example.pairs[i] for i in part]
        used = sorted({i for pair in pairs for i in pair})
        at = {index: position for position, index in enumerate(used)}
        sequences = tuple(example.sequences[i] for i in used)
        score_of, weights, rows = self.weighing(sequences, [(at[c], at[r]) for c, r in pairs])
        ref_scores, imitated = np.zeros(len(score_of)), ()
        if refs:
            ref_scores = weighted_sums([sequences[i] for i in score_of], weights, [refs[used[i]] for i in score_of])
        if shares is not None:
            imitated = tuple(shares.pop(i, 0.0) * example.sequences[i].action_mask for i in used)
        return PairGroup(
            sequences=sequences,
            score_of=score_of,
            score_weights=weights,
            ref_scores=ref_scores,
            imitation=imitated,
            pairs=rows,
            weights=np.full(len(rows), 1.0 / num_pairs),
            betas=np.array([self.beta(example, i) for i in part]),
        )


def imitation_shares(
    examples: Sequence[Example], *, weight: float, mode: Literal["token-mean", "seq-mean-token-mean"], once: bool
) -> list[dict[int, float]]:
    """``Preference.imitation`` of the chosen responses, whose mean cross-entropy counts ``weight``.

    Args:
        once: Count a response once, not as often as it is chosen.
    Source: MM-RLHF, dpo_trainer.py:899-910
    """
    import torch

    from algorithms.maths.aggregation import response_weights as shares_of

    counts = [Counter(chosen for chosen, _ in e.pairs) for e in examples]
    places = [(number, index) for number, count in enumerate(counts) for index in count]
    sequences = [examples[number].sequences[index] for number, index in places]
    num_tokens = torch.tensor([len(s.input_ids) - s.prompt_len for s in sequences])
    repeats = torch.tensor([1 if once else counts[number][index] for number, index in places])
    weights = shares_of(
        num_tokens,
        repeats,
        mode=mode,
        global_num_sequences=int(repeats.sum()),
        global_num_tokens=int((repeats * num_tokens).sum()),
    )
    shares: list[dict[int, float]] = [{} for _ in examples]
    for (number, index), share in zip(places, weights.tolist(), strict=True):
        shares[number][index] = weight * share
    return shares
