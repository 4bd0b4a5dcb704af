"""What the policy-gradient algorithms are made of, and what they refuse."""

from types import SimpleNamespace
from typing import Any

import pytest

from algorithms.grpo import Grpo
from algorithms.policy_gradient import AlgorithmSection, PolicyGradient
from algorithms.reinforce_pp import ReinforcePp, ReinforcePpBaseline
from algorithms.rloo import Rloo
from algorithms.stable_reinforce import StableReinforce

_COMPARING = (ReinforcePpBaseline, Grpo, Rloo)


def _made(kind: type[PolicyGradient], **chosen: Any) -> PolicyGradient:
    """With its defaults, and what is chosen beyond them."""
    own = {name.split(".")[1]: value for name, value in kind.defaults.items() if name.startswith("algorithm.")}
    return kind(kind.__name__.lower(), {"algorithm": AlgorithmSection(**{**own, **chosen})})


def _config(*, prompts: int = 4, samples: int = 2, size: int = 8, top_p: float = 1.0, weight: float = 0.0) -> Any:
    """The part of a configuration that they check."""
    return SimpleNamespace(
        rollout=SimpleNamespace(prompts_per_step=prompts, samples_per_prompt=samples, top_p=top_p),
        policy=SimpleNamespace(train_batch_size=size),
        reward=SimpleNamespace(critique=SimpleNamespace(weight=weight, path=None)),
    )


def test_stable_reinforce_follows_the_paper_unless_told() -> None:
    paper = _made(StableReinforce).section
    assert not StableReinforce.defaults and not StableReinforce.profiles["paper"]
    assert (paper.preclip_min, paper.preclip_max, paper.clip_low, paper.clip_high) == (1e-3, 1e3, 0.2, 0.2)
    assert (paper.aggregation, paper.kl_estimator, paper.adv_filter) == ("seq-mean-token-mean", "k1", "sigma3")
    assert paper.kl_coef == 0.0


def test_released_profile_is_what_the_released_script_runs() -> None:
    released = StableReinforce.profiles["r1_released"]
    assert released["algorithm.adv_filter"] == "r1_released"
    assert (released["algorithm.kl_coef"], released["optimizer.lr"]) == (1e-3, 3e-7)


@pytest.mark.parametrize("kind", [ReinforcePp, *_COMPARING])
def test_only_stable_reinforce_has_its_two_guards(kind: type[PolicyGradient]) -> None:
    guards = {"adv_filter", "preclip_min", "preclip_max"}
    own, paper = _made(kind).section, _made(StableReinforce).section
    assert own.model_copy(update={name: getattr(paper, name) for name in guards}) == paper.model_copy(
        update={"aggregation": own.aggregation}
    )
    assert (own.adv_filter, own.preclip_min, own.preclip_max) == ("none", None, None)


def test_a_reference_is_needed_where_the_reward_pays_for_leaving_it() -> None:
    assert not _made(ReinforcePp).needs.reference
    assert _made(ReinforcePp, kl_coef=1e-3).needs.reference


def test_what_cannot_be_served_is_refused_in_one_sentence() -> None:
    algorithm = _made(ReinforcePp)
    algorithm.check(_config())
    with pytest.raises(ValueError, match=r"4 \* 2 = 8 is not a multiple of policy.train_batch_size = 3"):
        algorithm.check(_config(size=3))
    with pytest.raises(ValueError, match=r"rollout.top_p = 0.9 must be 1 for algo = 'reinforcepp'"):
        algorithm.check(_config(top_p=0.9))
    with pytest.raises(ValueError, match=r"reward.critique.path is not set"):
        algorithm.check(_config(weight=0.5))


@pytest.mark.parametrize("kind", _COMPARING)
def test_who_compares_the_samples_of_a_prompt_needs_two(kind: type[PolicyGradient]) -> None:
    assert kind.defaults["rollout.samples_per_prompt"] == 8
    _made(kind).check(_config())
    with pytest.raises(ValueError, match=r"rollout.samples_per_prompt = 1 must be at least 2"):
        _made(kind).check(_config(samples=1, size=4))
    _made(StableReinforce).check(_config(samples=1, size=4))
