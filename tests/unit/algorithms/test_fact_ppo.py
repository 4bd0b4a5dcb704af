"""PPO as in Fact-RLHF: what was sampled counts, or every column as in the release."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithms.algorithm import StepSamples
from algorithms.critic import EXPLAINED, CriticSection
from algorithms.fact_ppo import FactPpo, FactPpoSection
from algorithms.policy_settings import AlgorithmSection
from algorithms.records import Rollout, Sequence
from orchestrator.config import load_config
from orchestrator.errors import RefusedInput

_LONGEST, _PAD = 4, 9


def _fact_ppo(*, columns: Any = "released", **critic: Any) -> FactPpo:
    norm = "seq-mean-token-sum-norm" if columns == "released" else "token-mean"
    own = {k.partition(".")[2]: v for k, v in FactPpo.defaults.items() if k.startswith("algorithm.")}
    sections = {
        "algorithm": AlgorithmSection(**{**own, "aggregation": norm, "epochs": 1}),
        "critic": CriticSection(**{"gae_lambda": 1.0, **critic}),
        "fact_ppo": FactPpoSection(columns=columns),
    }
    return FactPpo("fact_ppo", sections)


def _ask() -> Any:
    return SimpleNamespace(
        longest_response=_LONGEST, pad_id=_PAD, state={}, step=0, deal=lambda uids, epoch: [list(range(len(uids)))]
    )


def _rollout(name: str, reward: float, gaps: list[float], values: list[float], *, prompt_len: int = 2) -> Rollout:
    """A response of a token for each gap to the reference, and a value for each that the critic reads."""
    length = prompt_len + len(gaps)
    old = np.full(length, -1.0, np.float32)
    sequence = Sequence(uid=name, sample_index=0, input_ids=np.arange(length), prompt_len=prompt_len, media=())
    return Rollout(
        sequence=sequence,
        reward=reward,
        rollout_logprobs=old,
        old_logprobs=old,
        ref_logprobs=old - np.array([0.0] * prompt_len + gaps, np.float32),
        values=np.array([0.0] * prompt_len + values, np.float32),
    )


def _learned(algorithm: FactPpo, *rollouts: Rollout) -> StepSamples:
    return algorithm.samples(rollouts, _ask())


def test_the_score_is_paid_where_the_response_ends_and_a_token_liked_less_is_charged_nothing() -> None:
    # Charged are 0.1 · 0.2 on the first token and nothing on the second; returns are what is left of 0.28 + 1.
    learned = _learned(_fact_ppo(columns="actions", whiten=False), _rollout("a", 1.0, [0.2, -0.3], [0.5, 0.5]))
    ((taught,),) = learned.critic
    assert taught.returns[2:].tolist() == pytest.approx([0.98, 1.0]) and len(taught.sequence.input_ids) == 4
    ((sample,),) = learned.updates
    assert sample.advantages[2:].tolist() == pytest.approx([0.48, 0.5])


def test_as_released_padding_counts_and_the_score_is_paid_in_the_last_column() -> None:
    rows = [_rollout("a", 1.0, [0.2, -0.3], [0.5, 0.4, 0.3, 0.2]), _rollout("b", -1.0, [0.0], [0.0] * 4, prompt_len=3)]
    learned = _learned(_fact_ppo(reward_scale=10.0, whiten=False), *rows)
    (first, second), (one, other) = learned.critic[0], learned.updates[0]
    # Times ten, and with lambda 1 a return is what is still to come, the score in column 4 behind the padding.
    assert first.returns[2:].tolist() == pytest.approx([9.8, 10.0, 10.0, 10.0])
    assert second.returns[3:].tolist() == pytest.approx([-10.0] * 4)
    assert first.sequence.input_ids.tolist() == [0, 1, 2, 3, _PAD, _PAD]
    assert second.sequence.input_ids.tolist() == [0, 1, 2, 3, _PAD, _PAD, _PAD]
    # Each of the 2 x 4 columns weighs the same in the critic's loss; in the policy's, those that were sampled.
    assert first.loss_weight.tolist() == pytest.approx([0, 0] + [1 / 8] * 4)
    assert one.loss_weight.tolist() == pytest.approx([0, 0, 1 / 8, 1 / 8])
    assert one.advantages[2:].tolist() == pytest.approx([9.3, 9.6]) and other.advantages[3:].tolist() == [-10.0]
    # What it explains is told of sampled tokens alone: returns 9.8, 10, -10, and values 0.5, 0.4, 0.
    gaps = np.array([9.3, 9.6, -10.0])
    assert learned.figures[EXPLAINED] == pytest.approx(1 - gaps.var() / np.array([9.8, 10.0, -10.0]).var(), rel=1e-5)


def test_as_released_whitening_is_over_all_columns_of_at_least_eight_rows() -> None:
    rows = [_rollout(f"{n}", float(n), [0.0], [0.0] * 4) for n in range(8)]
    learned = _learned(_fact_ppo(), *rows)
    found = [float(s.advantages[2]) for s in learned.updates[0]]
    every = np.repeat(np.arange(8.0), 4)
    assert found == pytest.approx(list((np.arange(8.0) - every.mean()) / every.std()), rel=1e-6)
    with pytest.raises(ValueError, match="fewer than min_rows = 8"):
        _learned(_fact_ppo(), *rows[:7])


def test_the_profile_of_the_paper_is_what_its_scripts_say() -> None:
    config, _ = load_config(
        ["--algo", "fact_ppo", "--profile", "fact_rlhf_paper", "--model.path", "m", "--data.path", "p.json",
         "--data.format", "llava_ppo", "--reward.scalar_path", "rm"]
    )  # fmt: skip
    own, critic = config.section(AlgorithmSection), config.section(CriticSection)
    assert (own.kl_coef, own.kl_estimator, own.gamma, own.clip_low, own.clip_high) == (0.1, "k1_clamped", 1.0, 0.2, 0.2)
    assert (critic.gae_lambda, critic.clip, critic.reward_scale, critic.whiten) == (1.0, 0.2, 10.0, True)
    # 512 prompts, minibatches of 256, twice: four updates a step, each over 1 / (256 · 896).
    assert (config.updates_per_epoch, own.epochs, critic.epochs) == (2, 2, 2)
    assert (own.aggregation, config.rollout.max_new_tokens, own.reward_clip) == ("seq-mean-token-sum-norm", 896, None)
    assert config.section(FactPpoSection).columns == "released"
    plain, _ = load_config(["--algo", "fact_ppo"])
    assert (plain.section(FactPpoSection).columns, plain.section(CriticSection).reward_scale) == ("actions", 1.0)
    with pytest.raises(RefusedInput, match=r"algorithm.aggregation = 'token-mean' must be 'seq-mean-token-sum-norm'"):
        load_config(["--algo", "fact_ppo", "--fact_ppo.columns", "released"])
    few = ("--rollout.prompts_per_step", "4", "--policy.train_batch_size", "4")
    norm = ("--algorithm.aggregation", "seq-mean-token-sum-norm")
    with pytest.raises(RefusedInput, match=r"rollout.samples_per_prompt = 4 must be at least 8 for fact_ppo.columns"):
        load_config(["--algo", "fact_ppo", "--fact_ppo.columns", "released", *norm, *few])
