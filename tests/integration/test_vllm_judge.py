"""A real vLLM server as judge: whatever a random model would like to say, its constrained answer is a verdict."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from remote_rm.app import create_app
from remote_rm.judges.openai_judge import OpenAiJudge
from remote_rm.judges.protocol import JudgeError
from remote_rm.judges.words import messages
from remote_rm.verdict_cache import VerdictCache
from tests.contract.service import in_process

pytest.importorskip("vllm", reason="vllm is not installed")
# The first test waits for the server, which imports everything twice.
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = "tiny-judge"
START_DEADLINE_S = 420.0
NUM_ITEMS = 24
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The worker lives in the engine's process: one import of everything less.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
END = "<|end|>"
TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<|end|>{% endfor %}[assistant]"


def _build_model(folder: Path) -> None:
    """A random text model with a tokenizer of single bytes."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    trainer = BpeTrainer(special_tokens=[END], initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator([], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    end_id = tokenizer.token_to_id(END)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        # A wide initialisation, so that different texts get different verdicts.
        initializer_range=0.5,
        eos_token_id=end_id,
        pad_token_id=end_id,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def judge_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address once it is healthy."""
    folder = tmp_path_factory.mktemp("judge")
    _build_model(folder / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    arguments += ["--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "16"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            # What ``vllm serve`` runs; that command itself needs the metadata of a package named vllm, not vllm-cpu.
            [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder / "model", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENVIRONMENT},
            start_new_session=True,
        )
    try:
        _wait_until_healthy(f"http://127.0.0.1:{port}/health", server, folder / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        _stop(server)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    """End the server with its engine process: kindly, then not."""
    server.terminate()
    try:
        server.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_healthy(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline:
        assert server.poll() is None, f"vLLM ended with {server.returncode}: {log.read_text()[-3000:]}"
        try:
            if httpx.get(url).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"vLLM was not healthy after {START_DEADLINE_S} s: {log.read_text()[-3000:]}")


def _pair(number: int) -> tuple[str, str]:
    return (
        f"case {number}: response {1 + number % 2} says {number * 7919}.",
        f"Response {1 + number % 3 % 2} is better.",
    )


def test_every_answer_is_a_verdict_and_the_second_time_cached(judge_url: str, tmp_path: Path) -> None:
    items = [{"id": str(i), "reasoning": _pair(i)[0], "answer": _pair(i)[1]} for i in range(NUM_ITEMS)]

    async def run() -> list[list[dict[str, str]]]:
        judge = OpenAiJudge(judge_url, MODEL, timeout_s=60.0)
        async with in_process(create_app(judge, VerdictCache(tmp_path / "verdicts.sqlite"))) as client:
            health = await client.get("/healthz")
            assert (health.status_code, health.json()["detail"]) == (200, None)
            return [(await client.post("/v1/consistency", json={"items": items})).json()["items"] for _ in range(2)]

    first, second = asyncio.run(run())
    assert {item["status"] for item in first} == {"scored"}
    # Both verdicts occur, so the constraint leaves the choice to the model.
    assert {(item["raw"], item["verdict"]) for item in first} == {("1", "consistent"), ("0", "inconsistent")}
    assert {item["status"] for item in second} == {"cached"}
    assert [item["verdict"] for item in second] == [item["verdict"] for item in first]


def test_without_the_constraint_the_same_model_says_no_verdict(judge_url: str) -> None:
    """So it is the constraint that makes the answers above verdicts, not the model."""
    said = set()
    for number in range(NUM_ITEMS):
        request = {"model": MODEL, "messages": messages(*_pair(number)), "max_tokens": 1, "temperature": 0.0}
        answer = httpx.post(f"{judge_url}/chat/completions", json=request, timeout=60.0).json()
        said.add(answer["choices"][0]["message"]["content"])
    assert not said <= {"0", "1"}


def test_a_model_it_does_not_serve_is_unhealthy(judge_url: str) -> None:
    async def run() -> None:
        judge = OpenAiJudge(judge_url, "another", timeout_s=60.0)
        try:
            await judge.probe()
        finally:
            await judge.close()

    with pytest.raises(JudgeError, match=r"openai/another answered HTTP 404"):
        asyncio.run(run())
