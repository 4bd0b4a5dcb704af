"""A whole run whose reward service loses half of the samples, and then answers with a web page."""

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.contract.test_reward_answers import answering, send
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows, online_arguments

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

_SAMPLES = 32


def test_it_goes_on_masked_and_stops_with_a_sentence_and_a_checkpoint(
    random_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler, items: list[dict[str, Any]]) -> None:
        seen.extend(item["id"] for item in items)
        if len(set(seen)) > 2 * _SAMPLES:
            send(handler, b"<html>Bad gateway</html>")
            return
        # Half of them are paid by their length, the other half is left out, however often it is asked for.
        told = [
            {"id": item["id"], "reward": float(len(item["response"]) % 7), "status": "scored"}
            for item in items
            if item["id"].endswith("/0")
        ]
        send(handler, json.dumps({"items": told}).encode())

    run_dir = tmp_path / "run"
    with answering(answer) as (url, _):
        arguments = online_arguments(random_model, digits, run_dir)
        arguments += ["--reward.url", url, "--reward.min_coverage", "0.4", "--rollout.engine", "transformers"]
        ended = run_cli(*arguments, "--run.checkpoint_every", "100")
    last = ended.stderr.splitlines()[-1]
    assert ended.returncode == 3, ended.stderr
    assert last.startswith("stopped: reward coverage 0.000 is below reward.min_coverage = 0.4: 32 of 32")
    assert "<html>Bad gateway</html>" in last
    assert [row["judge/coverage"] for row in metric_rows(run_dir)[1:]] == [0.5, 0.5]
    assert (run_dir / "checkpoints" / "step_000002" / "manifest.json").is_file()
