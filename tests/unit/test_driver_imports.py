"""A refusal must come within seconds, so what decides it loads no heavy library."""

import subprocess
import sys

_DRIVER = ("config", "cluster.placement", "cluster.microbatches", "run.cursor", "doctor", "errors")
_LIGHT = ", ".join(("algorithms.records", "algorithms.settings", *(f"orchestrator.{name}" for name in _DRIVER)))
_HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed")


def test_planning_modules_load_no_heavy_library() -> None:
    code = f"import sys, {_LIGHT}; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
