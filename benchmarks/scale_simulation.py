"""A step on 8 to 1,024 GPUs by simulation: how long, how busy what is, where scaling bends, and why.

PYTHONPATH=. python benchmarks/scale_simulation.py [MODEL_FOLDER] [--gpu H100] [--mode in_turn partial ahead both]
    [--rollouts RUN/rollouts/STEP.parquet | --mean 350 --longest 2048] [--constant work batch] [--sizes 8 16 ...]
    [--driver_ms MS] [--window 64]

Without a folder the model has the shape of Qwen2.5-VL-7B. Lengths are a run's own, from its rollouts, or log-normal
with the mean and longest of EasyR1's Geometry3K run. Seconds of a token, of the updates, of the gradients and of the
sync are those of ``orchestrator.cluster.roofline``, ranks that wait for the slowest micro-batch among them; the
driver's are those of "The driver at scale" in results.md. Judges answer after 1 s on average and 5 s at most.

What bends a row is found by trying: the step is simulated again with each resource taken to cost nothing.
"""

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
from machine import machine_lines
from simulated_cluster import Cluster, Outcome, Setting, TokenSeconds
from transformers import AutoConfig

from orchestrator.cluster.feed import window_prompts
from orchestrator.cluster.roofline import learning, moving
from orchestrator.cluster.roofline.hardware import GPU_KINDS, Machine
from orchestrator.cluster.roofline.lengths import Asked, log_normal
from orchestrator.cluster.roofline.phase import Phase
from orchestrator.cluster.roofline.question import DriverCost, StepQuestion
from orchestrator.cluster.roofline.sampling import Engines, prefill
from orchestrator.cluster.roofline.shape import model_counts
from orchestrator.cluster.roofline.step import engines_of
from orchestrator.cluster.roofline.work import seconds
from orchestrator.cluster.row_work import row_weights
from orchestrator.config import load_config
from tests.unit.cluster.described_models import write_qwen2_5_vl_config

_SAMPLES, _PROMPTS_A_GPU, _PROMPTS = 8, 16, 4096
_PROMPT, _IMAGE = 400, 300
_UPDATES = 4
_MODES = {"in_turn": (0, False), "partial": (0, True), "ahead": (1, False), "both": (1, True)}
"""Staleness, and whether rollouts are partial. In turn all GPUs sample, then learn; ahead half of them do either."""
_BENT = 0.8
"""Efficiency below which scaling is said to bend."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One size of a cluster."""

    setting: Setting
    groups: list[list[int]]
    latencies: list[float]
    waiting_s: float
    """Part of ``learn_s`` in which ranks wait for the slowest."""
    collectives_s: float
    """Part of ``learn_s`` that collectives take beyond what is computed."""
    ranks: int

    def run(self) -> Outcome:
        """Simulate; in turn and without partial rollouts every step is as the first."""
        steps = 1 if self.setting.staleness == 0 and not self.setting.partial else 3
        many = len(self.latencies)
        late = self.latencies
        return Cluster(self.setting, self.groups, lambda g, s: late[(g * _SAMPLES + s) % many], steps=steps).run()

    def without(self) -> "dict[str, Case]":
        """The same with one thing at a time taken to cost nothing."""
        setting, mean = self.setting, round(sum(map(sum, self.groups)) / sum(map(len, self.groups)))
        cheaper = {
            "driver": replace(setting, driver_s=0.0, driver_after_s=0.0),
            "waiting ranks": replace(setting, learn_s=setting.learn_s - self.waiting_s),
            "collectives": replace(setting, learn_s=setting.learn_s - self.collectives_s),
            "sync": replace(setting, sync_s=0.0),
        }
        cases: dict[str, Case] = {name: replace(self, setting=changed) for name, changed in cheaper.items()}
        cases["judges"] = replace(self, latencies=[0.0])
        cases["longest answers"] = replace(self, groups=[[mean] * len(group) for group in self.groups])
        return cases


def main() -> None:
    """Print a table for each way to scale and to run, and where each bends."""
    options = _parser().parse_args()
    print("\n".join(machine_lines()))  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(write_qwen2_5_vl_config(Path(folder)))
        answers = _answers(options)
        named = options.model or "Qwen2.5-VL-7B"
        told = options.rollouts or f"log-normal, mean {options.mean:g}, longest {options.longest}"
        print(f"{options.gpu}, {named}: {_PROMPT} tokens a prompt, {_SAMPLES} answers each, {told}")  # noqa: T201
        for mode in options.mode:
            for constant in options.constant:
                _table(options, model, answers, mode, weak=constant == "work")


def _table(options: argparse.Namespace, model: str, answers: list[int], mode: str, *, weak: bool) -> None:
    kind = f"{_PROMPTS_A_GPU} prompts a GPU" if weak else f"{_PROMPTS} prompts in all"
    print(f"\n{mode}, {kind}\n")  # noqa: T201
    print("| GPUs | step s | efficiency | engines | ranks | driver | sync | bound by: seconds that go without it |")  # noqa: T201
    print("|---" * 8 + "|")  # noqa: T201
    first = bent = None
    for size in options.sizes:
        case = _case(options, model, answers, mode, size, prompts=_PROMPTS_A_GPU * size if weak else _PROMPTS)
        done = case.run()
        gains = {name: done.step_s - other.run().step_s for name, other in case.without().items()}
        first = first or (size, done.step_s, gains)
        scale = 1.0 if weak else size / first[0]
        efficiency = first[1] / (done.step_s * scale)
        worst = sorted(gains, key=lambda name: -gains[name])[:3]
        told = ", ".join(f"{name} {gains[name]:.1f}" for name in worst if gains[name] > 0.01 * done.step_s)
        busy = _busy(case, done)
        print(f"| {size} | {done.step_s:.1f} | {efficiency:.0%} | {' | '.join(busy)} | {told} |", flush=True)  # noqa: T201
        if efficiency < _BENT and bent is None:
            grown = {name: gains[name] - first[2][name] / scale for name in gains}
            name = max(grown, key=lambda name: grown[name])
            bent = f"bends at {size} GPUs: {name} takes {grown[name]:.1f} s more than its share on {first[0]} GPUs"
    print(f"\n{bent or 'does not bend'}")  # noqa: T201


def _busy(case: Case, done: Outcome) -> list[str]:
    whole, learned = done.step_ends[-1], len(done.step_ends)
    shares = (
        done.engines_busy_s / case.setting.num_engines / whole,
        (done.learning_s - learned * (case.waiting_s + case.collectives_s)) / whole,
        done.driver_busy_s / whole,
        done.syncing_s / whole,
    )
    return [f"{share:.0%}" for share in shares]


def _case(options: argparse.Namespace, model: str, answers: list[int], mode: str, size: int, *, prompts: int) -> Case:
    staleness, partial = _MODES[mode]
    asked = _question(options, model, answers, size, prompts=prompts, separate=staleness > 0)
    engines, _ = engines_of(asked, "rollout", asked.shape)
    update, first = learning.update(asked), learning.old_logprobs(asked)
    learned = [
        *([first] if first is not None else []),
        update,
        moving.gradients(asked, update),
        moving.optimizer(asked),
    ]
    moved = [p for p in (moving.sync(asked), moving.sleep(asked)) if p is not None]
    waits = update.excess["waiting for the slowest rank"] / update.ours.flops * update.ours_s
    driver = options.driver_ms / 1000 if options.driver_ms is not None else _driver_seconds(asked)
    hidden = asked.driver.hidden
    read = prefill(engines, asked.lengths[:1], best_number=1.0)
    number = asked.config.rollout.num_engines
    window = window_prompts(prompts, num_engines=number) if options.window is None else options.window
    setting = Setting(
        num_engines=number, slots=engines.fits(asked.lengths),
        token_seconds=token_clock(engines), prefill_s=read.ours_s, prompt=_PROMPT, window=window,
        prompts_per_step=prompts, driver_s=driver * hidden, driver_after_s=driver * (1 - hidden),
        learn_s=sum(p.ours_s for p in learned), sync_s=sum(p.ours_s for p in moved), colocated=staleness == 0,
        staleness=staleness, partial=partial,
    )  # fmt: skip
    groups = [list(a.answers) for a in asked.lengths]
    latencies = [n / 100 for n in log_normal(len(answers), mean=100, longest=500, seed=1)]
    exposed = sum(p.ours_s - _computed(p, asked) for p in learned)
    return Case(
        setting=setting, groups=groups, latencies=latencies, waiting_s=waits, collectives_s=exposed, ranks=asked.ranks
    )


def _question(
    options: argparse.Namespace, model: str, answers: list[int], size: int, *, prompts: int, separate: bool
) -> StepQuestion:
    ranks = size // 2 if separate else size
    flags = {
        "rollout.prompts_per_step": prompts, "rollout.samples_per_prompt": _SAMPLES, "policy.num_ranks": ranks,
        "rollout.num_engines": ranks, "policy.train_batch_size": prompts * _SAMPLES // _UPDATES,
        "policy.zero_stage": 3, "rollout.max_new_tokens": max(answers), "model.dtype": "bfloat16",
        "placement.layout": "separate" if separate else "colocated", "model.path": model, "data.path": "unread.jsonl",
        "rollout.staleness": int(separate),
    }  # fmt: skip
    config, _ = load_config(["--algo", "grpo", *(word for n, v in flags.items() for word in (f"--{n}", str(v)))])
    many = len(answers) // _SAMPLES
    groups = [tuple(answers[i * _SAMPLES : (i + 1) * _SAMPLES]) for i in range(many)]
    lengths = tuple(Asked(prompt=_PROMPT, image=_IMAGE, answers=groups[i % many]) for i in range(prompts))
    machine = Machine(gpu=GPU_KINDS[options.gpu], gpus_per_node=8, gpu_memory_gib=80.0)
    return StepQuestion(
        config=config, shape=model_counts(model), machine=machine, lengths=lengths, shares=True,
        backend="nccl" if separate else "ipc", driver=DriverCost(),
        weights=row_weights(AutoConfig.from_pretrained(model), tower_runs=True),
    )  # fmt: skip


def token_clock(engines: Engines) -> TokenSeconds:
    """``engines.token_seconds`` in plain numbers: it is asked at every event."""
    clocks: dict[int, tuple[float, float, float, float]] = {}

    def clock(running: int, context: float) -> float:
        if running not in clocks:
            none, some = (engines.token_work(running, at) for at in (0.0, 1.0))
            flops = [seconds(replace(w, memory=0.0), engines.machine, engines.reach) for w in (none, some)]
            memory = [seconds(replace(w, flops=0.0), engines.machine, engines.reach) for w in (none, some)]
            clocks[running] = (flops[0], flops[1] - flops[0], memory[0], memory[1] - memory[0])
        flat, slope, read, each = clocks[running]
        return max(flat + slope * context, read + each * context)

    return clock


def _computed(phase: Phase, asked: StepQuestion) -> float:
    work = replace(phase.ours, link=0.0, network=0.0, messages=0.0)
    return min(phase.ours_s, seconds(work, asked.machine, asked.reach))


def _driver_seconds(asked: StepQuestion) -> float:
    answers = [n for a in asked.lengths for n in a.answers]
    return asked.driver.fixed_s + asked.driver.token_s * sum(answers) / len(answers)


def _answers(options: argparse.Namespace) -> list[int]:
    if options.rollouts is None:
        return log_normal(_PROMPTS * _SAMPLES, mean=options.mean, longest=options.longest)
    found = [len(ids) for ids in pq.read_table(options.rollouts)["completion_ids"].to_pylist()]
    return found * math.ceil(_SAMPLES / len(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("--gpu", default="H100", choices=tuple(GPU_KINDS))
    parser.add_argument("--mode", nargs="+", default=list(_MODES), choices=tuple(_MODES))
    parser.add_argument("--constant", nargs="+", default=["work", "batch"], choices=("work", "batch"))
    parser.add_argument("--sizes", nargs="+", type=int, default=[2**i for i in range(3, 11)])
    parser.add_argument("--rollouts", type=Path)
    parser.add_argument("--mean", type=float, default=350.0)
    parser.add_argument("--longest", type=int, default=2048)
    parser.add_argument("--driver_ms", type=float)
    parser.add_argument("--window", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
