"""How long AdamW takes for so many numbers on this machine, by who computes it, and how far each is from the plain one.

    python -m benchmarks.adam --numbers 20000000 --threads 2 --cpuadam

DeepSpeed's CPUAdam compiles C++ at its first use, which takes minutes and is timed apart; ``--cpuadam`` asks for it.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.machine import machine_lines

_STEPS = 6
_OPTIONS: dict[str, Any] = {"lr": 1e-2, "betas": (0.9, 0.95), "weight_decay": 0.1}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--numbers", type=int, default=20_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cpuadam", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    makers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        "torch, plain": lambda some: torch.optim.AdamW(some, foreach=False, **_OPTIONS),
        "torch, foreach": lambda some: torch.optim.AdamW(some, foreach=True, **_OPTIONS),
        "torch, fused": lambda some: torch.optim.AdamW(some, fused=True, **_OPTIONS),
    }
    if options.cpuadam:
        from deepspeed.ops.adam import DeepSpeedCPUAdam  # deferred: it is slow to import

        makers["DeepSpeed, CPUAdam"] = lambda some: DeepSpeedCPUAdam(some, adamw_mode=True, **_OPTIONS)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(*machine_lines(), f"device: {device}, {options.threads} threads", sep="\n")  # noqa: T201
    print(f"\n| {options.numbers:,} numbers | made in s | a step, ms | gap after {_STEPS} steps |")  # noqa: T201
    print("|---|---|---|---|")  # noqa: T201
    plain: Tensor | None = None
    for name, maker in makers.items():
        made, took, found = _timed(maker, options.numbers, torch.device("cpu") if "CPU" in name else device)
        plain = found if plain is None else plain
        print(f"| {name} | {made:.1f} | {took * 1e3:.1f} | {float((found - plain).abs().max()):.1e} |", flush=True)  # noqa: T201


def _timed(
    maker: Callable[[list[nn.Parameter]], torch.optim.Optimizer], numbers: int, device: torch.device
) -> tuple[float, float, Tensor]:
    """Seconds to make the optimizer, seconds of its fastest step but the first, and what it made of the weights."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(numbers, generator=generator).to(device))
    start = time.perf_counter()
    optimizer = maker([weight])
    made, took = time.perf_counter() - start, []
    for _ in range(_STEPS):
        weight.grad = torch.randn(numbers, generator=generator).to(device)
        start = time.perf_counter()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return made, min(took[1:]), weight.detach().cpu()


if __name__ == "__main__":
    main()
