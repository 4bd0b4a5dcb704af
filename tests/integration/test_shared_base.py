"""A whole run whose reference and critic stand on the policy's base is the run in which each has a model."""

from pathlib import Path

import pytest

from orchestrator.run.metrics import MEMORY_PREFIX
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.conftest import run_cli
from tests.integration.runs import STEPS, metric_rows, online_arguments

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(1500)]
_NOT_LEARNED = ("time/", "memory/", "throughput/", "sync/", "judge/cached_frac")
"""Of two equal questions to the judge, asked at once, the second may or may not find the first one's answer."""


def _rows(model: Path, digits: DigitsPaths, run_dir: Path, *flags: str) -> list[dict[str, float]]:
    own = ("--model.lora_rank", "8", "--critic.lr", "5e-3", "--algorithm.kl_coef", "0.05")
    result = run_cli("--algo", "ppo", *online_arguments(model, digits, run_dir)[2:], *own, *flags, timeout_s=700.0)
    assert result.returncode == 0, result.stderr[-3000:]
    return metric_rows(run_dir)


def test_a_run_on_one_base_is_the_run_with_a_model_for_each(
    tmp_path: Path, warm_model: Path, digits: DigitsPaths
) -> None:
    apart = _rows(warm_model, digits, tmp_path / "apart")
    shared = _rows(warm_model, digits, tmp_path / "shared", "--placement.share_base", "true")
    assert len(apart) == len(shared) == STEPS + 1
    for one, other in zip(apart, shared, strict=True):
        learned = {name: value for name, value in one.items() if not name.startswith(_NOT_LEARNED)}
        assert {name: other[name] for name in learned} == pytest.approx(learned, rel=1e-6, abs=1e-6)
    assert shared[1]["critic/loss"] != shared[-1]["critic/loss"] > 0.0 and "policy/loss" in shared[-1]
    processes = [{name for name in rows[-1] if name.startswith(MEMORY_PREFIX)} for rows in (apart, shared)]
    assert processes[0] - processes[1] == {f"{MEMORY_PREFIX}{role}" for role in ("critic", "reference")}
