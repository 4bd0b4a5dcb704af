"""A critique reward model's step is the formula, whole or in groups and micro-batches: written out here in float64.

L = w_f [mean over pairs of −log σ(r_c − r_r) + w_t · mean over ties of (r_c − r_r)²]
    + c · mean over both of (r_c + r_r)² + w_q · mean over responses of the mean NLL of their critique's tokens
"""

from collections.abc import Sequence as Seq
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from workers.objectives import LossSpec, UpdateStats

from algorithms.critique_rm import CritiqueRmSection
from algorithms.records import Example, PreferenceGroup
from orchestrator.training.reward_groups import reward_groups
from tests.unit.offline.examples import PROMPT, example
from workers.preference_objective import preference_objective

_SETTINGS = CritiqueRmSection(score_weight=0.75, tie_weight=0.5, centering=0.125, critique_weight=1.5)
_SPEC = LossSpec(kind="critique_rm")


def _with(**weights: float) -> CritiqueRmSection:
    return _SETTINGS.model_copy(update=weights)


def _examples() -> list[Example]:
    """Ranks 1 > 2 = 3 > 4, a plain pair, and one that ties with a third which is worse than it is."""
    lengths = {"a": [6, 9, 4, 7], "b": [5, 3], "c": [8, 8, 4]}
    pairs = {"a": ((0, 1), (0, 2), (0, 3), (1, 3), (2, 3)), "b": ((1, 0),), "c": ((0, 2),)}
    ties = {"a": ((1, 2),), "b": (), "c": ((0, 1),)}
    made = []
    for uid, of in lengths.items():
        plain = example(uid, [range(10, 10 + n) for n in of], pairs=pairs[uid])
        # Behind the prompt come response and request, which nothing is learned from, then 1, 2, ... critique tokens.
        starts = tuple(PROMPT + n - min(n - 1, 1 + k) for k, n in enumerate(of))
        made.append(replace(plain, ties=ties[uid], critique_starts=starts))
    return made


class _Model:
    """Log-probs and a reward for every response, leaves of the gradient."""

    def __init__(self, examples: Seq[Example], *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.logprobs, self.rewards = {}, {}
        for sequence in (s for e in examples for s in e.sequences):
            key = sequence.uid, sequence.sample_index
            values = -rng.exponential(1.0, len(sequence.input_ids) - PROMPT)
            self.logprobs[key] = torch.from_numpy(values).requires_grad_()
            self.rewards[key] = torch.from_numpy(rng.normal(0, 2, 1)).requires_grad_()

    def gradients(self) -> list[np.ndarray]:
        leaves = (*self.logprobs.values(), *self.rewards.values())
        found = [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad.numpy().copy() for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
        return found

    def objective(self, groups: Seq[PreferenceGroup], stats: UpdateStats) -> Tensor:
        keys = [(s.uid, s.sample_index) for g in groups for s in g.sequences]
        logprobs, rewards = [self.logprobs[k] for k in keys], [self.rewards[k] for k in keys]
        return preference_objective(groups, _SPEC, stats, logprobs=logprobs, rewards=rewards)


def _by_hand(examples: Seq[Example], model: _Model, settings: CritiqueRmSection) -> Tensor:
    def reward(e: Example, place: int) -> Tensor:
        """Of a response by its place in the store."""
        return model.rewards[e.uid, place][0]

    pairs = [(reward(e, c), reward(e, r)) for e in examples for c, r in e.pairs]
    ties = [(reward(e, i), reward(e, j)) for e in examples for i, j in e.ties]
    critiques = [
        -model.logprobs[e.uid, s.sample_index][start - PROMPT :].mean()
        for e in examples
        for s, start in zip(e.sequences, e.critique_starts, strict=True)
    ]
    score = sum(-logsigmoid(c - r) for c, r in pairs) / len(pairs)
    if ties:
        score = score + settings.tie_weight * sum((i - j) ** 2 for i, j in ties) / len(ties)
    centre = sum((i + j) ** 2 for i, j in (*pairs, *ties)) / len((*pairs, *ties))
    critique = torch.stack(critiques).mean()
    return settings.score_weight * score + settings.centering * centre + settings.critique_weight * critique


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_a_step_is_the_formula_however_it_is_cut(share: bool, num_batches: int) -> None:
    examples = _examples()
    model = _Model(examples, seed=0)
    wanted = _by_hand(examples, model, _SETTINGS)
    wanted.backward()
    by_hand = model.gradients()
    groups = reward_groups(examples, _SETTINGS, share_prompts=share)
    assert len(groups) == (3 if share else 7 + 2)
    stats = UpdateStats()
    losses = [model.objective(groups[i::num_batches], stats) for i in range(num_batches)]
    for loss in losses:
        loss.backward()
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(wanted.detach()), rel=1e-12)
    for found, expected in zip(model.gradients(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert stats.loss == pytest.approx(float(wanted.detach()), rel=1e-12)
    assert stats.nonfinite == ()


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_figures_speak_of_pairs_and_critiques_each_counted_once(share: bool) -> None:
    examples = _examples()
    model, stats = _Model(examples, seed=1), UpdateStats()
    model.objective(reward_groups(examples, _SETTINGS, share_prompts=share), stats)
    gaps = [float((model.rewards[e.uid, c] - model.rewards[e.uid, r]).detach()) for e in examples for c, r in e.pairs]
    assert stats.num_pairs == stats.num_chosen == stats.num_rejected == len(gaps) == 7
    assert stats.margin_sum == pytest.approx(sum(gaps))
    assert stats.num_correct == sum(gap > 0 for gap in gaps)
    without = _with(critique_weight=0.0)
    assert stats.imitation_loss == pytest.approx(
        float((_by_hand(examples, model, _SETTINGS) - _by_hand(examples, model, without)).detach())
    )


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_of_a_critique_every_token_counts_and_of_what_is_before_it_none(share: bool) -> None:
    examples = _examples()
    totals: dict[tuple[str, int], np.ndarray] = {}
    for group in reward_groups(examples, _SETTINGS, share_prompts=share):
        for s, weights in zip(group.sequences, group.imitation, strict=True):
            key = s.uid, s.sample_index
            totals[key] = totals.get(key, np.zeros(len(weights))) + weights
    assert len(totals) == 9
    for e in examples:
        for s, start in zip(e.sequences, e.critique_starts, strict=True):
            weights = totals[s.uid, s.sample_index]
            assert not weights[:start].any()
            np.testing.assert_allclose(weights[start:], 1.5 / 9 / (len(weights) - start), rtol=1e-12)


def test_without_ties_or_a_weight_its_term_is_gone() -> None:
    examples = [replace(e, ties=()) for e in _examples()]
    model = _Model(examples, seed=2)
    # With the tie of the last example its second response has no comparison left: it is not learned from.
    last = examples[2]
    alone = replace(last, sequences=last.sequences[::2], critique_starts=last.critique_starts[::2])
    for settings in (_SETTINGS, _with(centering=0.0), _with(critique_weight=0.0), _with(score_weight=0.0)):
        found = model.objective(reward_groups(examples, settings, share_prompts=True), UpdateStats())
        wanted = _by_hand([*examples[:2], alone], model, settings)
        assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)


def test_exchanging_chosen_and_rejected_mirrors_the_pairs_and_leaves_the_rest() -> None:
    """MM-RLHF T12: −log σ(−x) = −log σ(x) + x; a tie has no sides."""
    examples = _examples()
    turned = [replace(e, pairs=tuple(p[::-1] for p in e.pairs), ties=tuple(t[::-1] for t in e.ties)) for e in examples]
    model, of_first, of_second = _Model(examples, seed=3), UpdateStats(), UpdateStats()
    first = model.objective(reward_groups(examples, _SETTINGS, share_prompts=True), of_first)
    second = model.objective(reward_groups(turned, _SETTINGS, share_prompts=True), of_second)
    assert of_second.margin_sum == pytest.approx(-of_first.margin_sum)
    assert of_second.num_correct == 7 - of_first.num_correct
    gap = _SETTINGS.score_weight * of_first.margin_sum / 7
    assert float(second.detach()) == pytest.approx(float(first.detach()) + gap, rel=1e-12)


def test_a_reward_that_is_not_finite_names_its_instruction() -> None:
    examples = _examples()
    model, stats = _Model(examples, seed=4), UpdateStats()
    with torch.no_grad():
        model.rewards["b", 0][0] = float("nan")
    model.objective(reward_groups(examples, _SETTINGS, share_prompts=True), stats)
    assert stats.nonfinite == ("b",)
