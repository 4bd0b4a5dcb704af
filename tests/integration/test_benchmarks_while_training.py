"""A real run that is measured on a benchmark: the stage behind it measures the same on the same file.

That a killed one is measured as the unbroken one is seen where it is killed, in ``test_resume.py``.
"""

import json
from pathlib import Path

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.integration.conftest import run_cli
from tests.integration.runs import BENCHMARK, STEPS, benchmark_arguments, benchmark_trace, online_arguments

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_the_stage_behind_it_gives_the_figures_of_its_end(
    unbroken_run: Path, warm_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    figures = benchmark_trace(unbroken_run)
    assert list(figures) == [0, 3, STEPS] and all(f"eval/{BENCHMARK}/accuracy" in row for row in figures.values())
    assert figures[0][f"eval/{BENCHMARK}/unreadable"] < 1.0

    file, out = tmp_path / "stages.toml", unbroken_run.parent / "measured"
    file.write_text(_stages(unbroken_run, warm_model, digits))
    done = run_cli("--config", str(file))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"benchmark {BENCHMARK}: 4 of 4 rows, 8 questions at every evaluation" in done.stdout
    assert f"{unbroken_run}, made before" in done.stdout
    strict = json.loads((out / "scores.json").read_text())["ways"]["strict"]["figures"]
    told = {name.removeprefix(f"eval/{BENCHMARK}/"): value for name, value in figures[STEPS].items()}
    assert {name: strict[name]["value"] for name in told} == told
    assert done.stdout.endswith((out / "scores.md").read_text())


def _stages(run: Path, model: Path, digits: DigitsPaths) -> str:
    """The run as a stage, and one that measures what came of it."""
    _, table = benchmark_arguments(digits)
    words = online_arguments(model, digits, run)
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options.pop("--run.dir") == str(run)
    own = {name: options.pop(f"--{name}") for name in ("algo", "data.path", "run.steps")}
    shared = [f"{name.removeprefix('--')} = {_value(text)}" for name, text in options.items()]
    measured = {"name": "measured", "evaluate": BENCHMARK, "from": run.name}
    measured |= {"data.path": str(digits.held_out.parent / "pairs.parquet")}
    measured |= {"template": str(digits.held_out.parent / "template.txt")}
    return "\n".join(
        (
            f'run.dir = "{run.parent}"',
            *shared,
            "[[stage]]",
            f'name = "{run.name}"',
            *(f"{name} = {_value(text)}" for name, text in own.items()),
            Path(table).read_text().replace("[[eval.benchmark]]", "[[stage.eval.benchmark]]"),
            "[[stage]]",
            *(f"{name} = {_value(text)}" for name, text in measured.items()),
        )
    )


def _value(text: str) -> str:
    """As TOML writes it."""
    try:
        float(text)
    except ValueError:
        return json.dumps(text)
    return text
