"""PPO with a critic: what becomes of rewards and values, and what it refuses."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithms.algorithm import StepSamples
from algorithms.critic import EXPLAINED, RETURN, VALUE, CriticSection
from algorithms.policy_settings import AlgorithmSection
from algorithms.ppo import Ppo
from algorithms.records import Rollout, Sequence
from orchestrator.config import load_config
from tests.contract.other_values import with_value

_UNGUARDED = {"adv_filter": "none", "preclip_min": None, "preclip_max": None, "aggregation": "token-mean"}


def _ppo(
    *, kl_coef: float = 0.0, gamma: float = 1.0, parts: Any = "summed", policy_epochs: int = 1, **critic: Any
) -> Ppo:
    own = AlgorithmSection(
        **{**_UNGUARDED, "kl_coef": kl_coef, "gamma": gamma, "parts": parts, "epochs": policy_epochs}
    )
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


def _learned(algorithm: Ppo, *rollouts: Rollout, parts: list[list[int]] | None = None, step: int = 0) -> StepSamples:
    """Every other epoch is dealt out backwards."""
    everything = parts or [list(range(sum(r.reward is not None for r in rollouts)))]
    ask: Any = SimpleNamespace(
        longest_response=4, state={}, step=step, deal=lambda uids, epoch: everything[:: -1 if epoch % 2 else 1]
    )
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


def test_policy_and_critic_go_through_a_steps_samples_as_often_as_each_is_told() -> None:
    rollouts = [_rollout(name, float(n), [0.0]) for n, name in enumerate("abcd")]
    learned = _learned(_ppo(policy_epochs=2, epochs=3), *rollouts, parts=[[2, 0], [1, 3]])
    one, other = ["c", "a"], ["b", "d"]
    assert [[s.uid for s in some] for some in learned.updates] == [one, other, other, one]
    assert [[s.uid for s in some] for some in learned.critic] == [one, other, other, one, one, other]
    # Whatever is learned in the step, advantages, returns and old values are those of its beginning.
    assert all(
        np.array_equal(s.advantages, t.advantages) for s, t in zip(learned.updates[0], learned.updates[3], strict=True)
    )
    assert all(np.array_equal(s.returns, t.returns) for s, t in zip(learned.critic[0], learned.critic[4], strict=True))


def test_the_policy_waits_while_the_critic_warms_up() -> None:
    algorithm, rollouts = _ppo(warmup_steps=2, policy_epochs=3), (_rollout("a", 1.0, [0.0]), _rollout("b", 0.0, [0.0]))
    assert [len(_learned(algorithm, *rollouts, step=step).updates) for step in range(4)] == [0, 0, 3, 3]
    assert [len(_learned(algorithm, *rollouts, step=step).critic) for step in range(4)] == [1, 1, 1, 1]
    assert [algorithm.epochs_at(step) for step in range(4)] == [0, 0, 3, 3]


def test_it_asks_for_a_critic_and_refuses_what_that_has_no_part_in() -> None:
    needs = _ppo(init="reward", path="rm", head="reward_head", lr=1e-5).needs
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
        run=SimpleNamespace(steps=20),
    )
    _ppo(warmup_steps=19).check(config)
    with pytest.raises(ValueError, match=r"critic.warmup_steps = 20 must be below run.steps = 20"):
        _ppo(warmup_steps=20).check(config)
    with pytest.raises(ValueError, match=r"algorithm.parts = 'whitened' must be 'summed'"):
        _ppo(parts="whitened").check(config)


def _adaptive(*, state: dict[str, float] | None = None, kl: float = 2.0, step: int = 0, warmup: int = 0) -> StepSamples:
    """A step of two rollouts of two tokens, whose KL is 2 nats a token, so 4 a response, with a target of 1."""
    own = AlgorithmSection(**{**_UNGUARDED, "kl_coef": 0.1, "kl_target": 1.0, "kl_horizon": 20})
    critic = CriticSection(gae_lambda=1.0, whiten=False, warmup_steps=warmup)
    algorithm = Ppo("ppo", {"algorithm": own, "critic": critic})
    rollouts = (_rollout("a", 1.0, [0.0, 0.0], kl=kl), _rollout("b", 1.0, [0.0, 0.0], kl=kl))
    ask: Any = SimpleNamespace(longest_response=4, state=state or {}, step=step, deal=lambda uids, epoch: [[0, 1]])
    return algorithm.samples(rollouts, ask)


def test_the_cost_of_the_kl_follows_the_kl_from_step_to_step() -> None:
    # e = 4 / 1 - 1 clamped to 0.2, of 2 rollouts in 20: the cost grows by 0.2 · 2 / 20 = 2 %.
    first = _adaptive()
    assert first.figures["kl/coef"] == 0.1 and first.state == {"coef": pytest.approx(0.102)}
    second = _adaptive(state=dict(first.state))
    assert second.figures["kl/coef"] == first.state["coef"] and second.state == {"coef": pytest.approx(0.10404)}
    # Charged is the cost of the moment: the return is 1 less the KL of both tokens.
    returns = [found.critic[0][0].returns[2] for found in (first, second)]
    assert returns == pytest.approx([1.0 - 4 * 0.1, 1.0 - 4 * 0.102])
    assert _adaptive(kl=0.0).state == {"coef": pytest.approx(0.098)}
    assert _learned(_ppo(kl_coef=0.1), _rollout("a", 1.0, [0.0], kl=2.0)).state == {}


def test_the_cost_stays_while_the_policy_waits_for_its_critic() -> None:
    assert _adaptive(warmup=1, kl=0.0).state == {"coef": 0.1}
    assert _adaptive(warmup=1, kl=0.0, step=1).state == {"coef": pytest.approx(0.098)}


@pytest.mark.parametrize(
    ("told", "lora_rank", "refusal"),
    [
        ({"init": "reward"}, None, "critic.init = 'reward' needs critic.path or reward.scalar_path"),
        ({"path": "rm"}, None, "critic.path = 'rm' needs critic.init = 'reward'; it is 'policy'"),
        ({"init": "random", "path": "rm"}, None, "critic.path = 'rm' needs critic.init = 'reward'; it is 'random'"),
        ({"head": "reward_head"}, None, "critic.head = 'reward_head' needs critic.init = 'reward'; it is 'policy'"),
        ({"init": "random"}, 4, "critic.init = 'random' must be without model.lora_rank = 4"),
        ({"init": "reward", "path": "rm", "head": "reward_head"}, 4, None),
        ({"init": "random"}, None, None),
    ],
)
def test_a_critic_begins_with_what_is_there(told: Any, lora_rank: int | None, refusal: str | None) -> None:
    config: Any = SimpleNamespace(reward=SimpleNamespace(scalar_path=None), model=SimpleNamespace(lora_rank=lora_rank))
    if refusal is None:
        CriticSection(**told).check(config)
        return
    with pytest.raises(ValueError, match=re.escape(refusal)):
        CriticSection(**told).check(config)


def test_a_critic_begins_with_the_reward_model_of_the_run_unless_told_another() -> None:
    scalar = ("--reward.functions", "scalar")
    config, _ = load_config(["--algo", "ppo", "--critic.init", "reward", "--reward.scalar_path", "rm", *scalar])
    assert config.critic_path == "rm"
    assert with_value(config, "critic.path", "own").critic_path == "own"
    for init in ("policy", "random"):
        assert with_value(config, "critic.init", init).critic_path is None
