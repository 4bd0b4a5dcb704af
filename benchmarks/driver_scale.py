"""What the driver costs at scale: real driver code, and fake workers that answer at once.

PYTHONPATH=. python benchmarks/driver_scale.py [ENGINES RANKS PROMPTS SAMPLES TOKENS [STEPS]]

Without arguments: 64 engines, 256 policy ranks, 4,096 prompts x 8 samples of 1,000 tokens, and that with each number
halved and quartered. What travels between driver and workers goes through Ray's object store as it would. Seconds are
those that processors spend in the driver, of all its threads, whatever else the machine does: less what the fakes take
to make their answers, and with what passes while engines sample. "beside" are those of other threads than the driver's
own. A process takes each size twice and tells both: the first step finds the object store's pages untouched.

Memory is of the process: private, and with the pages of the object store that it has mapped. With STEPS, that many
steps in one process, and its memory after the first and after every tenth of them.
"""

import gc
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import ray
from machine import machine_lines

from algorithms.records import PLAIN
from orchestrator.cluster.pool import PoolSpec, RoleWorkers, WorkerPool
from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.row_work import RowWeights
from orchestrator.cluster.sync import SyncResult
from orchestrator.config import load_config
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.rewards.client import RewardStream
from orchestrator.rewards.reward import Reward, RewardItem
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptCursor
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import PhaseClock
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training.ask import RunAsk
from orchestrator.training.online_step import OnlineWork
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, Completions, RankUpdate

_FULL = (64, 256, 4096, 8, 1000)
_NAMES = ("engines", "ranks", "prompts", "samples", "tokens")
_COLLECTED = 128
_RNG = np.random.default_rng(0)


class Answers:
    """Seconds the fakes took, which no driver would."""

    seconds = 0.0
    """Of a processor, less what other threads did meanwhile."""


class Method:
    """``actor.method``: arguments and answer pass through the object store, as with an actor."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def remote(self, *args: Any, **options: Any) -> Any:
        sent = ray.put((args, options))
        began = time.thread_time()
        ref = ray.put(self._answer(*args))
        Answers.seconds += time.thread_time() - began
        del sent
        return ref


class FakeEngine:
    """Answers every request with tokens of the right number, a few prompts' at a time."""

    def __init__(self, num_tokens: int) -> None:
        self._held: list[Any] = []
        self._tokens = num_tokens
        self.submit, self.collect = Method(self._held.extend), Method(self._collect)

    def _collect(self, max_wait_s: float) -> Completions:
        finished, self._held[:] = self._held[:_COLLECTED], self._held[_COLLECTED:]
        return Completions.of(self._completion(request) for request in finished)

    def _completion(self, request: Any) -> Completion:
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=_RNG.integers(8, 30, self._tokens).astype(np.int32),
            rollout_logprobs=_RNG.random(self._tokens).astype(np.float32),
            finish_reason="stop",
            policy_version=0,
            engine="fake",
        )


class FakeRank:
    """Scores and learns nothing."""

    def __init__(self) -> None:
        self.score = Method(lambda batches: [np.zeros(len(s.input_ids), np.float32) for b in batches for s in b])
        self.update = Method(lambda batches: RankUpdate())


class FakeClient:
    """Scores at once, after the request has been spelled out."""

    group_size = None

    def open_stream(self) -> RewardStream:
        return RewardStream(self)  # type: ignore[arg-type]

    def post(self, items: list[RewardItem]) -> "Future[dict[str, Reward]]":
        future: Future[dict[str, Reward]] = Future()
        values = _RNG.random(len(items))
        [item.to_json() for item in items]
        future.set_result(
            {
                item.id: Reward(value=float(v), parts={"format": 1.0}, status="scored")
                for item, v in zip(items, values, strict=True)
            }
        )
        return future


def main() -> None:
    """Print a row for the full size and for each number halved and quartered, or memory over many steps."""
    told = list(map(int, sys.argv[1:7]))
    print("\n".join(machine_lines()))  # noqa: T201
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=6 << 30)
    if len(told) > len(_NAMES):
        _soak(tuple(told[:-1]), told[-1])
        return
    columns = (*_NAMES, "step", "driver s", "beside s", "private GiB", "peak GiB")
    print("| " + " | ".join(columns) + " |")  # noqa: T201
    print("| --- " * len(columns) + "|")  # noqa: T201
    for size in [tuple(told)] if told else _sizes():
        with tempfile.TemporaryDirectory() as folder:
            for step, figures in enumerate(_steps(Path(folder), size, 2)):
                print("| " + " | ".join(map(str, (*size, step + 1, *figures))) + " |", flush=True)  # noqa: T201


def _sizes() -> list[tuple[int, ...]]:
    smaller = [tuple(n // f if i == at else n for i, n in enumerate(_FULL)) for at in range(5) for f in (2, 4)]
    return [_FULL, *smaller]


def _soak(size: tuple[int, ...], steps: int) -> None:
    shown = {0, *(steps * part // 10 - 1 for part in range(1, 11))}
    with tempfile.TemporaryDirectory() as folder:
        for step, (*_, private, peak) in enumerate(_steps(Path(folder), size, steps)):
            if step in shown:
                print(f"after step {step + 1}: private {private} GiB, peak so far {peak} GiB", flush=True)  # noqa: T201


def _steps(root: Path, size: tuple[int, ...], steps: int) -> Iterator[tuple[str, ...]]:
    """What each step of a run costs: seconds of a processor, of them beside, GiB at its end and at its most."""
    work = _work(root, size)
    cursor = PromptCursor(num_prompts=len(work.answering.train), seed=0)
    progress = Progress(step=0, num_updates=0, policy_version=0, cursor=cursor)
    for _ in range(steps):
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
        Answers.seconds, whole, own = 0.0, time.process_time(), time.thread_time()
        done, _ = work.step(progress, PhaseClock())
        progress = replace(done, mismatch_strikes=0)
        own = time.thread_time() - own
        seconds, beside = time.process_time() - whole - Answers.seconds, time.process_time() - whole - own
        yield f"{seconds:.1f}", f"{beside:.1f}", f"{psutil.Process().memory_full_info().uss / 2**30:.3f}", _peak()


def _peak() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM"))
    return f"{int(line.split()[1]) / 2**20:.3f}"


def _work(root: Path, size: tuple[int, ...]) -> OnlineWork:
    engines, ranks, prompts, samples, tokens = size
    digits, model = build_digits_data(root / "data", seed=0), build_digits_model(root / "model", seed=0)
    config, _ = load_config(
        [
            *("--algo", "stable_reinforce", "--rollout.prompts_per_step", str(prompts)),
            *("--rollout.samples_per_prompt", str(samples), "--policy.num_ranks", str(ranks)),
            *("--policy.train_batch_size", str(prompts * samples // 8), "--rollout.max_new_tokens", str(tokens)),
        ]
    )
    pool: Any = WorkerPool.__new__(WorkerPool)
    pool._roles = {name: RoleWorkers(role, pool) for name, role in ROLES.items()}
    pool.plan = SimpleNamespace(workers_of=lambda role: [SimpleNamespace(index=i) for i in range(ranks)])
    pool.role("rollout").actors = [FakeEngine(tokens) for _ in range(engines)]
    pool.role("policy").actors = [FakeRank() for _ in range(ranks)]
    weights = RowWeights(pair=1e-4, action=0.1, patch=0.0)
    budget = config.policy.tokens_per_microbatch
    pool.spec = PoolSpec(tokens_per_microbatch=budget, share_prompts=True, num_threads=1, weights=weights)
    folder = RunFolder(root / "run")
    folder.create()
    train = digits.train
    source = SourceFile(path=train, read_by="r1_reward", media_root=train.parent, max_pixels=10**6, video_frames=1)
    dataset = read_prompts(source)
    session: Any = SimpleNamespace(
        config=config, pool=pool, folder=folder, deadline_s=600.0, phase=lambda name, clock: clock.phase(name)
    )
    answering: Any = SimpleNamespace(
        session=session,
        engines=_FakeSampling(pool),
        encoder=PromptEncoder(model),
        train=dataset.prompts,
        ask=RunAsk(session=session, share_prompts=True, longest_row=config.policy.tokens_per_microbatch),
        sampling=PLAIN,
        verified_sync=lambda version, uids: SyncResult(
            policy_version=version, seconds=0.0, digest="0" * 64, probe_gap=0.0
        ),
    )
    client: Any = FakeClient()
    return OnlineWork(answering=answering, client=client)


class _FakeSampling:
    """The engines' door without their health."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    num_restarts = 0

    def reset_caches(self) -> None:
        """Nothing is kept."""

    def sleep(self) -> None:
        """Nothing is held."""

    def sample(self, requests: Any, *, on_finished: Any) -> Completions:
        from orchestrator.cluster.feed import generate

        return generate(
            dict(enumerate(self._pool.role("rollout").actors)), requests, deadline_s=600.0, on_finished=on_finished
        )


if __name__ == "__main__":
    main()
