"""From the examples of one optimizer step to the groups that the workers learn from. Pure.

Every weight is a share of the whole step's objective: all pairs of a step count alike, as do all labelled responses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from algorithms.maths.preference_losses import DPO_REDUCTION, kto_pair_loss
from algorithms.maths.token_diff import DDPO_MODES, DdpoMode, token_diff
from algorithms.preference import PreferenceSection
from algorithms.preference_registry import PreferenceAlgorithm
from algorithms.records import Example, LabelTerms, LinearTerms, PairTerms, PreferenceGroup
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.specs import pair_kind
from orchestrator.training.imitation import ImitationSettings, imitation_shares


class GroupMaker:
    """Groups for one algorithm and its settings."""

    def __init__(
        self,
        algorithm: PreferenceAlgorithm,
        settings: PreferenceSection,
        *,
        share_prompts: bool,
        imitate: ImitationSettings | None = None,
    ) -> None:
        """
        Args:
            imitate: How chosen responses are imitated; None imitates none.
        """
        self._algorithm, self._settings, self._share, self._imitate = algorithm, settings, share_prompts, imitate

    def pairs(self, examples: Sequence[Example], ref_logprobs: Sequence[Sequence[np.ndarray]]) -> list[PreferenceGroup]:
        """Groups that learn from pairs; without shared prompts each pair is a group of its own.

        Args:
            ref_logprobs: For each example, for each of its sequences, float32 ``[L]`` of its response; empty for an
                algorithm without reference.
        """
        num_pairs = sum(len(e.pairs) for e in examples)
        shares = imitation_shares(examples, self._imitate) if self._imitate else [{} for _ in examples]
        groups = []
        for number, example in enumerate(examples):
            refs = ref_logprobs[number] if ref_logprobs else []
            for part in self._parts(len(example.pairs)):
                groups.append(self._pair_group(example, part, refs, num_pairs, shares[number]))
        return groups

    def labels(
        self, examples: Sequence[Example], ref_logprobs: Sequence[Sequence[np.ndarray]], *, baseline: float
    ) -> list[PreferenceGroup]:
        """Groups of labelled responses (KTO); without shared prompts each response is a group of its own.

        Args:
            baseline: z₀ of the step, nats.
        """
        total, settings = sum(len(e.sequences) for e in examples), self._settings
        groups = []
        for example, refs in zip(examples, ref_logprobs, strict=True):
            for part in self._parts(len(example.sequences)):
                sequences = tuple(example.sequences[i] for i in part)
                desirable = np.array([example.desirable[i] for i in part])
                of_kind = np.where(desirable, settings.desirable_weight, settings.undesirable_weight)
                weights = tuple(_ones(s) for s in sequences)
                terms = LabelTerms(desirable=desirable, weights=of_kind / total, beta=settings.beta, baseline=baseline)
                groups.append(
                    PreferenceGroup(
                        sequences=sequences,
                        score_of=np.arange(len(sequences)),
                        score_weights=weights,
                        ref_scores=_scores(sequences, weights, [refs[i] for i in part]),
                        terms=terms,
                    )
                )
        return groups

    def coupled(self, groups: Sequence[PreferenceGroup], ratios: Sequence[np.ndarray]) -> list[PreferenceGroup]:
        """Pair groups with ``kto_pair_loss``, which couples the whole step, replaced by its derivatives.

        Args:
            ratios: float64 ``[S]`` a group: its scores less the reference's, under the weights that will learn.
        """
        leaves = [torch.from_numpy(r).requires_grad_() for r in ratios]
        pairs = [group.terms.pairs for group in groups if isinstance(group.terms, PairTerms)]
        chosen, rejected = (
            torch.cat([leaf[torch.from_numpy(p[:, side])] for leaf, p in zip(leaves, pairs, strict=True)])
            for side in (0, 1)
        )
        loss = kto_pair_loss(chosen, rejected, beta=self._settings.beta).loss.mean()
        slopes = [slope.numpy() for slope in torch.autograd.grad(loss, leaves)]
        linear = sum(float(np.dot(slope, r)) for slope, r in zip(slopes, ratios, strict=True))
        constant = (float(loss.detach()) - linear) / len(groups)
        terms = [LinearTerms(coefficients=slope, constant=constant) for slope in slopes]
        return [
            PreferenceGroup(
                sequences=g.sequences,
                score_of=g.score_of,
                score_weights=g.score_weights,
                ref_scores=g.ref_scores,
                terms=t,
            )
            for g, t in zip(groups, terms, strict=True)
        ]

    def _parts(self, count: int) -> Iterator[range]:
        """Which of an example's pairs, or labelled responses, are learned from together."""
        if self._share:
            yield range(count)
        else:
            yield from (range(i, i + 1) for i in range(count))

    def _pair_group(
        self, example: Example, part: range, refs: Sequence[np.ndarray], num_pairs: int, shares: dict[int, float]
    ) -> PreferenceGroup:
        """
        Args:
            shares: Weight of each token of the responses that are imitated; those of this group are taken out.
        """
        pairs = [example.pairs[i] for i in part]
        used = sorted({i for pair in pairs for i in pair})
        at = {index: position for position, index in enumerate(used)}
        sequences = tuple(example.sequences[i] for i in used)
        refs = [refs[i] for i in used] if refs else []
        score_of, weights, rows = self._weighing(sequences, [(at[c], at[r]) for c, r in pairs])
        of_scores = [sequences[i] for i in score_of]
        imitated = [shares.pop(i, 0.0) * example.sequences[i].action_mask for i in used] if self._imitate else []
        return PreferenceGroup(
            sequences=sequences,
            score_of=score_of,
            score_weights=weights,
            ref_scores=_scores(of_scores, weights, [refs[i] for i in score_of]) if refs else np.zeros(len(score_of)),
            terms=PairTerms(
                pairs=rows,
                weights=np.full(len(rows), 1.0 / num_pairs),
                betas=np.array([example.betas[i] if example.betas else self._settings.beta for i in part]),
            ),
            imitation=tuple(imitated),
        )

    def _weighing(
        self, sequences: Sequence[TokenSequence], pairs: Sequence[tuple[int, int]]
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
        """``(score_of, score_weights, pairs as indices of scores)``."""
        algorithm = self._algorithm
        if algorithm.weighs_corrections:
            mode = DDPO_MODES[self._settings.ddpo_mode]
            weights = [w for c, r in pairs for w in _corrections(sequences[c], sequences[r], mode)]
            rows = np.arange(2 * len(pairs)).reshape(-1, 2)
            return np.array([i for pair in pairs for i in pair]), tuple(weights), rows
        score_of = np.arange(len(sequences))
        if algorithm.gives_rewards:
            return score_of, (), np.array(pairs)
        weigh = _mean if DPO_REDUCTION[pair_kind(algorithm, self._settings)] == "mean" else _ones
        return score_of, tuple(weigh(s) for s in sequences), np.array(pairs)


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


def with_beta(groups: Sequence[PreferenceGroup], beta: float) -> list[PreferenceGroup]:
    """The same groups, all their pairs with one β, 1/nats."""
    return [
        replace(g, terms=replace(g.terms, betas=np.full(len(g.terms.pairs), beta)))
        for g in groups
        if isinstance(g.terms, PairTerms)
    ]


def score_ratios(group: PreferenceGroup, logprobs: Sequence[np.ndarray]) -> np.ndarray:
    """float64 ``[S]``: the group's scores less the reference's.

    Args:
        logprobs: For each sequence float32 ``[L]`` of its response, nats; or ``[1]``, a scalar reward.
    """
    if not group.score_weights:
        return np.array([float(logprobs[i][0]) for i in group.score_of])
    of_scores = [group.sequences[i] for i in group.score_of]
    return _scores(of_scores, group.score_weights, [logprobs[i] for i in group.score_of]) - group.ref_scores


def _scores(
    sequences: Sequence[TokenSequence], weights: Sequence[np.ndarray], logprobs: Sequence[np.ndarray]
) -> np.ndarray:
    return np.array(
        [
            float(np.dot(row.astype(np.float64), weight[s.prompt_len :].astype(np.float64)))
            for s, weight, row in zip(sequences, weights, logprobs, strict=True)
        ]
    )


def _ones(sequence: TokenSequence) -> np.ndarray:
    return sequence.action_mask.astype(np.float32)


def _mean(sequence: TokenSequence) -> np.ndarray:
    mask = _ones(sequence)
    return mask / mask.sum()


def _corrections(chosen: TokenSequence, rejected: TokenSequence, mode: DdpoMode) -> tuple[np.ndarray, np.ndarray]:
    """DDPO's token weights of both sides, as ``ddpo_scores`` has them."""
    sides = (chosen, rejected)
    marks = token_diff(*(s.input_ids[s.prompt_len :].tolist() for s in sides))
    rows = []
    for sequence, corrected in zip(sides, marks, strict=True):
        weights = np.where(corrected, mode.gamma, float(mode.base_weight))
        total = weights.sum()
        weights = weights / total if mode.average and total > 0 else weights
        rows.append(np.concatenate([np.zeros(sequence.prompt_len), weights]).astype(np.float32))
    return rows[0], rows[1]
