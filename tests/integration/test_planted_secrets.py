"""Secrets of every kind that a run is given or that a judge repeats are in nothing that it wrote or printed."""

import itertools
import tempfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tasks.digits import DigitsPaths
from tests.contract.fake_judge import Body, Depends, Say, fake_judge
from tests.integration.conftest import run_cli
from tests.integration.runs import metric_rows, online_arguments
from tests.planted_secrets import is_told, where_told

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(600)]

_KEY = "sk-planted-0123456789/abc+def"
_ENVIRONMENT = {
    "HF_TOKEN": "hf_plantedtokenabcdefgh",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "AWS_SECRET_ACCESS_KEY": "planted/aws/secret/Key",
    "OPENAI_API_KEY": "sk-planted-of-the-environment",
    "HTTPS_PROXY": "http://planted:proxyhunter2@127.0.0.1:9",
    "MLFLOW_TRACKING_PASSWORD": "planted-mlflow-password",
}
_SECRETS = [_KEY, *(value for name, value in _ENVIRONMENT.items() if name != "HTTPS_PROXY"), "proxyhunter2"]


def _echo() -> Depends:
    """Repeats the key: in a reasoning, in a verdict that is none, and in a failure; not while it is tried out."""
    said, calls = f"with Bearer {_KEY} I say", itertools.count()

    def answer(_: dict[str, Any]) -> Say | Body:
        match max(next(calls) - 4, 0) % 4:
            case 3:
                return Body(f'{{"error": {{"message": "no such key: {_KEY}"}}}}'.encode(), 400)
            case 2:
                return Say(said, reasoning=said)
            case number:
                return Say(str(number), reasoning=said)

    return Depends(answer)


def test_no_secret_is_in_what_a_run_wrote_or_printed(
    warm_model: Path, digits: DigitsPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "run" / "trackio"))
    (tmp_path / "key").write_text(f"{_KEY}\n")
    # Sockets have short names.
    with tempfile.TemporaryDirectory(prefix="ray") as ray, fake_judge(_echo()) as judge:
        monkeypatch.setenv("RAY_TMPDIR", ray)
        result = run_cli(
            *online_arguments(warm_model, digits, tmp_path / "run"),
            *("--run.steps", "2", "--run.eval_every", "1", "--rollout.engine", "transformers"),
            *("--reward.judge", "openai", "--reward.judge_url", judge.url, "--reward.judge_model", "judge"),
            *("--reward.judge_key_file", str(tmp_path / "key"), "--reward.min_coverage", "0.2"),
            *("--run.trackers", "tensorboard", "wandb", "mlflow", "trackio"),
            *("--run.mirror", str(tmp_path / "run" / "mirror")),
        )
        assert where_told(Path(ray), *_SECRETS) == []
    assert result.returncode == 0, result.stderr[-3000:]
    assert [secret for secret in _SECRETS if is_told(result.stdout + result.stderr, secret)] == []
    assert where_told(tmp_path / "run", *_SECRETS) == []
    # Some rewards failed, by those words, and some were given.
    assert 0.2 < metric_rows(tmp_path / "run")[1]["judge/coverage"] < 1.0
