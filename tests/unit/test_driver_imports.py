"""A refusal must come within seconds, so what decides it loads no heavy library."""

import resource
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


def test_help_takes_less_than_two_seconds_of_a_processor() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "orchestrator.train", "--algo", "mm_dpo", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "--mm_dpo.margin_weight" in shown
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.0
