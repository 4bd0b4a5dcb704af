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

from algorithms.algorithm import Loss, Scores
from algorithms.critique_rm import CritiqueRmSection, RewardGroup, RewardObjective, reward_groups
from algorithms.figures import added, values
from algorithms.records import Example
from tests.unit.algorithms.examples import PROMPT, example

_SETTINGS = CritiqueRmSection(score_weight=0.75, tie_weight=0.5, centering=0.125, critique_weight=1.5)


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

    def learned(self, groups: Seq[RewardGroup], settings: CritiqueRmSection = _SETTINGS) -> Loss:
        keys = [(s.uid, s.sample_index) for g in groups for s in g.sequences]
        logprobs, rewards = tuple(self.logprobs[k] for k in keys), tuple(self.rewards[k] for k in keys)
        return RewardObjective(settings.centering)(Scores(logprobs=logprobs, rewards=rewards), groups)


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
    groups = reward_groups(examples, _SETTINGS, together=share)
    assert len(groups) == (3 if share else 7 + 2)
    losses = [model.learned(groups[i::num_batches]).losses.sum() for i in range(num_batches)]
    for loss in losses:
        loss.backward()
    assert sum(float(loss.detach()) for loss in losses) == pytest.approx(float(wanted.detach()), rel=1e-12)
    for found, expected in zip(model.gradients(), by_hand, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_figures_speak_of_pairs_and_critiques_each_counted_once(share: bool) -> None:
    examples = _examples()
    model = _Model(examples, seed=1)
    groups = reward_groups(examples, _SETTINGS, together=share)
    told = values(added(model.learned([group]).figures for group in groups))
    gaps = [float((model.rewards[e.uid, c] - model.rewards[e.uid, r]).detach()) for e in examples for c, r in e.pairs]
    assert told["preference/num_pairs"] == len(gaps) == 7
    assert told["preference/margin"] == pytest.approx(sum(gaps) / 7)
    assert told["preference/chosen_reward"] - told["preference/rejected_reward"] == pytest.approx(sum(gaps) / 7)
    assert told["preference/accuracy"] == sum(gap > 0 for gap in gaps) / 7
    without = _with(critique_weight=0.0)
    assert told["policy/imitation_loss"] == pytest.approx(
        float((_by_hand(examples, model, _SETTINGS) - _by_hand(examples, model, without)).detach())
    )


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
def test_of_a_critique_every_token_counts_and_of_what_is_before_it_none(share: bool) -> None:
    examples = _examples()
    totals: dict[tuple[str, int], np.ndarray] = {}
    for group in reward_groups(examples, _SETTINGS, together=share):
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
        learned = model.learned(reward_groups(examples, settings, together=True), settings)
        assert ("policy/imitation_loss" in learned.figures) == (settings.critique_weight > 0)
        found = learned.losses.sum()
        wanted = _by_hand([*examples[:2], alone], model, settings)
        assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-12)


def test_exchanging_chosen_and_rejected_mirrors_the_pairs_and_leaves_the_rest() -> None:
    """MM-RLHF T12: −log σ(−x) = −log σ(x) + x; a tie has no sides."""
    examples = _examples()
    turned = [replace(e, pairs=tuple(p[::-1] for p in e.pairs), ties=tuple(t[::-1] for t in e.ties)) for e in examples]
    model = _Model(examples, seed=3)
    first, second = (model.learned(reward_groups(of, _SETTINGS, together=True)) for of in (examples, turned))
    of_first, of_second = values(first.figures), values(second.figures)
    assert of_second["preference/margin"] == pytest.approx(-of_first["preference/margin"])
    assert of_second["preference/accuracy"] == pytest.approx(1 - of_first["preference/accuracy"])
    gap = _SETTINGS.score_weight * of_first["preference/margin"]
    assert float(second.losses.sum().detach()) == pytest.approx(float(first.losses.sum().detach()) + gap, rel=1e-12)


def test_a_reward_that_is_not_finite_is_in_the_loss_of_its_instruction_alone() -> None:
    examples = _examples()
    model = _Model(examples, seed=4)
    with torch.no_grad():
        model.rewards["b", 0][0] = float("nan")
    groups = reward_groups(examples, _SETTINGS, together=True)
    finite = torch.isfinite(model.learned(groups).losses).tolist()
    assert [group.uid for group, ok in zip(groups, finite, strict=True) if not ok] == ["b"]
