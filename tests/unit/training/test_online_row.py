"""The row of an online step carries every figure that is declared of it."""

import math
from dataclasses import replace

import numpy as np

from algorithms.figures import Mean, Sum
from algorithms.maths.logprobs import Mismatch
from algorithms.stable_reinforce import StableReinforce
from orchestrator.cluster.sync import SyncResult
from orchestrator.rewards.reward import Reward, RewardStatus
from orchestrator.run.metrics import NONFINITE, metrics_row
from orchestrator.training.online_metrics import FIGURES, Rate, Sampled, StepRecord, online_metrics
from orchestrator.training.updates import FIGURES as UPDATE_FIGURES
from orchestrator.training.updates import Update, update_figures
from workers.types import Completion, Completions, RankUpdate

_FIGURES = {
    "policy/loss": Sum(0.5),
    "policy/entropy": Mean(2.0, 4),
    "policy/preclip_frac": Mean(0.0, 4),
    "policy/clip_frac": Mean(1.0, 4),
    "mismatch/weight_mean": Mean(4.0, 4),
    "mismatch/dropped_frac": Mean(0.0, 4),
}


def _record(*rewards: Reward) -> StepRecord:
    """A step of ``rewards`` completions of two tokens each, the last one cut."""
    completions = Completions.of(
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
        sampled=Sampled(requests=(), completions=completions, rewards=rewards, texts={}),
        figures={"adv/filtered_pos_frac": 0.0, "adv/filtered_neg_frac": 0.25, "kl/ref": 0.0},
        mismatch=Mismatch(abs_mean=1e-6, abs_max=1e-5, num_nonfinite=0),
        updates=(Update([RankUpdate(figures=_FIGURES, grad_norm=0.5)], taken=True),),
        num_planned_updates=2,
        rate=Rate(tokens=6, seconds=2.0),
        sync=SyncResult(policy_version=1, seconds=0.25, digest="ab" * 32, probe_gap=1e-7),
    )


def _reward(value: float | None, status: RewardStatus) -> Reward:
    part = None if value is None else 1.0
    return Reward(value=value, parts={"format": part, "accuracy": part}, status=status)


def test_figures_are_means_over_what_was_scored() -> None:
    # Rewards 2 and 1, one of them without a verdict, one failed: mean 1.5, coverage 1/3.
    # Entropy 2 nats over 4 tokens, one of them clipped.
    row = online_metrics(_record(_reward(2.0, "scored"), _reward(1.0, "unknown"), _reward(None, "failed")))
    assert (row["reward/mean"], row["judge/coverage"], row["judge/unknown_frac"]) == (1.5, 1 / 3, 1 / 3)
    assert (row["policy/entropy"], row["policy/clip_frac"], row["length/truncated_frac"]) == (0.5, 0.25, 1 / 3)
    assert row["throughput/rollout_tokens_per_s"] == 3.0


def test_means_are_over_the_updates_taken_and_over_all_where_none_was() -> None:
    def tried(loss: float, *, taken: bool) -> Update:
        shares = [RankUpdate(figures={"policy/loss": Sum(loss / 2)}, lr=0.5) for _ in range(2)]
        return Update(shares, taken=taken)

    mixed = update_figures([tried(1.0, taken=True), tried(math.nan, taken=False), tried(3.0, taken=True)], planned=4)
    assert (mixed["policy/loss"], mixed["policy/lr"], mixed["guard/skipped_updates"]) == (2.0, 0.5, 2.0)
    lost = update_figures([tried(math.inf, taken=False)], planned=1)
    assert (lost["policy/loss"], lost["guard/skipped_updates"]) == (math.inf, 1.0)


def test_a_mean_over_nothing_is_null_in_the_row_and_never_0() -> None:
    metrics = online_metrics(_record(_reward(None, "failed")))
    assert math.isnan(metrics["reward/mean"]) and metrics_row(metrics)["reward/mean"] is None


def test_every_figure_of_the_row_is_declared_where_it_is_computed_and_finite() -> None:
    declared = (*StableReinforce.figures, *UPDATE_FIGURES, *FIGURES)
    names = [figure.name for figure in declared]
    assert len(set(names)) == len(names)
    row = metrics_row(online_metrics(_record(_reward(2.0, "scored"))))
    assert [
        name for name in row if not name.startswith(("reward/", "judge/")) and name not in (*names, NONFINITE)
    ] == []
    # What adapts has a figure where it does.
    assert set(names) - set(row) == {"kl/coef"} and None not in row.values()


def test_rewards_are_told_by_source_where_there_are_several() -> None:
    record = _record(_reward(2.0, "scored"), _reward(1.0, "scored"), _reward(None, "failed"))
    first, *rest = record.sampled.completions
    sampled = replace(record.sampled, completions=Completions.of((replace(first, uid="maths-000001"), *rest)))
    row = online_metrics(replace(record, sampled=sampled, sources={"maths-000001": "maths", "train-000001": "seen"}))
    assert {name: row[name] for name in row if name.startswith("source/")} == {
        "source/maths/reward": 2.0,
        "source/seen/reward": 1.0,
    }
    assert not any(name.startswith("source/") for name in online_metrics(record))
