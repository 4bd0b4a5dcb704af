"""What the policy-gradient algorithms are made of, and what they refuse."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from algorithms.algorithm import StepSamples, Unlearnable
from algorithms.cispo import Cispo
from algorithms.dapo import Dapo
from algorithms.distill import Distill, DistillSection
from algorithms.dr_grpo import DrGrpo
from algorithms.gdpo import Gdpo
from algorithms.grpo import Grpo
from algorithms.gspo import Gspo
from algorithms.policy_gradient import AlgorithmSection, PolicyGradient
from algorithms.policy_objective import PolicyTokens
from algorithms.records import Rollout, Sequence
from algorithms.reinforce_pp import ReinforcePp, ReinforcePpBaseline
from algorithms.rloo import Rloo
from algorithms.sapo import Sapo, SapoSection
from algorithms.stable_reinforce import StableReinforce

_COMPARING = (ReinforcePpBaseline, Grpo, DrGrpo, Dapo, Gdpo, Rloo)


def _made(kind: type[PolicyGradient], **chosen: Any) -> PolicyGradient:
    """With its defaults, and what is chosen beyond them."""
    own = {name.split(".")[1]: value for name, value in kind.defaults.items() if name.startswith("algorithm.")}
    return kind(kind.__name__.lower(), {"algorithm": AlgorithmSection(**{**own, **chosen})})


def _config(*, prompts: int = 4, samples: int = 2, size: int = 8, top_p: float = 1.0, weight: float = 0.0) -> Any:
    """The part of a configuration that they check."""
    return SimpleNamespace(
        rollout=SimpleNamespace(prompts_per_step=prompts, samples_per_prompt=samples, top_p=top_p, max_refills=0),
        policy=SimpleNamespace(train_batch_size=size),
        reward=SimpleNamespace(critique=SimpleNamespace(weight=weight, path=None)),
    )


def _rollout(
    uid: str, index: int, reward: float | None, *, length: int = 1, kl: float | None = None, **parts: float | None
) -> Rollout:
    """So many tokens behind a prompt of two; the policy is so many nats a token away from the reference."""
    old = np.full(2 + length, -1.0, np.float32)
    return Rollout(
        sequence=Sequence(uid=uid, sample_index=index, input_ids=np.arange(2 + length), prompt_len=2, media=()),
        reward=reward,
        rollout_logprobs=old,
        old_logprobs=old,
        ref_logprobs=None if kl is None else old - np.float32(kl),
        parts=parts,
        part_weights={"format": 0.5} if "format" in parts else {},
    )


def _learned(algorithm: PolicyGradient, *rollouts: Rollout, parts: list[list[int]] | None = None) -> StepSamples:
    everything = parts or [list(range(sum(r.reward is not None for r in rollouts)))]
    ask: Any = SimpleNamespace(longest_response=4, state={}, step=0, deal=lambda uids, epoch: everything)
    return algorithm.samples(rollouts, ask)


def _advantages(algorithm: PolicyGradient, *rollouts: Rollout) -> list[float]:
    """Of the one token of each."""
    (samples,) = _learned(algorithm, *rollouts).updates
    assert not any(s.advantages[:2].any() for s in samples)
    return [float(s.advantages[2]) for s in samples]


_TWO_PROMPTS = (_rollout("a", 0, 1.0), _rollout("b", 0, 5.0), _rollout("a", 1, 3.0), _rollout("b", 1, 5.0))


def test_returns_are_whitened_over_the_whole_rollout() -> None:
    # 1, 5, 3, 5: mean 3.5, variance (6.25 + 2.25 + 0.25 + 2.25) / 4 = 2.75
    wanted = [(r - 3.5) / math.sqrt(2.75) for r in (1, 5, 3, 5)]
    assert _advantages(_made(ReinforcePp), *_TWO_PROMPTS) == pytest.approx(wanted)


def test_with_a_baseline_a_prompts_mean_is_taken_off_before_whitening() -> None:
    # -1, 0, 1, 0: mean 0, variance 1 / 2
    wanted = [-math.sqrt(2), 0.0, math.sqrt(2), 0.0]
    assert _advantages(_made(ReinforcePpBaseline), *_TWO_PROMPTS) == pytest.approx(wanted)
    # A sample without a sibling that has a reward teaches nothing by itself.
    lost = (*_TWO_PROMPTS[:2], _rollout("a", 1, None), _TWO_PROMPTS[3])
    assert _advantages(_made(ReinforcePpBaseline), *lost) == [0.0, 0.0, 0.0]


def test_groups_are_the_samples_of_a_prompt_wherever_they_stand() -> None:
    assert _advantages(_made(Rloo), *_TWO_PROMPTS) == pytest.approx([-2.0, 0.0, 2.0, 0.0])
    spread = 1.0 / (math.sqrt(2.0) + 1e-4)
    assert _advantages(_made(Grpo), *_TWO_PROMPTS) == pytest.approx([-spread, 0.0, spread, 0.0])


def test_without_its_two_divisions_an_advantage_is_a_difference_and_a_weight_depends_on_no_length() -> None:
    assert _advantages(_made(DrGrpo), *_TWO_PROMPTS) == pytest.approx([-1.0, 0.0, 1.0, 0.0])
    ((short, long),) = _learned(_made(DrGrpo), _rollout("a", 0, 1.0), _rollout("a", 1, 2.0, length=3)).updates
    # Two responses, and 4 tokens that an engine may write.
    assert (short.loss_weight.tolist(), long.loss_weight.tolist()) == ([0, 0, 1 / 8], [0, 0, *[1 / 8] * 3])


def test_parts_of_a_reward_are_standardised_each_by_itself() -> None:
    # Accuracy 0, 1 and format 2, 0 in one prompt, 1, 1 and 0, 2 in the other; format counts half. With s = 1 / sqrt 2
    # the parts' z are -s, s and s, -s, then 0, 0 and -s, s: sums -s/2, s/2, -s/2, s/2, whose std is s / sqrt 3.
    rollouts = (
        _rollout("a", 0, 9.0, accuracy=0.0, format=2.0),
        _rollout("a", 1, 9.0, accuracy=1.0, format=0.0),
        _rollout("b", 0, 9.0, accuracy=1.0, format=0.0),
        _rollout("b", 1, 9.0, accuracy=1.0, format=2.0),
    )
    wanted = [-math.sqrt(3) / 2, math.sqrt(3) / 2] * 2
    assert _advantages(_made(Gdpo), *rollouts) == pytest.approx(wanted, rel=1e-3)
    assert _advantages(_made(Gspo, parts="whitened"), *rollouts) == pytest.approx(wanted, rel=1e-3)
    assert _advantages(_made(Grpo), *rollouts) == [0.0] * 4


def test_a_reward_without_parts_is_its_own_single_part_and_a_missing_part_adds_nothing() -> None:
    # Group z are -s, 0, s, 0 of s = 1 / sqrt 2; their std is 1 / sqrt 3.
    wanted = [-math.sqrt(1.5), 0.0, math.sqrt(1.5), 0.0]
    assert _advantages(_made(Gdpo), *_TWO_PROMPTS) == pytest.approx(wanted, rel=1e-3)
    partly = [_rollout(r.sequence.uid, r.sequence.sample_index, 9.0, first=r.reward, second=None) for r in _TWO_PROMPTS]
    assert _advantages(_made(Gdpo), *partly) == pytest.approx(wanted, rel=1e-3)


def test_a_whole_response_is_charged_for_its_kl_before_it_is_compared() -> None:
    # 2 nats a token at 0.25: 1 - 1 and 4 - 0.5, each less the other.
    algorithm = _made(Rloo, kl_coef=0.25)
    ((long, short),) = _learned(
        algorithm, _rollout("a", 0, 1.0, length=2, kl=2.0), _rollout("a", 1, 4.0, kl=2.0)
    ).updates
    assert (long.advantages.tolist(), short.advantages.tolist()) == ([0, 0, -3.5, -3.5], [0, 0, 3.5])
    assert long.ref_logprobs is None


def test_kl_that_is_a_term_of_the_loss_takes_nothing_from_the_reward_and_its_reference_travels() -> None:
    ((first, _),) = _learned(
        _made(Grpo, kl_coef=0.25), _rollout("a", 0, 1.0, kl=2.0), _rollout("a", 1, 3.0, kl=0.5)
    ).updates
    assert first.advantages[2] == pytest.approx(-1 / (math.sqrt(2.0) + 1e-4))
    assert first.ref_logprobs is not None and first.ref_logprobs[2] == -3.0


def test_kl_is_charged_on_every_token_and_told() -> None:
    # k1 = 2 nats a token at 0.25: rewards -0.5, then 1 - 0.5; returns 0 and 0.5; and 3.5 of the one of one token.
    algorithm = _made(ReinforcePp, kl_coef=0.25)
    learned = _learned(algorithm, _rollout("a", 0, 1.0, length=2, kl=2.0), _rollout("a", 1, 4.0, kl=2.0))
    returns = np.array([0.0, 0.5, 3.5])
    z = (returns - returns.mean()) / returns.std()
    (samples,) = learned.updates
    np.testing.assert_allclose(np.concatenate([s.advantages[2:] for s in samples]), z, rtol=1e-6)
    assert learned.figures == {"adv/filtered_pos_frac": 0.0, "adv/filtered_neg_frac": 0.0, "kl/ref": 2.0}


def test_weights_count_over_the_rollouts_of_one_update() -> None:
    rollouts = [_rollout("a", i, float(i), length=1 + i) for i in range(3)]
    first, second = _learned(_made(ReinforcePp), *rollouts, parts=[[2, 0], [1]]).updates
    assert [s.sequence.sample_index for s in first] == [2, 0]
    assert [s.loss_weight.tolist() for s in first] == [[0, 0, *[1 / 6] * 3], [0, 0, 1 / 2]]
    assert [s.loss_weight.tolist() for s in second] == [[0, 0, 1 / 2, 1 / 2]]
    by_limit = _made(ReinforcePp, aggregation="seq-mean-token-sum-norm")
    (third,) = _learned(by_limit, rollouts[0]).updates
    assert third[0].loss_weight.tolist() == [0, 0, 1 / 4]


def test_a_return_that_is_not_finite_is_a_sentence() -> None:
    broken = _rollout("a", 0, 1.0, kl=math.inf)
    with pytest.raises(Unlearnable, match=r"advantages cannot be computed: return of row 0, token 2 is -inf"):
        _learned(_made(ReinforcePp, kl_coef=0.1), broken)


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
    theirs = ("aggregation", "kl_estimator", "clip_high", "parts")
    assert own.model_copy(update={name: getattr(paper, name) for name in guards}) == paper.model_copy(
        update={name: getattr(own, name) for name in theirs}
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


@pytest.mark.parametrize(
    ("kind", "chosen", "told"),
    [
        (Cispo, {"dual_clip": 3.0}, "algorithm.dual_clip = 3 must be none for algo = 'cispo', which has no PPO clip"),
        (Sapo, {"preclip_max": 9.0}, "algorithm.preclip_max = 9 must be none for algo = 'sapo'"),
        (DrGrpo, {"parts": "whitened"}, "algorithm.parts = 'whitened' must be 'summed' for algo = 'drgrpo'"),
        (Rloo, {"parts": "whitened"}, "algorithm.parts = 'whitened' must be 'summed' for algo = 'rloo'"),
        (Grpo, {"kl_coef": 0.1, "kl_estimator": "k1"}, "kl_estimator = 'k1' must be 'k2' or 'k3' for algo = 'grpo'"),
        (Grpo, {"kl_coef": 0.1, "kl_estimator": "k1_clamped"}, "kl_estimator = 'k1_clamped' must be 'k2' or 'k3'"),
        (Grpo, {"kl_coef": 0.1, "kl_target": 2.0}, "algorithm.kl_target = 2 must be none for algo = 'grpo', whose KL"),
        (Rloo, {"kl_target": 2.0}, "algorithm.kl_target = 2 needs algorithm.kl_coef above 0"),
        (
            ReinforcePp,
            {"kl_coef": 0.1, "kl_target": 2.0, "kl_horizon": 1},
            r"prompts_per_step \* rollout.samples_per_prompt = 8 must be below 5 \* algorithm.kl_horizon = 5",
        ),
    ],
)
def test_settings_that_a_loss_has_no_place_for_are_refused(
    kind: type[PolicyGradient], chosen: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        _made(kind, **chosen).check(_config())


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        ({"correction_min": 0.5}, "algorithm.correction_min = 0.5 has no meaning for algorithm.correction = 'none'"),
        ({"correction_min": 3.0, "correction": "token_mask"}, "correction_min = 3 must be at most .* = 2"),
    ],
)
def test_bounds_of_a_correction_that_bound_nothing_are_refused(chosen: dict[str, Any], told: str) -> None:
    AlgorithmSection(correction="token_mask", correction_min=0.5).check(_config())
    with pytest.raises(ValueError, match=told):
        AlgorithmSection(**chosen).check(_config())


@pytest.mark.parametrize(
    ("kind", "clip", "aggregation"),
    [
        (Grpo, (0.2, 0.2), "seq-mean-token-mean"),
        (DrGrpo, (0.2, 0.2), "seq-mean-token-sum-norm"),
        (Dapo, (0.2, 0.28), "token-mean"),
        (Gspo, (3e-4, 4e-4), "seq-mean-token-mean"),
        (Cispo, (1.0, 4.0), "token-mean"),
        (Rloo, (0.2, 0.2), "seq-mean-token-sum"),
    ],
)
def test_defaults_are_those_of_the_papers(
    kind: type[PolicyGradient], clip: tuple[float, float], aggregation: str
) -> None:
    own = _made(kind).section
    assert ((own.clip_low, own.clip_high), own.aggregation) == (clip, aggregation)
    assert (SapoSection().tau_pos, SapoSection().tau_neg) == (1.0, 1.05)


@pytest.mark.parametrize("kind", _COMPARING)
def test_who_compares_the_samples_of_a_prompt_needs_two(kind: type[PolicyGradient]) -> None:
    assert kind.defaults["rollout.samples_per_prompt"] == 8
    _made(kind).check(_config())
    with pytest.raises(ValueError, match=r"rollout.samples_per_prompt = 1 must be at least 2"):
        _made(kind).check(_config(samples=1, size=4))
    _made(StableReinforce).check(_config(samples=1, size=4))


def _distill(**own: float | str) -> Distill:
    sections = {"algorithm": AlgorithmSection(adv_filter="none"), "distill": DistillSection(teacher_path="t", **own)}  # type: ignore[arg-type]
    return Distill("distill", sections)


def test_a_distilled_token_earns_what_the_teacher_finds_it_likelier_than_the_mean() -> None:
    learned = _learned(_distill(weight=2.0), _rollout("a", 0, 0.0, kl=0.25), _rollout("a", 1, 0.0, length=2, kl=-0.5))
    assert [s.advantages[2:].tolist() for s in learned.updates[0]] == [[-1.0], [0.5, 0.5]]
    assert learned.figures["kl/ref"] == pytest.approx((0.25 - 0.5 - 0.5) / 3)


def test_a_tasks_reward_is_added_to_it_less_the_prompts_mean() -> None:
    rollouts = (_rollout("a", 0, 1.0, kl=0.25), _rollout("a", 1, 0.0, kl=0.25))
    learned = _learned(_distill(reward_weight=4.0), *rollouts)
    assert [s.advantages[2:].tolist() for s in learned.updates[0]] == [[2.0], [-2.0]]


@given(st.integers(0, 10_000), st.floats(0.1, 3.0))
def test_its_gradient_is_that_of_the_reverse_kl_of_the_weights_that_are_updated(seed: int, weight: float) -> None:
    source = torch.Generator().manual_seed(seed)
    teacher, old, moved = (torch.randn(6, generator=source, dtype=torch.float64) for _ in range(3))
    now = (old + 0.3 * moved.clamp(-2, 2)).requires_grad_()
    logprobs, old_logprobs, ref = now.log_softmax(-1), old.log_softmax(-1), teacher.log_softmax(-1)
    gap = old_logprobs - ref
    tokens = PolicyTokens(
        logprobs=logprobs[None],
        old_logprobs=old_logprobs[None],
        rollout_logprobs=old_logprobs[None],
        advantages=-weight * (gap - (old_logprobs.exp() * gap).sum())[None],
        mask=torch.ones(1, 6, dtype=torch.bool),
        lengths=(1,) * 6,
    )
    kind = Distill(
        "distill",
        {"algorithm": AlgorithmSection(clip_low=1.0, clip_high=9.0), "distill": DistillSection(weight=weight)},
    )
    # Every token of the vocabulary as often as the old weights sample it.
    expected = (old_logprobs.exp() * kind.policy_loss(kind.log_ratio(tokens), tokens).loss[0]).sum()
    (found,) = torch.autograd.grad(expected, now, retain_graph=True)
    (true,) = torch.autograd.grad(weight * (logprobs.exp() * (logprobs - ref)).sum(), now)
    torch.testing.assert_close(found, true, rtol=1e-6, atol=1e-9)


def test_a_distillation_asks_for_its_teacher_and_for_rewards_only_where_they_count() -> None:
    assert (_distill().needs.teacher, _distill().needs.reference, _distill().needs.rewards) == ("t", True, False)
    assert _distill(reward_weight=1.0).needs.rewards
    unguarded = AlgorithmSection(preclip_min=None, preclip_max=None)
    with pytest.raises(ValueError, match=r"distill\.teacher_path is not set"):
        Distill("distill", {"algorithm": unguarded, "distill": DistillSection()}).check(_config())
