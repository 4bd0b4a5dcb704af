"""Engines sample while the policy learns: a run that is killed meanwhile goes on as the run that was left alone."""

import random
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.runs import STEPS, metric_rows, online_arguments, rollout_trace, training_trace

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
_WHOLE = ("--rollout.staleness", "1")
_PARTIAL = ("--rollout.staleness", "2", "--rollout.tokens_per_round", "8")


@pytest.mark.parametrize(
    ("flags", "bound"),
    [(_WHOLE, 1), pytest.param(_PARTIAL, 2, marks=pytest.mark.soak)],
    ids=["whole", "partial"],
)
def test_a_run_that_is_killed_while_engines_sample_goes_on_exactly(
    flags: tuple[str, ...], bound: int, warm_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    result = run_cli(*online_arguments(warm_model, digits, unbroken), *flags)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [row for file in sorted((unbroken / "rollouts").glob("*.parquet")) for row in read_rollouts(file)]
    asked = Counter((row.uid, row.sample_index) for row in rows)
    assert len(asked) == len(rows) == STEPS * 32 and set(asked.values()) == {1}
    figures = metric_rows(unbroken)[1:]
    assert max(row["rollout/staleness_max"] for row in figures) == bound
    assert all(row["rollout/late"] == 0.0 and row["rollout/drift"] < 1.0 for row in figures)

    moment = random.SystemRandom()
    rows_before, delay_s = moment.randint(1, STEPS - 2), moment.uniform(0.0, 1.5)
    print(f"killed {delay_s:.2f} s after row {rows_before}")  # noqa: T201 - so that a failure can be repeated
    arguments = [*online_arguments(warm_model, digits, killed), *flags]
    run_and_kill(arguments, killed, rows_before=rows_before, delay_s=delay_s)
    result = run_cli(*arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    assert training_trace(killed) == training_trace(unbroken)
    assert rollout_trace(killed) == rollout_trace(unbroken)
