"""The loop on one GPU: bfloat16, ZeRO-3, weights over IPC, and the figures that tell whether it is well.

python benchmarks/gpu_check.py MODEL PREFERENCES.jsonl [MEDIA_ROOT] [--attention flash_attention_2] [--sync ipc]

Prints tokens a second of rollout and training, the policy's MFU, seconds of a verified sync and the log-prob mismatch.
Refuses in one sentence on a machine without a GPU.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from machine import machine_lines

from orchestrator.cluster.memory_plan import model_shape

_PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "H800": 989.0, "A100": 312.0, "A800": 312.0, "L40S": 362.0, "4090": 165.0}
"""Dense bfloat16, from the vendor's data sheets."""
_FLOP_PER_TOKEN = 6
"""Forward and backward, per parameter; what is recomputed or only scored counts as none, so this is a lower bound."""
_SKIPPED = 2


def main() -> int:
    """Run the steps and print the figures; 2 without a GPU."""
    options = _options()
    if not torch.cuda.is_available():
        sys.stderr.write("refused: no GPU is visible to torch\n")
        return 2
    print("\n".join(machine_lines()))  # noqa: T201
    name = torch.cuda.get_device_name()
    print(f"GPU: {name}")  # noqa: T201
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(_command(options, Path(folder)), check=True)
        rows = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["step"] > _SKIPPED]
    figures = {key: statistics.mean(row[key] for row in rows) for key in rows[0] if row_is_number(rows, key)}
    trained = figures["length/mean"] * options.batch / figures["time/train_s"]
    flops = trained * _FLOP_PER_TOKEN * model_shape(options.model, ()).num_params
    peak = next((tflops for key, tflops in _PEAK_TFLOPS.items() if key in name), None)
    print(f"rollout: {figures['throughput/rollout_tokens_per_s']:.0f} tokens/s")  # noqa: T201
    print(f"training: {trained:.0f} sampled tokens/s, prompts not counted")  # noqa: T201
    mfu = f"{flops / peak / 1e12:.1%} of {peak:g} TFLOPS" if peak else f"{flops / 1e12:.1f} TFLOPS, peak unknown"
    print(f"MFU of the policy, scoring and update together: at least {mfu}")  # noqa: T201
    print(f"sync: {figures['sync/seconds']:.2f} s, probe gap {figures['sync/probe_gap']:.1e}")  # noqa: T201
    print(f"mismatch: mean {figures['mismatch/logprob_abs_mean']:.1e} nats a token")  # noqa: T201
    return 0


def row_is_number(rows: list[dict[str, float | None]], key: str) -> bool:
    """True where every row has a value."""
    return all(isinstance(row.get(key), int | float) for row in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("media_root", nargs="?")
    parser.add_argument("--attention", default="sdpa")
    parser.add_argument("--sync", default="ipc", choices=("ipc", "shared_memory"))
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    return parser.parse_args()


def _command(options: argparse.Namespace, run: Path) -> list[str]:
    media = ["--data.media_root", options.media_root] if options.media_root else []
    return [
        *(sys.executable, "-m", "orchestrator.train", "--algo", "stable_reinforce", "--run.dir", str(run)),
        *("--model.path", options.model, "--data.path", options.data, *media, "--model.dtype", "bfloat16"),
        *("--model.attention", options.attention, "--model.gradient_checkpointing", "true"),
        *("--policy.zero_stage", "3", "--sync.backend", options.sync, "--run.steps", str(options.steps)),
        *("--rollout.prompts_per_step", str(options.batch), "--policy.train_batch_size", str(options.batch)),
        *("--run.checkpoint_every", "1000000", "--rollout.gpu_memory_utilization", "0.4"),
    ]


if __name__ == "__main__":
    sys.exit(main())
