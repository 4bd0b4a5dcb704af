"""README's "Your own task" as it is written: a file, a function and an algorithm of the user's, by its command."""

import json
import re
import shlex
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows

pytestmark = pytest.mark.integration
_README = (Path(__file__).parents[2] / "README.md").read_text()
_SECTION = _README.partition("## Your own task")[2].partition("\n## ")[0]


def _write_parquet(file: Path, rows: Path, count: int) -> None:
    """The first rows of a JSONL file as a hub would ship them, pictures within."""
    shown = [json.loads(line) for line in rows.read_text().splitlines()[:count]]
    pictures = [[{"bytes": (rows.parent / one).read_bytes(), "path": None} for one in row["images"]] for row in shown]
    columns = {"images": pictures, **{name: [row[name] for row in shown] for name in ("problem", "answer")}}
    pq.write_table(pa.table(columns), file)


def test_the_section_runs_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = build_count_data(tmp_path / "count", seed=0)
    _write_parquet(tmp_path / "sums.parquet", data.train, 64)
    _write_parquet(tmp_path / "held_out.parquet", data.held_out, 8)
    model = build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)
    for name, text in re.findall(r"^```python (\S+)\n(.*?)^```$", _SECTION, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    (command,) = re.findall(r"^python -m orchestrator.train (.*?)\n```", _SECTION, re.MULTILINE | re.DOTALL)
    arguments = shlex.split(command.replace("\\\n", " ").replace("MODEL", str(model)))
    monkeypatch.chdir(tmp_path)
    small = [
        *("--run.steps", "2", "--run.eval_every", "2", "--run.dir", "run", "--rollout.prompts_per_step", "8"),
        *("--rollout.max_new_tokens", "8", "--rollout.samples_per_prompt", "4", "--policy.train_batch_size", "16"),
        *("--rollout.engine", "transformers"),
    ]
    result = run_cli(*arguments, *small)
    assert result.returncode == 0, result.stderr[-3000:]
    rows = metric_rows(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert {"reward/score", "reward/format", "eval/accuracy"} <= set(rows[2]) and rows[2]["judge/coverage"] == 1.0
    assert {"eval/mean_at_4", "eval/pass_at_4", "eval/maj_at_4"} <= set(rows[2])
    for sample in read_rollouts(tmp_path / "run" / "rollouts" / "step_000001.parquet"):
        words = len(sample.completion_text.split())
        assert sample.parts["score"] in (pytest.approx(-words / 1000), pytest.approx(1 - words / 1000))
        assert sample.reward == pytest.approx((sample.parts["score"] or 0.0) + 0.2 * (sample.parts["format"] or 0.0))
    left = (" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"]))
    assert not [line for line in left if "remote_rm" in line and str(tmp_path) in line]

    # The function is part of what the run is.
    (tmp_path / "my_reward.py").write_text("def score(completion):\n    return 0.0\n")
    again = run_cli(*arguments, *small, "--run.steps", "3")
    assert again.returncode == 2
    assert "has reward.functions = 'my_reward.py:score format?weight=0.2' (functions " in again.stderr
