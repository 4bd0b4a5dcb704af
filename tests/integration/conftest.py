"""Real processes for the joints: a tiny model that has learned the response format, and one Ray cluster."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from orchestrator.cluster.pool import worker_environment
from orchestrator.tasks.digits import DigitsPaths, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.runs import WARM_UP_STEPS, benchmark_arguments, online_arguments, warm_up_arguments

_SHARED = {"warm_model": "runs", "unbroken_run": "runs", "cluster": "cluster"}
"""What is made once a process and takes long, and the group of the tests that look at it."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For ``--dist loadgroup``: a group is one process's, first those of what is shared, then file by file."""
    order, groups = ["runs", "cluster"], {}
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            found = [_SHARED[name] for name in getattr(item, "fixturenames", ()) if name in _SHARED]
            groups[item] = min(found, key=order.index, default=item.path.stem)
            item.add_marker(pytest.mark.xdist_group(groups[item]))
    items.sort(key=lambda item: order.index(groups[item]) if groups.get(item) in order else len(order))


def run_cli(*arguments: str, timeout_s: float = 800.0) -> subprocess.CompletedProcess[str]:
    """Run ``python -m orchestrator.train`` as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator.train", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DigitsPaths:
    """The embedded task's files."""
    return build_digits_data(tmp_path_factory.mktemp("digits") / "data", seed=0)


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits model from random weights."""
    return build_digits_model(tmp_path_factory.mktemp("digits") / "model", seed=0)


@pytest.fixture(scope="session")
def warm_model(tmp_path_factory: pytest.TempPathFactory, digits: DigitsPaths, random_model: Path) -> Path:
    """The same model after a few supervised steps: it answers in the format, right half of the time."""
    run_dir = tmp_path_factory.mktemp("warm")
    result = run_cli(*warm_up_arguments(random_model, digits, run_dir))
    assert result.returncode == 0, result.stderr[-2000:]
    return run_dir / "checkpoints" / f"step_{WARM_UP_STEPS:06d}" / "policy"


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A Ray cluster of four logical processors on this machine; whoever starts a pool closes it."""
    ray.init(
        "local",
        num_cpus=4,
        object_store_memory=256 << 20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": worker_environment(1, gpu=False) | {"PYTHONPATH": os.getcwd()}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def unbroken_run(tmp_path_factory: pytest.TempPathFactory, warm_model: Path, digits: DigitsPaths) -> Path:
    """Five online steps that nobody disturbed, measured on a benchmark."""
    run_dir = tmp_path_factory.mktemp("runs") / "unbroken"
    result = run_cli(*online_arguments(warm_model, digits, run_dir), *benchmark_arguments(digits))
    assert result.returncode == 0, result.stderr[-3000:]
    return run_dir
