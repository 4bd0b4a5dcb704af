"""Real kits, each in an environment of its own, ask a real vLLM server about ten rows: their counts are ours.

Environments are named by variables; docs/benchmarks.md has the command that makes one.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.evaluate import main
from orchestrator.evaluation.predictions import read_predictions
from tests.kit_case import NUM_TOKENS, OBJECTS, write_case, write_talker

pytest.importorskip("vllm", reason="vllm is not installed")
pytestmark = [pytest.mark.soak, pytest.mark.timeout(1500)]

_PYTHON = {"evalscope": "RAYLIGN_EVALSCOPE_PYTHON", "lmms-eval": "RAYLIGN_LMMS_EVAL_PYTHON"}
_FOLDER = "import importlib.util as u; print(u.find_spec('lmms_eval').submodule_search_locations[0])"


def _python(kit: str) -> str:
    python = os.environ.get(_PYTHON[kit])
    if python is None:
        pytest.skip(f"{_PYTHON[kit]} names no interpreter with {kit}")
    return python


def _figures(out: Path, way: str) -> dict[str, float]:
    told = json.loads((out / "scores.json").read_text())["ways"][way]["figures"]
    return {name: figure["value"] for name, figure in told.items()}


def _measure(kit: str, python: str, task: str, folder: Path, file: Path, passed_on: tuple[str, ...]) -> Path:
    model, out = write_talker(folder / "model"), folder / "out"
    words = ["--kit", kit, "--kit-python", python, "--model", str(model), "--tasks", task, "--out", str(out)]
    words += ["--benchmark", "pope", "--data", str(file), "--max-images", "1", "--rollout.max_num_seqs", "8"]
    words += ["--rollout.max_new_tokens", str(NUM_TOKENS[kit]), "--kit-args", *passed_on]
    assert main(words) == 0
    predictions = read_predictions(out / "predictions.parquet")
    assert sorted(one.row for one in predictions) == list(range(1, len(OBJECTS) + 1))
    # The model says this and that: what agrees does not agree about nothing.
    assert len({one.text for one in predictions}) > 2
    return out


def test_evalscopes_count_is_our_strict_one(tmp_path: Path) -> None:
    python, case = _python("evalscope"), write_case(tmp_path / "case")
    out = _measure("evalscope", python, "pope", tmp_path, case.file, case.evalscope)
    kit = _figures(out, "evalscope")
    assert kit == pytest.approx(_figures(out, "strict"), abs=1e-4)
    # The released script takes what says nothing for a yes.
    assert kit["yes_ratio"] < _figures(out, "official")["yes_ratio"]


def test_lmms_evals_count_is_our_reading_of_it(tmp_path: Path) -> None:
    python = _python("lmms-eval")
    told = subprocess.run([python, "-I", "-c", _FOLDER], capture_output=True, text=True, check=True)
    case = write_case(tmp_path / "case", lmms_eval=Path(told.stdout.strip()))
    out = _measure("lmms-eval", python, "local_pope", tmp_path, case.file, case.lmms_eval)
    kit, ours = _figures(out, "lmms-eval"), _figures(out, "lmms_eval")
    assert kit["pope_accuracy"] > 0
    assert kit == pytest.approx(
        {
            "pope_accuracy": ours["accuracy"],
            "pope_precision": ours["precision"],
            "pope_recall": ours["recall"],
            "pope_f1_score": ours["f1"],
            "pope_yes_ratio": ours["yes_ratio"],
        },
        abs=1e-4,
    )
