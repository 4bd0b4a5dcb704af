"""PPO with a critic: what becomes of rewards and values, and what it refuses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithms.algorithm import StepSamples
from algorithms.critic import EXPLAINED, RETURN, VALUE, CriticSection
from algorithms.policy_settings import AlgorithmSection
from algorithms.ppo import Ppo
from algorithms.records import Rollout, Sequence

_UNGUARDED = {"adv_filter": "none", "preclip_min": None, "preclip_max": None, "aggregation": "token-mean"}


def _ppo(*, kl_coef: float = 0.0, gamma: float = 1.0, parts: Any = "summed", **critic: Any) -> Ppo:
    own = AlgorithmSection(**{**_UNGUARDED, "kl_coef": kl_coef, "gamma": gamma, "parts": parts})
    return Ppo("ppo", {"algorithm": own, "critic": CriticSection(**critic)})


def _rollout(uid: str, reward: float | None, values: list[float], *, kl: float | None = None) -> Rollout:
    """A prompt of two tokens, and a token for each value."""
    old = np.full(2 + len(values), -1.0, np.float32)
    sequence = Sequence(uid=uid, sample_index=0, input_ids=np.arange(2 + len(values)), prompt_len=2, media=())
    return Rollout(
        sequence=sequence,
        reward=reward,
        rollout_logprobs=old,
        old_logprobs=old,
        ref_logprobs=None if kl is None else old - np.float32(kl),
        values=np.array([0.0, 0.0, *values], np.float32),
    )


def _learned(algorithm: Ppo, *rollouts: Rollout, parts: list[list[int]] | None = None) -> StepSamples:
    everything = parts or [list(range(sum(r.reward is not None for r in rollouts)))]
    ask: Any = SimpleNamespace(longest_response=4, deal=lambda uids: everything)
    return algorithm.samples(rollouts, ask)


def test_advantages_are_what_values_did_not_foresee_and_returns_are_what_they_should_have() -> None:
    # With lambda = 1/2 and v = (1, 2, 3), r = 5 at the end: δ = 1, 1, 2; A = 1 + 1/2 (1 + 1/2 · 2) = 2, 2, 2.
    learned = _learned(_ppo(gae_lambda=0.5, whiten=False), _rollout("a", 5.0, [1.0, 2.0, 3.0]))
    ((sample,),), ((taught,),) = learned.updates, learned.critic
    assert sample.advantages.tolist() == [0, 0, 2.0, 2.0, 2.0]
    assert taught.returns.tolist() == [0, 0, 3.0, 4.0, 5.0] and taught.old_values[2:].tolist() == [1.0, 2.0, 3.0]
    assert (learned.figures[VALUE], learned.figures[RETURN]) == (2.0, 4.0)
    # Returns less values are 2 everywhere: the critic knows all of how they vary.
    assert learned.figures[EXPLAINED] == pytest.approx(1.0)


def test_the_kl_is_charged_on_every_token_before_the_critic_sees_it() -> None:
    learned = _learned(_ppo(kl_coef=0.1, gae_lambda=1.0, whiten=False), _rollout("a", 1.0, [0.0, 0.0], kl=2.0))
    ((taught,),) = learned.critic
    assert taught.returns[2:].tolist() == pytest.approx([1.0 - 0.4, 1.0 - 0.2])


def test_whitened_advantages_leave_the_returns_alone_and_a_failed_reward_teaches_neither() -> None:
    rollouts = (_rollout("a", 1.0, [0.0]), _rollout("b", None, [0.0]), _rollout("c", 3.0, [0.0]))
    learned = _learned(_ppo(), *rollouts)
    assert [float(s.advantages[2]) for s in learned.updates[0]] == pytest.approx([-1.0, 1.0])
    assert [(s.uid, float(s.returns[2])) for s in learned.critic[0]] == [("a", 1.0), ("c", 3.0)]
    assert [s.loss_weight.tolist() for s in learned.critic[0]] == [s.loss_weight.tolist() for s in learned.updates[0]]


def test_policy_and_critic_learn_from_the_same_rollouts_in_every_optimizer_step() -> None:
    rollouts = [_rollout(name, float(n), [0.0]) for n, name in enumerate("abcd")]
    learned = _learned(_ppo(), *rollouts, parts=[[2, 0], [1, 3]])
    assert [[s.uid for s in some] for some in learned.critic] == [["c", "a"], ["b", "d"]]
    assert [[s.uid for s in some] for some in learned.updates] == [["c", "a"], ["b", "d"]]


def test_it_asks_for_a_critic_and_refuses_what_that_has_no_part_in() -> None:
    needs = _ppo(path="rm", head="reward_head", lr=1e-5).needs
    assert needs.critic is not None and (needs.critic.path, needs.critic.keeps_head, needs.critic.lr) == (
        "rm",
        True,
        1e-5,
    )
    assert not needs.reference and _ppo(kl_coef=0.1).needs.reference
    config: Any = SimpleNamespace(
        rollout=SimpleNamespace(prompts_per_step=4, samples_per_prompt=1, top_p=1.0, max_refills=0),
        policy=SimpleNamespace(train_batch_size=4),
        reward=SimpleNamespace(critique=SimpleNamespace(weight=0.0, path=None)),
    )
    _ppo().check(config)
    with pytest.raises(ValueError, match=r"algorithm.parts = 'whitened' must be 'summed'"):
        _ppo(parts="whitened").check(config)
    with pytest.raises(ValueError, match=r"critic.head = 'reward_head' needs critic.path"):
        CriticSection(head="reward_head").check(config)
