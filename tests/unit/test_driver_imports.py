"""A refusal must come within seconds, so what decides it loads no heavy library."""

import subprocess
import sys

_LIGHT = ", ".join(f"orchestrator.{name}" for name in ("config", "cluster.placement", "batching", "doctor", "errors"))
_HEAVY = ("torch", "ray", "vllm", "transformers", "deepspeed")


def test_planning_modules_load_no_heavy_library() -> None:
    code = f"import sys, {_LIGHT}; print(*[name for name in {_HEAVY!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []
