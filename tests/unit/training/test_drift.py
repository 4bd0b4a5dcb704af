"""What is said of answers that earlier weights sampled, and what there is on a console of what is not said."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithms.algorithm import Weighing
from algorithms.records import Rollout, Sequence
from orchestrator.cluster.launch import threads_each
from orchestrator.run.console import Console
from orchestrator.training.staleness import drift_figures


def _rollout(gaps: list[float]) -> Rollout:
    sequence = Sequence(
        uid="a", sample_index=0, input_ids=np.arange(1 + len(gaps), dtype=np.int32), prompt_len=1, media=()
    )
    old = np.array([0.0, *gaps], np.float32)
    return Rollout(
        sequence=sequence, reward=1.0, rollout_logprobs=np.zeros_like(old), old_logprobs=old, ref_logprobs=None
    )


def _told(mode: Any, gaps: list[float], minimum: float | None = None) -> dict[str, float]:
    return drift_figures([_rollout(gaps)], Weighing(mode=mode, minimum=minimum, maximum=2.0))


def test_what_meets_its_bound_is_told_by_the_kind_of_weight() -> None:
    # exp(1) is above 2; both together are as likely as they were.
    assert _told("token_truncate", [1.0, -1.0])["rollout/capped_frac"] == 0.5
    assert _told("sequence_truncate", [1.0, -1.0])["rollout/capped_frac"] == 0.0
    assert _told("token_mask", [1.0, -1.0], 0.5)["rollout/capped_frac"] == 1.0
    assert _told("sequence_mask", [1.0, -1.0], 0.5)["rollout/capped_frac"] == 0.0


def test_the_mean_weight_is_the_one_that_is_applied() -> None:
    told = _told("token_truncate", [1.0, -1.0])
    assert told["rollout/weight_mean"] == pytest.approx((2.0 + np.exp(-1.0)) / 2)
    assert told["rollout/drift"] == pytest.approx(1.0)


def test_roles_that_work_at_once_share_the_cores() -> None:
    plan: Any = SimpleNamespace(workers_of=lambda role: [None] * {"policy": 2, "rollout": 2}[role])
    in_turn, at_once = (SimpleNamespace(rollout=SimpleNamespace(staleness=n)) for n in (0, 1))
    assert threads_each(in_turn, plan, 16) == 8  # type: ignore[arg-type]
    assert threads_each(at_once, plan, 16) == 4  # type: ignore[arg-type]
    assert threads_each(at_once, plan, 2) == 1  # type: ignore[arg-type]


def test_a_figure_that_a_step_does_not_have_is_not_shown_from_an_earlier_one() -> None:
    console = Console(3, title="a run")
    console.update(1, {"mismatch/logprob_abs_mean": 0.5, "eval/accuracy": 0.25})
    console.update(2, {"rollout/drift": 0.125})
    assert console._latest == {"rollout/drift": 0.125, "eval/accuracy": 0.25}
