"""Where a step's time goes, and what the loop costs beyond the models.

PYTHONPATH=. python benchmarks/step_overhead.py [step] [rollout] [sync]

step      a digits run: the share of a step outside rollout, reward, training and sync
rollout   rollout through the driver against a bare ``LLM.generate`` in the same engine on the same prompts, in turns
sync      the sync of a 200 MB model against a plain copy of as many bytes in memory, in turns
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from machine import machine_lines
from transformers import AutoConfig, Qwen2_5_VLForConditionalGeneration
from vllm import SamplingParams
from vllm._custom_ops import create_onednn_mm

from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.feed import build_requests, generate
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.sync import WeightSync
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import DigitsPaths, build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from tests.integration.pools import engine_spec, make_pool, policy_spec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.worker import RolloutWorker
from workers.types import EncodedPrompt, GenerationRequest
from workers.weight_sync.manifest import tensor_digest

_PROMPTS, _NEW_TOKENS, _TURNS, _SYNCS = 256, 32, 5, 15
_THREADS = 2


class BareRollout(RolloutWorker):
    """A rollout actor that can also be asked for vLLM's own ``generate``."""

    def bare(self, requests: list[GenerationRequest]) -> float:
        """Seconds of ``LLM.generate`` on the same prompts with the same sampling."""
        engine: Any = self._engine
        engine.reset_caches()
        prompts = [
            {
                "prompt_token_ids": list(r.engine_prompt_ids),
                "multi_modal_data": {"image": [engine._image(ref) for ref in r.media]},
                "multi_modal_uuids": {"image": [ref.sha256 for ref in r.media]},
            }
            for r in requests
        ]
        sampling: list[SamplingParams] = [engine._sampling(r) for r in requests]
        began = time.monotonic()
        engine._llm.generate(prompts, sampling, use_tqdm=False)
        return time.monotonic() - began


def main() -> None:
    """Print the comparisons that are asked for."""
    asked = sys.argv[1:] or ["step", "rollout", "sync"]
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        digits, model = build_digits_data(root / "data", seed=0), build_digits_model(root / "model", seed=0)
        if "step" in asked:
            print(_overhead(root, model), flush=True)  # noqa: T201
        environment = worker_environment(2, gpu=False)
        ray.init(
            "local", num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": environment}
        )
        if "rollout" in asked:
            print(_rollout(digits, model), flush=True)  # noqa: T201
        if "sync" in asked:
            print(_sync(digits, _large_model(root / "large", model)), flush=True)  # noqa: T201


def _overhead(root: Path, model: Path) -> str:
    command = [
        *(sys.executable, "-m", "orchestrator.train", "--algo", "stable_reinforce", "--run.dir", str(root / "run")),
        *("--model.path", str(model), "--run.steps", "12", "--run.eval_every", "12", "--run.checkpoint_every", "12"),
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [json.loads(line) for line in (root / "run" / "metrics.jsonl").read_text().splitlines()][3:]
    phases = ("rollout", "reward", "train", "sync")
    mean = {name: statistics.mean(row[f"time/{name}_s"] for row in rows) for name in (*phases, "step")}
    outside = mean["step"] - sum(mean[name] for name in phases)
    told = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in mean.items())
    return f"step: {told}; outside the four phases {outside:.3f} s = {outside / mean['step']:.1%}"


def _pool(model: Path) -> WorkerPool:
    # As a run on two cores has it: whoever's turn it is takes both.
    pool = make_pool(num_ranks=1, num_threads=_THREADS)
    actor_class = ray.remote(BareRollout).options(
        num_cpus=0, runtime_env={"env_vars": worker_environment(_THREADS, gpu=False)}
    )
    spec = engine_spec(model)
    engines = pool.role("rollout")
    engines.actors, engines.spec = [actor_class.remote(name="rollout-0", spec=spec, num_threads=_THREADS)], spec
    pool.role("policy").start(policy_spec(model, zero_stage=2))
    return pool


def _encoded(digits: DigitsPaths, model: Path, count: int) -> list[EncodedPrompt]:
    train = digits.train
    source = SourceFile(path=train, read_by="r1_reward", media_root=train.parent, max_pixels=10**6, video_frames=1)
    dataset = read_prompts(source)
    encoder = PromptEncoder(model)
    return [encoder.encode(p) for p in dataset.prompts[:count]]


def _rollout(digits: DigitsPaths, model: Path) -> str:
    pool = _pool(model)
    prompts = _encoded(digits, model, _PROMPTS)
    WeightSync(pool, run_id="overhead", tolerance=1e-3, deadline_s=300.0).sync(0, prompts[:2])
    engine = pool.role("rollout").actors[0]

    def requests(turn: int) -> list[GenerationRequest]:
        return build_requests(
            prompts, samples_per_prompt=1, seed_of=lambda uid, index: turn, max_new_tokens=_NEW_TOKENS,
            temperature=1.0, top_p=1.0,
        )  # fmt: skip

    def ours(turn: int) -> float:
        batch = requests(turn)
        began = time.monotonic()
        ray.get(engine.reset_caches.remote())
        generate({0: engine}, batch, deadline_s=300.0)
        return time.monotonic() - began

    pairs = _in_turns(ours, lambda turn: ray.get(engine.bare.remote(requests(turn))))
    pool.close()
    return f"rollout of {_PROMPTS} prompts: {_told('the driver', 'LLM.generate', pairs)}"


class TimedSync(WeightSync):
    """Notes how long the driver waits for each part."""

    def __init__(self, pool: WorkerPool, **options: Any) -> None:
        super().__init__(pool, **options)
        self.parts: dict[str, list[float]] = defaultdict(list)

    def _publish(self, *told: Any, **options: Any) -> Any:
        with self._noting("write"):
            return super()._publish(*told, **options)

    def _answers(self, refs: dict[int, Any], what: str) -> Any:
        with self._noting(what):
            return super()._answers(refs, what)

    def _gaps(self, *told: Any) -> Any:
        with self._noting("score"):
            return super()._gaps(*told)

    @contextmanager
    def _noting(self, part: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.parts[part].append(time.monotonic() - began)


def _sync(digits: DigitsPaths, model: Path) -> str:
    pool = _pool(model)
    probe = _encoded(digits, model, 1)
    sync = TimedSync(pool, run_id="large", tolerance=1e-3, deadline_s=300.0)
    num_bytes = 4 * sum(p.numel() for p in Qwen2_5_VLForConditionalGeneration.from_pretrained(model).parameters())
    source = np.ones(num_bytes // 4, dtype=np.float32)

    def copy(turn: int) -> float:
        began = time.monotonic()
        np.copyto(np.empty_like(source), source)
        return time.monotonic() - began

    transfers: list[float] = []

    def ours(turn: int) -> float:
        result = sync.sync(turn, probe)
        transfers.append(result.transfer_s)
        return result.seconds

    pairs = _in_turns(ours, copy, _SYNCS)
    pool.close()
    transfer, proof = (
        statistics.median(transfers[1:]),
        statistics.median(w - t for (w, _), t in zip(pairs, transfers[1:], strict=True)),
    )
    parts = ", ".join(f"{part} {statistics.median(seconds[1:]):.3f} s" for part, seconds in sync.parts.items())
    return (
        f"sync of {num_bytes / 1e6:.0f} MB: {_told('whole', 'a copy', pairs)}; transfer {transfer:.3f} s, "
        f"proof {proof:.3f} s; waited for {parts}\n{_alone(num_bytes)}"
    )


def _alone(num_bytes: int) -> str:
    """What no transfer through shared memory and oneDNN's layers can do without, each alone in this process."""
    torch.set_num_threads(_THREADS)
    shape = (5120, 512)
    count = num_bytes // (4 * shape[0] * shape[1])
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
        file.truncate(4 * count * shape[0] * shape[1])
        shared = torch.from_file(file.name, shared=True, size=count * shape[0] * shape[1]).view(count, *shape)
        source = torch.ones_like(shared)
        packed: list[Any] = [None] * count

        def pack() -> None:
            for index, weight in enumerate(shared):
                packed[index] = None
                packed[index] = create_onednn_mm(weight.t())

        works = {
            "writing": lambda: shared.copy_(source),
            "hashing": lambda: [tensor_digest(weight) for weight in shared],
            "packing": pack,
        }
        times = {
            name: _in_turns(lambda turn, work=work: _seconds(work), lambda turn: 0.0, _SYNCS)
            for name, work in works.items()
        }
    told = ", ".join(f"{name} {statistics.median(s for s, _ in turns):.3f} s" for name, turns in times.items())
    return f"as many bytes in one process: {told}"


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _in_turns(
    ours: Callable[[int], float], other: Callable[[int], float], turns: int = _TURNS
) -> list[tuple[float, float]]:
    return [(ours(turn), other(turn)) for turn in range(turns + 1)][1:]


def _told(name: str, other: str, pairs: list[tuple[float, float]]) -> str:
    first, second = (statistics.median(column) for column in zip(*pairs, strict=True))
    return f"{name} {first:.3f} s, {other} {second:.3f} s, ratio {second / first:.2f} (medians of {len(pairs)} turns)"


def _large_model(folder: Path, small: Path) -> Path:
    """The digits model with a wider and deeper language model: 50 million parameters."""
    config: Any = AutoConfig.from_pretrained(small)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 512, 2560, 10
    text.num_attention_heads, text.num_key_value_heads = 16, 8
    text.layer_types = ["full_attention"] * text.num_hidden_layers
    config.vision_config.out_hidden_size = text.hidden_size
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    for file in small.iterdir():
        if not (folder / file.name).exists():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


if __name__ == "__main__":
    main()
