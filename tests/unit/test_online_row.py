"""The row of an online step carries every metric that scripts and the report rely on."""

import math

import numpy as np

from algorithms.figures import Mean, Sum
from algorithms.maths.off_policy import Mismatch
from orchestrator.cluster.sync import SyncResult
from orchestrator.rewards.reward import Reward, RewardStatus
from orchestrator.run.metrics import MEMORY_PREFIX, REQUIRED_ONLINE_METRICS, metrics_row
from orchestrator.training.online_metrics import StepRecord, online_metrics
from workers.types import Completion, RankUpdate

_FIGURES = {
    "policy/loss": Sum(0.5),
    "policy/entropy": Mean(2.0, 4),
    "policy/preclip_frac": Mean(0.0, 4),
    "policy/clip_frac": Mean(1.0, 4),
}
_MEMORY = {"policy": 1.5, "rollout": 2.5}
_TIMES = {"time/rollout_s": 2.0, "time/reward_s": 0.5, "time/train_s": 1.0, "time/sync_s": 0.5, "time/step_s": 4.0}


def _record(*rewards: Reward) -> StepRecord:
    """A step of ``rewards`` completions of two tokens each, the last one cut."""
    completions = tuple(
        Completion(
            uid="train-000001",
            sample_index=index,
            completion_ids=np.array([5, 6], np.int32),
            rollout_logprobs=np.array([-0.1, -0.2], np.float32),
            finish_reason="length" if index == len(rewards) - 1 else "stop",
            policy_version=0,
            engine="transformers",
        )
        for index in range(len(rewards))
    )
    return StepRecord(
        prompts=(),
        requests=(),
        completions=completions,
        rewards=rewards,
        figures={"adv/filtered_pos_frac": 0.0, "adv/filtered_neg_frac": 0.25, "kl/ref": 0.0},
        mismatch=Mismatch(abs_mean=1e-6, abs_max=1e-5, num_nonfinite=0),
        updates=((RankUpdate(figures=_FIGURES, grad_norm=0.5),),),
        sync=SyncResult(policy_version=1, seconds=0.25, digest="ab" * 32, probe_gap=1e-7),
    )


def _reward(value: float | None, status: RewardStatus) -> Reward:
    part = None if value is None else 1.0
    return Reward(value=value, parts={"format": part, "accuracy": part}, status=status)


def test_every_required_metric_is_in_the_row_and_finite() -> None:
    row = metrics_row(online_metrics(_record(_reward(2.0, "scored"), _reward(1.0, "cached")), _TIMES))
    assert {n for n in REQUIRED_ONLINE_METRICS - set(row) if not n.startswith(MEMORY_PREFIX)} == set()
    assert [name for name, value in row.items() if value is None] == []


def test_figures_are_means_over_what_was_scored() -> None:
    # Rewards 2 and 1, one of them without a verdict, one failed: mean 1.5, coverage 1/3.
    # Entropy 2 nats over 4 tokens, one of them clipped.
    row = online_metrics(
        _record(_reward(2.0, "scored"), _reward(1.0, "unknown"), _reward(None, "failed")), _TIMES, _MEMORY
    )
    assert (row["reward/mean"], row["judge/coverage"], row["judge/unknown_frac"]) == (1.5, 1 / 3, 1 / 3)
    assert (row["policy/entropy"], row["policy/clip_frac"], row["length/truncated_frac"]) == (0.5, 0.25, 1 / 3)
    assert row["throughput/rollout_tokens_per_s"] == 3.0


def test_a_mean_over_nothing_is_null_in_the_row_and_never_0() -> None:
    metrics = online_metrics(_record(_reward(None, "failed")), _TIMES)
    assert math.isnan(metrics["reward/mean"]) and metrics_row(metrics)["reward/mean"] is None
