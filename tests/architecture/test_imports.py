"""The floors hold: what each package may import, and what an import may drag in."""

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import algorithms.maths

ROOT = Path(__file__).parents[2]
ENGINES = {"ray", "transformers", "deepspeed", "vllm"}
_REPORT = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def _packages_after_importing(*modules: str) -> set[str]:
    """Top-level packages present in a fresh process once ``modules`` are imported."""
    code = "\n".join([*(f"import {module}" for module in modules), _REPORT])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_algorithms_bring_in_no_engine_and_torch_only_where_they_compute() -> None:
    own = [f"algorithms.{module.name}" for module in pkgutil.iter_modules(algorithms.__path__)]
    assert _packages_after_importing(*own) & (ENGINES | {"torch"}) == set()
    mathematics = [f"algorithms.maths.{module.name}" for module in pkgutil.iter_modules(algorithms.maths.__path__)]
    loaded = _packages_after_importing(*mathematics)
    assert "torch" in loaded
    assert loaded & ENGINES == set()


@pytest.mark.parametrize("module", ["workers", "workers.types", "orchestrator", "remote_rm"])
def test_packages_and_shared_records_import_without_torch_or_an_engine(module: str) -> None:
    assert _packages_after_importing(module) & (ENGINES | {"torch"}) == set()


def test_import_contracts_hold() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
