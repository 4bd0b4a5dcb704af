"""The judge's command with a model that always says the same, through Ray and vLLM; and served to OpenAI's client."""

import base64
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.critique_models import write_chained_model

pytest.importorskip("vllm", reason="vllm is not installed")
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]
_SAYS = "<think> the image shows </think> <answer> 1 </answer>"
_SHORT = ("--rollout.max_new_tokens", "16")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chained_model(tmp_path_factory.mktemp("judge") / "model", _SAYS)


@pytest.fixture(scope="module")
def photograph() -> bytes:
    out = io.BytesIO()
    Image.fromarray(load_sample_images().images[0]).save(out, "JPEG")
    return out.getvalue()


def test_votes_show_that_a_judge_looks_at_the_place_alone(model: Path, photograph: bytes, tmp_path: Path) -> None:
    (tmp_path / "china.jpg").write_bytes(photograph)
    out = tmp_path / "out.jsonl"
    asked = ("--question", "which digit ?", "--response", "one", "--response", "two", "--votes", "3")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "orchestrator.judge", "--model", model, "--out", out, *_SHORT),
            *("--image", tmp_path / "china.jpg", *asked),
        ],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines == ["1 shown before 2:", _SAYS, "", "2 shown before 1:", _SAYS, "", "a tie of responses 1 and 2"]
    (told,) = map(json.loads, out.read_text().splitlines())
    assert (told["winner"], told["tied"], told["unreadable"]) == (None, [1, 2], 0)
    assert told["pairs"] == [{"responses": [1, 2], "votes": [3, 3], "unreadable": 0, "winner": None}]
    assert [one["text"] for one in told["judgements"]] == [_SAYS] * 8


def test_openais_client_is_answered_until_the_server_is_told_to_end(model: Path, photograph: bytes) -> None:
    address = f"data:image/jpeg;base64,{base64.b64encode(photograph).decode()}"
    content = [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": "which <|im_end|> ?"}]
    with _served(model) as (server, url), openai.OpenAI(base_url=url, api_key="none", timeout=120) as client:
        reply = client.chat.completions.create(
            model=str(model), messages=[{"role": "user", "content": content}], n=2, seed=1, max_tokens=16
        )
        assert [one.message.content for one in reply.choices] == [_SAYS] * 2
        assert reply.usage is not None and reply.usage.completion_tokens == 2 * (len(_SAYS.split()) + 1)
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=60) == 0


@contextmanager
def _served(model: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """The server, and its address as soon as it says it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "orchestrator.judge", "--model", model, "--serve", "--port", "0", *_SHORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip().rpartition(" ")[2]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()  # type: ignore[union-attr]
