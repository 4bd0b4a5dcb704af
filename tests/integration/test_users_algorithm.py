"""An algorithm in a file outside the repository learns the embedded task, in workers that never see the file."""

from pathlib import Path

import pytest

from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows
from tests.users_algorithm import write_toy

pytestmark = pytest.mark.integration


def test_a_run_learns_by_it_and_goes_on_by_it_alone(tmp_path: Path) -> None:
    toy, run = write_toy(tmp_path), tmp_path / "run"
    arguments = ("--algo", toy, "--toy.power", "3", "--run.dir", str(run), "--run.checkpoint_every", "2")
    result = run_cli(*arguments, "--run.steps", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    result = run_cli(*arguments, "--run.steps", "4")
    assert result.returncode == 0, result.stderr[-3000:]
    rows = [row for row in metric_rows(run) if "policy/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["policy/loss"] == pytest.approx(1.0)  # the policy is its reference: |1 - beta 0| to any power
    assert all(row["policy/grad_norm"] > 0 for row in rows)

    write_toy(tmp_path, old="x * 1", new="x * 2")
    result = run_cli(*arguments, "--run.steps", "6")
    assert result.returncode == 2
    assert f"refused: run.resume: checkpoint step_000004 has algo = {toy!r} (file " in result.stderr
