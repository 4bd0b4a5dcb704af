"""A refusal must come within seconds, so what decides it loads no heavy library."""

import subprocess
import sys

from algorithms.registry import ALGORITHMS

_ALGORITHMS = {where.partition(":")[0] for where in ALGORITHMS.values()}
_DRIVER = ("config", "cluster.placement", "cluster.microbatches", "run.cursor", "doctor", "errors")
_LIGHT = ", ".join((*_ALGORITHMS, *(f"orchestrator.{name}" for name in _DRIVER)))
_HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed")
_BESIDE = "orchestrator.cluster.health, orchestrator.rewards.service_process"
"""Of actors that hold no model."""


def test_planning_modules_load_no_heavy_library() -> None:
    code = f"import sys, {_LIGHT}; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_processes_without_a_model_load_no_model_library() -> None:
    code = f"import sys, {_BESIDE}; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["ray"]


def test_help_loads_less_than_fits_into_two_seconds() -> None:
    """Modules, and not seconds, which are another number on every processor: 793 took 1.3 s to 2.6 s."""
    code = "import atexit, sys; atexit.register(lambda: print(len(sys.modules))); import orchestrator.train as train"
    code += "; train.main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "--algo", "mm_dpo", "--help"]
    *shown, num_modules = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert any("--mm_dpo.margin_weight" in line for line in shown)
    assert int(num_modules) < 900
