"""Models measured by the command as users type it, through Ray and vLLM; what they say is known, so is every score."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluate import main
from tests.contract.fake_judge import Depends, Say, fake_judge
from tests.integration.benchmark_rows import FIRST, LETTER, TEN_ROWS, TEXT, YES, TenRows
from tests.scripted_models import write_scripted_model
from tests.unit.evaluation.released_files import cell, parquet

pytestmark = pytest.mark.integration
_SECOND = FIRST.replace("1", "2")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The model that always says so."""
    made: dict[str, Path] = {}

    def model(says: str) -> Path:
        if says not in made:
            made[says] = write_scripted_model(tmp_path_factory.mktemp("says") / "model", says)
        return made[says]

    return model


def _row_of(request: dict[str, Any]) -> int:
    found = re.search(r"row (\d+)", json.dumps(request["messages"]))
    assert found is not None
    return int(found[1])


@pytest.mark.soak
@pytest.mark.parametrize("name", list(TEN_ROWS))
def test_ten_rows_as_they_are_counted_by_hand(name: str, models: Callable[[str], Path], tmp_path: Path) -> None:
    rows = TEN_ROWS[name]
    words = ["--benchmark", name, "--model", str(models(rows.says)), "--data", str(rows.write(tmp_path / "data"))]
    words += ["--out", str(tmp_path / "out"), "--rollout.max_new_tokens", "16"]
    if rows.says == FIRST:
        words += ["--form", "answer_is_better"]
    judge = rows.judge or (lambda row: "")
    with fake_judge(Depends(lambda request: Say(judge(_row_of(request))))) as endpoint:
        if rows.judge is not None:
            words += ["--reward.judge_url", endpoint.url, "--reward.judge_model", "j"]
        assert main(words) == 0
        assert len(endpoint.requests) == (10 if rows.judge else 0)
    told = json.loads((tmp_path / "out" / "scores.json").read_text())["ways"]
    for way, figures in {"strict": rows.figures, **rows.of_way}.items():
        shown = {figure: told[way]["figures"][figure]["value"] for figure in figures}
        assert shown == pytest.approx(dict(figures)), way
    assert {count: told["strict"]["counts"][count] for count in rows.counts} == dict(rows.counts)


def _pairs(file: Path, count: int) -> Path:
    """Rows whose ids repeat, in the released layout."""
    row = {"query": "What ?", "response": ["a cat", "a dog"], "human_ranking": [0, 1], "image": cell(1)}
    return parquet(file, *({**row, "id": f"mathverse_{i % 3}", "rationale": str(i)} for i in range(count)))


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_killed_command_goes_on_to_the_same_scores(tmp_path: Path) -> None:
    """A judge whose verdicts are drawn is killed at one moment after another; ids repeat."""
    model = write_scripted_model(tmp_path / "model", FIRST, _SECOND)
    data = _pairs(tmp_path / "data" / "test.parquet", 900)

    def command(out: str) -> list[str]:
        words = ["--benchmark", "vl_reward_bench", "--model", str(model), "--data", str(data)]
        words += ["--out", str(tmp_path / out), "--order", "one", "--votes", "1", "--form", "answer_is_better"]
        return [sys.executable, "-m", "orchestrator.evaluate", *words, "--rollout.max_new_tokens", "16"]

    def finished(out: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command(out), capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done

    def shards() -> int:
        return len(list((tmp_path / "cut" / "predictions").glob("*.parquet")))

    whole = finished("whole")
    for at_least, delay_s in ((1, 0.0), (2, 0.3)):
        with subprocess.Popen(command("cut"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as driver:
            deadline = time.monotonic() + 240
            while shards() < at_least and driver.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(delay_s)
            driver.send_signal(signal.SIGKILL)
    assert 0 < shards() < 4, "it should be killed before it ends"
    resumed = finished("cut")
    assert "\n512 of 1800 answers" not in resumed.stderr  # two samples a row, and none of the first shard again
    assert "\n1800 of 1800 answers are kept" in resumed.stderr
    one, other = ((tmp_path / out / "predictions.parquet").read_bytes() for out in ("whole", "cut"))
    assert one == other
    assert whole.stdout == resumed.stdout and "| rows (count) | 900 |" in whole.stdout


def test_every_fixture_is_of_ten_rows_and_of_a_model_that_is_made(tmp_path: Path) -> None:
    from orchestrator.evaluation.benchmarks.registry import BENCHMARKS

    # These ask for rewards, for likelihoods, and in a row's own words: they have tests of their own.
    assert set(BENCHMARKS) - set(TEN_ROWS) == {"reward_bench_2", "seed_bench_likelihood", "judgements"}
    rows: TenRows
    for rows in TEN_ROWS.values():
        assert rows.says in (YES, LETTER, FIRST, TEXT)
