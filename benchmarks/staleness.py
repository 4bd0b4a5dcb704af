"""What it costs and what it saves to sample for later steps while the policy learns.

    python benchmarks/staleness.py learn OUT [--task digits|count] [--seeds 0 1 2] [--steps 16]
    PYTHONPATH=. python benchmarks/staleness.py clock [--steps 30]

``learn``: runs of the command line on one machine, for each seed from one cold start; prints held-out accuracy at the
end by staleness. Runs that are finished are not run again.

``clock``: real driver code, one engine and one policy that only say how long they take, on a clock that goes on when
both wait; prints time relative to a run that samples and learns in turn. What it assumes stands above the table; what
the driver itself takes is not counted, see driver_scale.py.
"""

import argparse
import heapq
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
from machine import machine_lines
from task_runs import accuracies, train

from algorithms.records import PLAIN
from orchestrator.cluster.pool import PoolSpec, RoleWorkers, WorkerPool
from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.sync import SyncResult
from orchestrator.config import load_config
from orchestrator.rewards.reward import Reward
from orchestrator.run.checkpoint import Progress
from orchestrator.run.cursor import PromptCursor, sample_seed
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.ahead import AheadWork
from orchestrator.training.ask import RunAsk
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.waiting import Waiting
from workers.types import Completion, Completions, EncodedPrompt, Prompt, RankUpdate

KINDS = {
    "in turn": (),
    "staleness 1": ("--rollout.staleness", "1"),
    "staleness 2": ("--rollout.staleness", "2", "--rollout.tokens_per_round", "{half}"),
    "staleness 4": ("--rollout.staleness", "4", "--rollout.tokens_per_round", "{quarter}"),
}
_PROMPTS, _SAMPLES, _LONGEST, _MEAN, _SIGMA = 40, 8, 2048, 350, 0.8
_SLOTS, _PROMPT_TOKENS, _UPDATES = 256, 400, 4
_SHARES = (0.3, 0.4, 0.5, 0.6)
_STEP_MS, _STEP_MS_EACH, _PREFILL_MS = 4.5, 0.0102, 0.04
_SYNC_S = 0.5
_ASSUMED = f"""assumed, of Qwen2.5-VL-7B on one H100 for sampling and others for learning, at every staleness alike:
  {_PROMPTS} prompts x {_SAMPLES} samples a step, at most {_SLOTS} at once in the engine;
  log-normal lengths with mean {_MEAN} and sigma {_SIGMA}, cut at {_LONGEST};
  a token of each costs {_STEP_MS} ms (weights) + {_STEP_MS_EACH} ms an answer (its cache);
  a prompt of {_PROMPT_TOKENS} tokens is read once, and a carried answer again, {_PREFILL_MS} ms a token;
  a sync takes {_SYNC_S} s; of a step that takes turns, learning is the share that is told:
  old log-probs a quarter of it, {_UPDATES} updates the rest"""


class Clock:
    """Time that passes when every thread waits for it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rests = False
        """Whether the main thread waits for the other one."""
        self._until: dict[int, float] = {}
        self._changed = threading.Condition()

    def wait(self, until: float) -> None:
        """Until it is so late."""
        own = threading.get_ident()
        with self._changed:
            self._until[own] = until
            while self.now < until:
                if self._all_wait() and until == min(self._until.values()):
                    self.now = until
                else:
                    self._changed.wait(0.001)
            del self._until[own]

    def _all_wait(self) -> bool:
        others = [t.ident for t in threading.enumerate() if t.name == "sampling ahead"]
        main = threading.main_thread().ident
        return (self.rests or main in self._until) and all(other in self._until for other in others)


class SimulatedEngine:
    """Answers that take their time: a bounded batch, one token of each at a time."""

    num_restarts = 0

    def __init__(self, clock: Clock) -> None:
        self.version, self._clock = 0, clock
        self._read: set[tuple[str, int]] = set()

    def sample(self, requests: Sequence[Any], *, on_finished: Callable[[Completions], None]) -> Completions:
        """See ``Engines``."""
        began, now_ms = self._clock.now, 0.0
        queue, active, found, step = list(reversed(requests)), list[tuple[int, int, Any]](), dict[Any, Completion](), 0
        while queue or active:
            while queue and len(active) < _SLOTS:
                request = queue.pop()
                now_ms += _PREFILL_MS * self._unread(request)
                heapq.heappush(active, (step + _left(request), id(request), request))
            end, _, request = heapq.heappop(active)
            now_ms += (end - step) * (_STEP_MS + _STEP_MS_EACH * (len(active) + 1))
            step = end
            self._clock.wait(began + now_ms / 1000)
            found[request.uid, request.sample_index] = completion = self._completion(request)
            on_finished(Completions.of([completion]))
        return Completions.of(found[r.uid, r.sample_index] for r in requests)

    def sample_meanwhile(
        self, requests: Sequence[Any], *, on_finished: Callable[[Completions], None], is_wanted: Callable[[], bool]
    ) -> None:
        """None is lost."""
        self.sample(requests, on_finished=on_finished)

    def make_ready(self) -> None:
        """What was read under other weights is read again."""
        self._read.clear()

    reset_caches = make_ready

    def sleep(self) -> None:
        """It has processors of its own."""

    def _unread(self, request: Any) -> int:
        carried = len(request.prompt_ids) - _PROMPT_TOKENS
        known = {(request.uid, -1), (request.uid, request.sample_index)} & self._read
        self._read |= {(request.uid, -1), (request.uid, request.sample_index)}
        tokens = 0 if (request.uid, -1) in known else _PROMPT_TOKENS
        return tokens + (0 if (request.uid, request.sample_index) in known else carried)

    def _completion(self, request: Any) -> Completion:
        tokens, drawn = _left(request), len(request.prompt_ids) - _PROMPT_TOKENS
        is_whole = drawn + tokens == _length(request.uid, request.sample_index)
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=np.full(tokens, 7, np.int32),
            rollout_logprobs=np.full(tokens, -1.0, np.float32),
            finish_reason="stop" if is_whole else "length",
            policy_version=self.version,
            engine="simulated",
        )


@cache
def _length(uid: str, index: int) -> int:
    rng = np.random.Generator(np.random.Philox(sample_seed(0, uid, index, 0)))
    return int(np.clip(rng.lognormal(np.log(_MEAN) - _SIGMA**2 / 2, _SIGMA), 1, _LONGEST))


def _left(request: Any) -> int:
    drawn = len(request.prompt_ids) - _PROMPT_TOKENS
    return min(request.max_new_tokens, _length(request.uid, request.sample_index) - drawn)


@dataclass(frozen=True)
class _Later:
    """An answer that is there at a time."""

    answer: Any
    at: float


class _Rank:
    """Scores and learns, which takes its time."""

    def __init__(self, clock: Clock, score_s: float, update_s: float) -> None:
        self.score = SimpleNamespace(
            remote=lambda batches, **_: _Later(
                [np.full(len(s.input_ids), -1.0, np.float32) for b in batches for s in b], clock.now + score_s
            )
        )
        self.update = SimpleNamespace(remote=lambda batches: _Later(RankUpdate(), clock.now + update_s))


class _Pool(WorkerPool):
    def __init__(self, clock: Clock, learn_s: float) -> None:
        self._clock = clock
        self._roles = {name: RoleWorkers(role, self) for name, role in ROLES.items()}
        self.role("policy").actors = [_Rank(clock, learn_s / 4, learn_s * 3 / 4 / _UPDATES)]
        self.plan: Any = SimpleNamespace(workers_of=lambda name: (SimpleNamespace(index=0),))
        self.spec = PoolSpec(tokens_per_microbatch=1 << 16, share_prompts=True, num_threads=1)

    def results(self, refs: Sequence[Any], **_: Any) -> list[Any]:
        for ref in refs:
            self._clock.wait(ref.at)
        return [ref.answer for ref in refs]


class _Client:
    def open_stream(self) -> Any:
        found: dict[str, Reward] = {}

        def add(item: Any) -> None:
            found[item.id] = Reward(value=float(item.length % 7), parts={}, status="scored")

        return SimpleNamespace(add=add, results=lambda: found)


def _seconds(root: Path, flags: Sequence[str], steps: int, learn_s: float) -> float:
    """Of all steps."""
    flags = [flag.format(half=_LONGEST // 2, quarter=_LONGEST // 4) for flag in flags]
    config, _ = load_config(
        [
            *("--algo", "grpo", "--run.steps", str(steps), "--rollout.prompts_per_step", str(_PROMPTS)),
            *("--rollout.samples_per_prompt", str(_SAMPLES), "--rollout.max_new_tokens", str(_LONGEST)),
            *("--policy.train_batch_size", str(_PROMPTS * _SAMPLES // _UPDATES), "--algorithm.kl_coef", "0"),
            *("--placement.layout", "separate", "--guard.max_mismatch", "100", *flags),
        ]
    )
    clock, folder = Clock(), RunFolder(root)
    pool, engine = _Pool(clock, learn_s), SimulatedEngine(clock)
    folder.create()

    @contextmanager
    def phase(name: str, timed: PhaseClock) -> Iterator[None]:
        clock.rests = name == "rollout"
        with timed.phase(name):
            yield
        clock.rests = False

    session: Any = SimpleNamespace(config=config, pool=pool, folder=folder, deadline_s=600.0, phase=phase, reached=None)

    def sync(version: int, uids: Sequence[str]) -> SyncResult:
        clock.wait(clock.now + _SYNC_S)
        engine.version = version
        return SyncResult(policy_version=version, seconds=_SYNC_S, digest="0" * 64, probe_gap=0.0)

    prompt = (1,) * _PROMPT_TOKENS
    answering: Any = SimpleNamespace(
        session=session,
        engines=engine,
        encoder=SimpleNamespace(
            encode=lambda p: EncodedPrompt(uid=p.uid, engine_prompt_ids=prompt, prompt_ids=prompt, media=()),
            decode=lambda ids: "7",
            decode_all=lambda rows: ["7"] * len(rows),
        ),
        train=[Prompt(uid=f"p{n}", messages=(), media=()) for n in range(_PROMPTS * (steps + 5))],
        ask=RunAsk(session=session, share_prompts=True, longest_row=1 << 16),
        sampling=PLAIN,
        verified_sync=sync,
    )
    client: Any = _Client()
    online = OnlineWork(answering=answering, client=client)
    work = AheadWork(online=online, waiting=Waiting(online)) if config.rollout.staleness else online
    cursor = PromptCursor(num_prompts=len(answering.train), seed=0)
    progress = Progress(step=0, num_updates=0, policy_version=0, cursor=cursor)
    for _ in range(steps):
        progress, _ = work.step(progress, PhaseClock())
    folder.release()
    return clock.now


def times(steps: int) -> None:
    """Wall time of every kind relative to the first."""
    print("\n".join([*machine_lines(), _ASSUMED, ""]))  # noqa: T201
    print("| learning's share | " + " | ".join(f"{kind}, s a step | of it" for kind in KINDS) + " |")  # noqa: T201
    print("|---" * (1 + 2 * len(KINDS)) + "|")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        # What sampling takes by itself, of which learning's share follows.
        alone = _seconds(Path(folder) / "alone", (), steps, 0.0) / steps
        for share in _SHARES:
            learn_s, cells, whole = alone * share / (1 - share), list[str](), 0.0
            for number, (_, flags) in enumerate(KINDS.items()):
                told = _seconds(Path(folder) / f"{share}_{number}", flags, steps, learn_s)
                whole = whole or told
                cells += [f"{told / steps:.1f}", f"{told / whole:.2f}"]
            print(f"| {share:.0%} | " + " | ".join(cells) + " |", flush=True)  # noqa: T201


def learn(out: Path, task: str, seeds: Sequence[int], steps: int) -> None:
    """Held-out accuracy at the end, by staleness and seed."""
    curves: dict[str, list[dict[int, float]]] = {kind: [] for kind in KINDS}
    for seed in seeds:
        common = ("--task", task, "--run.seed", str(seed))
        start = out / f"start_{seed}"
        if not (found := sorted(start.glob("checkpoints/step_*/manifest.json"))):
            train("--algo", "sft", *common, "--run.dir", str(start))
            found = sorted(start.glob("checkpoints/step_*/manifest.json"))
        for kind, flags in KINDS.items():
            folder = out / f"{kind.replace(' ', '_')}_{seed}"
            own = [flag.format(half=8, quarter=4) for flag in flags]
            if not (folder / "checkpoints" / f"step_{steps:06d}" / "manifest.json").is_file():
                train(
                    *("--algo", "grpo", *common, "--model.path", str(found[-1].parent / "policy")),
                    *("--run.dir", str(folder), "--run.steps", str(steps), "--run.eval_every", str(max(1, steps // 4))),
                    *("--optimizer.lr", "6e-4", *own),
                )
            curves[kind].append(accuracies(folder))
    print("\n".join(machine_lines()))  # noqa: T201
    print("| | before | " + " | ".join(f"seed {seed}" for seed in seeds) + " | mean |")  # noqa: T201
    print("|---" * (3 + len(seeds)) + "|")  # noqa: T201
    for kind, runs in curves.items():
        last = [curve[steps] for curve in runs]
        cells = [mean(curve[0] for curve in runs), *last, mean(last)]
        print(f"| {kind} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")  # noqa: T201


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("learn", "clock"))
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--task", default="count", choices=("count", "digits"))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=None)
    given = parser.parse_args()
    if given.what == "clock":
        times(given.steps or 30)
        return
    if given.out is None:
        sys.exit("name a folder for the runs")
    learn(given.out, given.task, given.seeds, given.steps or 16)


if __name__ == "__main__":
    main()
