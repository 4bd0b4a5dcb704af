"""MPO's three losses of a step of pairs, by hand and over any split into micro-batches."""

import math

import numpy as np
import pytest

from algorithms.algorithm import Unlearnable
from tests.unit.algorithms.asks import Answers, Policy, learner
from tests.unit.algorithms.examples import example, logprobs

EXAMPLES = [
    example("a", [[5], [6, 7], [8]], pairs=((0, 1), (0, 2))),
    example("b", [[5, 6, 7], [8]], pairs=((1, 0),)),
]
POLICY, REFERENCE = logprobs(EXAMPLES, seed=1), logprobs(EXAMPLES, seed=2)
BETA = 0.1


def _minus_log_sigmoid(x: float) -> float:
    return math.log1p(math.exp(-x))


def test_a_steps_loss_is_the_three_by_their_weights_against_the_mean_reward_of_both_sides() -> None:
    algorithm = learner("mpo")
    step = algorithm.samples(EXAMPLES, Answers(EXAMPLES, policy=POLICY, reference=REFERENCE))
    loss, figures = Policy(EXAMPLES, POLICY).loss(algorithm, step.updates[0])
    rewards = [
        [BETA * float((p - r).sum(dtype=np.float64)) for p, r in zip(ps, rs, strict=True)]
        for ps, rs in zip(POLICY, REFERENCE, strict=True)
    ]
    pairs = [(rewards[0][0], rewards[0][1]), (rewards[0][0], rewards[0][2]), (rewards[1][1], rewards[1][0])]
    shift = sum(c + r for c, r in pairs) / 6
    dpo = sum(_minus_log_sigmoid(c - r) for c, r in pairs) / 3
    bco = sum(_minus_log_sigmoid(c - shift) + _minus_log_sigmoid(shift - r) for c, r in pairs) / 3
    # The first response of one is chosen twice, the second of the other once; each has one token.
    sft = -(2 * float(POLICY[0][0][0]) + float(POLICY[1][1][0])) / 3
    assert step.figures == {"preference/reward_shift": pytest.approx(shift)}
    assert float(loss.detach()) == pytest.approx(0.8 * dpo + 0.2 * bco + sft, rel=1e-6)
    assert figures["policy/imitation_loss"] == pytest.approx(sft, rel=1e-6)


def test_micro_batches_and_unshared_prompts_add_up_to_the_same_gradient() -> None:
    algorithm, found = learner("mpo"), []
    for share in (True, False):
        ask = Answers(EXAMPLES, policy=POLICY, reference=REFERENCE, share_prompts=share)
        (groups,) = algorithm.samples(EXAMPLES, ask).updates
        policy = Policy(EXAMPLES, POLICY)
        for group in groups:
            policy.loss(algorithm, [group])[0].backward()
        found.append(policy.gradients())
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


def test_what_it_does_not_weigh_is_left_out_and_a_loss_of_nothing_is_refused() -> None:
    pairs_only = learner("mpo", mpo={"sft_weight": 0.0})
    (groups,) = pairs_only.samples(EXAMPLES, Answers(EXAMPLES, policy=POLICY, reference=REFERENCE)).updates
    assert all(group.imitation == () for group in groups)
    with pytest.raises(ValueError, match="one must be above 0"):
        learner("mpo", mpo={"dpo_weight": 0.0, "bco_weight": 0.0, "sft_weight": 0.0}).check(None)


def test_a_log_prob_that_is_not_finite_is_a_sentence() -> None:
    broken = [[row.copy() for row in rows] for rows in POLICY]
    broken[1][0][0] = math.inf
    with pytest.raises(Unlearnable, match="the log-probs of prompt b, for the step's reward shift, are not finite"):
        learner("mpo").samples(EXAMPLES, Answers(EXAMPLES, policy=broken, reference=REFERENCE))
