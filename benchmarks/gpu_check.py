"""The loop on one GPU: bfloat16, ZeRO-3, weights over IPC; every phase's time against the least that it can take.

PYTHONPATH=. python benchmarks/gpu_check.py MODEL PREFERENCES.jsonl [MEDIA_ROOT] [--attention sdpa] [--sync ipc]
    [--steps 8] [--batch 64] [--section.key value ...]

Prints tokens a second of the rollout, the policy's MFU, seconds of a verified sync, the log-prob mismatch, the bound of
a step with the lengths that were met, and each phase's measured seconds beside it. Refuses in one sentence on a machine
without a GPU. Options of the run that follow are handed on and win.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from machine import machine_lines

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.plan import plan_run
from orchestrator.cluster.roofline.lengths import Lengths, drawn_lengths
from orchestrator.cluster.roofline.plan import machine_of_cluster, step_question
from orchestrator.cluster.roofline.step import StepBound, step_bound
from orchestrator.cluster.roofline.table import describe_bound_table, describe_excess, describe_lengths, describe_reach
from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.prompts import read_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder

_SKIPPED = 2
_ENCODED = 64
"""Prompts whose lengths stand for all."""
PHASES = {
    "rollout": ("prefill", "decode"),
    "reward": ("scalar rewards", "judge", "critiques"),
    "train": ("old log-probs", "reference", "values", "update", "critic's update", "gradients", "optimizer"),
    "sync": ("sync", "sleep and wake"),
}
"""What the clock of a run calls the phases of the bound; what is left of a step is the driver's."""


def main() -> int:
    """Run the steps and print the figures; 2 without a GPU."""
    options, rest = _parser().parse_known_args()
    if not torch.cuda.is_available():
        sys.stderr.write("refused: no GPU is visible to torch\n")
        return 2
    print("\n".join(machine_lines()))  # noqa: T201
    print(f"GPU: {torch.cuda.get_device_name()}")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        flags = [*_flags(options, Path(folder)), *rest]
        subprocess.run([sys.executable, "-m", "orchestrator.train", *flags], check=True)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if row["step"] > _SKIPPED]
        figures = {key: statistics.mean(row[key] for row in rows) for key in rows[0] if row_is_number(rows, key)}
        print(f"rollout: {figures['throughput/rollout_tokens_per_s']:.0f} tokens/s")  # noqa: T201
        print(f"sync: {figures['sync/seconds']:.2f} s, probe gap {figures['sync/probe_gap']:.1e}")  # noqa: T201
        print(f"mismatch: mean {figures['mismatch/logprob_abs_mean']:.1e} nats a token")  # noqa: T201
        try:
            lines = _against_bound(flags, RunFolder(Path(folder)).rollout_file(options.steps), figures)
        except RefusedInput as error:
            lines = [f"no bound: {error}"]
    print("\n".join(lines))  # noqa: T201
    return 0


def row_is_number(rows: list[dict[str, float | None]], key: str) -> bool:
    """True where every row has a value."""
    return all(isinstance(row.get(key), int | float) for row in rows)


def beside_bound(step: StepBound, figures: dict[str, float]) -> list[str]:
    """A table: what the clock measured, our plan's least seconds, the bound, and the share of it that was reached."""
    lines = ["| phase | measured s | ours s | bound s | reached |", "|---" * 5 + "|"]
    rest = figures["time/step_s"]
    rows = [(name, figures.get(f"time/{name}_s", 0.0), *step.seconds(*names)) for name, names in PHASES.items()]
    rest -= sum(measured for _, measured, _, _ in rows)
    rows += [("rest", rest, *step.seconds("driver")), ("step", figures["time/step_s"], step.bound_s, step.ours_s)]
    for name, measured, bound, ours in rows:
        reached = f"{bound / measured:.0%}" if measured else "-"
        lines.append(f"| {name} | {measured:.2f} | {ours:.2f} | {bound:.2f} | {reached} |")
    return lines


def _against_bound(flags: list[str], rollouts: Path, figures: dict[str, float]) -> list[str]:
    config, _ = load_config(flags)
    cluster, plan = plan_run(config)
    config, machine = settled_dtype(config, plan), machine_of_cluster(cluster)
    if machine is None:
        raise RefusedInput("the peak of this GPU is not known")
    asked = step_question(config, plan, machine, _lengths(config, rollouts))
    step = step_bound(asked)
    learned = sum(p.best.flops for p in step.phases if p.name in PHASES["train"])
    share = learned / figures["time/train_s"] / (machine.gpu.tflops * 1e12)
    return [
        f"MFU of the policy, scoring and update together: {share:.1%} of {machine.gpu.tflops:g} TFLOPS",
        *(describe_lengths(asked.lengths), *describe_bound_table(step), *describe_excess(step)),
        *(describe_reach(asked.reach), *beside_bound(step, figures)),
    ]


def _lengths(config: TrainConfig, rollouts: Path) -> Lengths:
    """Of the last step's answers, and of prompts like the first ones."""
    encoder = prompt_encoder(config)
    prompts = read_data(config).train.prompts
    ids = [encoder.encode(prompts[i]).prompt_ids for i in range(min(_ENCODED, len(prompts)))]
    images = [int((np.asarray(row) == encoder.config.image_token_id).sum()) for row in ids]
    answers = [len(row) for row in pq.read_table(rollouts)["completion_ids"].to_pylist()]
    mean = [round(statistics.mean(told)) for told in (map(len, ids), images)]
    return drawn_lengths(config, prompt=mean[0], image=mean[1], answers=answers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("media_root", nargs="?")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--sync", default="ipc", choices=("ipc", "shared_memory"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    return parser


def _flags(options: argparse.Namespace, run: Path) -> list[str]:
    media = ["--data.media_root", options.media_root] if options.media_root else []
    return [
        *("--algo", "stable_reinforce", "--run.dir", str(run)),
        *("--model.path", options.model, "--data.path", options.data, *media, "--model.dtype", "bfloat16"),
        *("--model.attention", options.attention, "--model.gradient_checkpointing", "true"),
        *("--policy.zero_stage", "3", "--sync.backend", options.sync, "--run.steps", str(options.steps)),
        *("--rollout.prompts_per_step", str(options.batch), "--policy.train_batch_size", str(options.batch)),
        *("--run.checkpoint_every", "1000000", "--rollout.gpu_memory_utilization", "0.4"),
    ]


if __name__ == "__main__":
    sys.exit(main())
