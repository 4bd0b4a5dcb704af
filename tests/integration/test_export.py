"""The exported policy belongs to the user: plain transformers and plain vLLM judge as the run's own evaluation did."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cluster.environment import worker_environment
from orchestrator.tasks.digits import DigitsPaths
from tests.integration import plain_judge
from tests.integration.runs import MAX_NEW_TOKENS, NUM_HELD_OUT, STEPS, write_held_out

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_plain_library_gives_the_runs_verdicts(engine: str, unbroken_run: Path, digits: DigitsPaths) -> None:
    policy = unbroken_run / "checkpoints" / f"step_{STEPS:06d}" / "policy"
    result = subprocess.run(
        [
            *(sys.executable, plain_judge.__file__, engine, str(policy)),
            *(str(write_held_out(digits)), str(MAX_NEW_TOKENS)),
        ],
        env={**os.environ, **worker_environment(2, gpu=False)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    texts = [
        line.removeprefix("completion: ") for line in result.stdout.splitlines() if line.startswith("completion: ")
    ]
    evaluation = json.loads((unbroken_run / "evaluations" / f"step_{STEPS:06d}.json").read_text())
    expected = [sample["verdict"] for sample in evaluation["samples"]]
    assert len(texts) == len(expected) == NUM_HELD_OUT
    assert [_verdict(text) for text in texts] == expected
    assert sum(verdict is not None for verdict in expected) > NUM_HELD_OUT / 2, "the warm model should have answered"


def _verdict(text: str) -> str | None:
    found = re.search(r"<answer>\s*([12])\s*</answer>", text)
    return found[1] if found else None
