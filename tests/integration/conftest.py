"""Real processes for the joints: a tiny model that has learned the response format, and one Ray cluster."""

import os
import subprocess
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import pytest
import ray
from xdist.scheduler import LoadScopeScheduling

from orchestrator.cluster.environment import worker_environment
from orchestrator.tasks.digits import DigitsPaths, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.drivers import forked_driver
from tests.integration.runs import WARM_UP_STEPS, benchmark_arguments, online_arguments, warm_up_arguments

_FIRST = ("test_sync_faults", "test_resume", "test_staleness", "test_stage_tables", "test_users_algorithm")
"""Files of the longest groups, in the order in which processes take them; short ones fill what is left at the end."""
_TOGETHER = {
    **dict.fromkeys(("test_benchmarks_while_training", "test_export", "test_resume"), "look at unbroken_run"),
    **dict.fromkeys(("test_critic", "test_feed", "test_lora_policy", "test_preference_ranks"), "share the cluster"),
    **dict.fromkeys(("test_prefix_cache", "test_ranks", "test_roles", "test_sync_faults"), "share the cluster"),
}
"""Files whose tests one process runs, as what they look at is made once in each process."""


class ByWhatIsShared(LoadScopeScheduling):
    """Groups of files to one process each, in the order of their first tests; any other file is a group."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0]).stem
        return _TOGETHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByWhatIsShared:
    """Of ``-n 2``. Marks of groups would do, if xdist 3.8 found them with pytest 9."""
    config.option.loadscopereorder = False
    return ByWhatIsShared(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Bring the longest groups to the front."""
    place = {Path(__file__).with_name(f"{file}.py"): number for number, file in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def run_cli(*arguments: str, timeout_s: float = 800.0) -> subprocess.CompletedProcess[str]:
    """Run ``orchestrator.train`` in a process of its own; see ``forked_driver``."""
    return forked_driver(arguments, timeout_s=timeout_s)


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
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes: whoever needs it first makes it for the others
    policy = folder / "warm" / "checkpoints" / f"step_{WARM_UP_STEPS:06d}" / "policy"
    with (folder / "warm.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        if not policy.is_dir():
            result = run_cli(*warm_up_arguments(random_model, digits, folder / "warm"))
            assert result.returncode == 0, result.stderr[-2000:]
    return policy


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
