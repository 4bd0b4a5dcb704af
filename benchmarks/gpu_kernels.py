"""The trainer's two kernels alone: attention in two parts, and the head's log-probs, each against plain torch.

    PYTHONPATH=. python benchmarks/gpu_kernels.py [--small]

Needs torch, transformers and this repository; flash-attn, flash-attn-3 and flash-attn-4 where they are to be measured.
What cannot run here is named with the reason. The heads and widths are those of Qwen2.5-VL-7B, in bfloat16 on a GPU and
float32 on a CPU; ``--small`` takes sizes that a CPU does in seconds. Of each: milliseconds of forward and backward,
the most memory beside inputs (GPUs alone), arithmetic a second, and the gap to the plain way in float32.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from machine import machine_lines
from torch import Tensor, nn
from torch.nn.functional import linear

from algorithms.maths.logprobs import token_logprobs
from workers.models.attention_kernels import PlainKernel
from workers.models.flex_rows import flex_row, row_mask
from workers.models.fused_head import Reading, score_frozen, score_logits
from workers.models.shared_prompt import NAMES, kernel_for, two_parts
from workers.multimodal.packing import Segments, segments_of

_TURNS, _SECOND_PARTS = 5, 2.5
"""A backward pass of attention has five products of a forward pass's two."""


@dataclass(frozen=True)
class Sizes:
    """What is measured."""

    lengths: list[list[int]]
    heads: tuple[int, int]
    width: int
    tokens: int
    hidden: int
    vocabulary: int


_FULL = Sizes([[1200, *[400] * 8]] * 4, (28, 4), 128, tokens=16_384, hidden=3584, vocabulary=152_064)
_SMALL = Sizes([[60, 30, 7, 30], [33, 20]], (14, 2), 32, tokens=256, hidden=64, vocabulary=4096)


@dataclass(frozen=True)
class Figures:
    """Of one way."""

    seconds: float
    peak_gib: float | None
    results: tuple[Tensor, ...]
    """Output and gradients, in float32 on the CPU."""


def main() -> None:
    """Measure everything that runs here."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    sizes = _SMALL if parser.parse_args().small else _FULL
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    print("\n".join(machine_lines()))  # noqa: T201
    print(f"device: {torch.cuda.get_device_name() if device.type == 'cuda' else 'cpu'}, {dtype}")  # noqa: T201
    print("| what | ms | GiB | TFLOP/s | largest gap |\n| --- | --- | --- | --- | --- |")  # noqa: T201
    _measure_attention(sizes, device, dtype)
    _measure_head(sizes, device, dtype)


def _measure_attention(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
    at = segments_of(sizes.lengths).to(device)
    num_heads, key_heads = sizes.heads
    row = [_random(len(at.group), n, sizes.width).to(device, dtype) for n in (num_heads, key_heads, key_heads)]
    pull = _random(len(at.group), num_heads, sizes.width).to(device, dtype)
    scale = sizes.width**-0.5
    plain = partial(two_parts, at=at, kernel=PlainKernel(), scale=scale)
    wanted = _run(plain, [t.float() for t in row], pull.float(), turns=1).results
    pairs = sum(n * (n + 1) // 2 for own in sizes.lengths for n in own)
    pairs += sum(own[0] * sum(own[1:]) for own in sizes.lengths)
    flops = 4 * pairs * num_heads * sizes.width * (1 + _SECOND_PARTS)
    for name in NAMES:
        _report(f"attention, {name}", partial(_attention, name, at, scale), row, pull, flops, wanted)


def _attention(name: str, at: Segments, scale: float) -> Callable[..., Tensor]:
    if name != "flex_attention":
        return lambda q, k, v: two_parts(q, k, v, at, kernel=kernel_for(name, q), scale=scale)
    mask = row_mask(at)

    def attend(*row: Tensor) -> Tensor:
        q, k, v = (t.transpose(0, 1).unsqueeze(0) for t in row)
        return flex_row(q, k, v, mask, scale=scale)[0].transpose(0, 1)

    return attend


def _measure_head(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> None:
    hidden = _random(sizes.tokens, sizes.hidden).to(device, dtype)
    weight = (_random(sizes.vocabulary, sizes.hidden) / sizes.hidden**0.5).to(device, dtype)
    ids = torch.randint(sizes.vocabulary, (sizes.tokens,), generator=torch.Generator().manual_seed(1)).to(device)
    pull = _random(sizes.tokens).to(device)
    at_once = max(1, sizes.tokens // 8)

    def plain(states: Tensor, matrix: Tensor) -> Tensor:
        pieces = zip(states.split(at_once), ids.split(at_once), strict=True)
        return torch.cat([token_logprobs(linear(some, matrix), own).logprobs for some, own in pieces])

    def fused(states: Tensor, matrix: Tensor) -> Tensor:
        return score_logits(linear(states, matrix), ids, Reading()).logprobs

    head = nn.Linear(sizes.hidden, sizes.vocabulary, bias=False, device="meta")
    head.weight = nn.Parameter(weight, requires_grad=False)

    def frozen(states: Tensor) -> Tensor:
        return score_frozen(head, states, ids, Reading(), pieces=8).logprobs

    wanted = _exact_head(plain, hidden, weight, pull)
    flops = 2 * sizes.tokens * sizes.hidden * sizes.vocabulary
    _report("head, token_logprobs", lambda: plain, [hidden, weight], pull, 3 * flops, wanted)
    _report("head, fused", lambda: fused, [hidden, weight], pull, 3 * flops, wanted)
    _report("head, frozen", lambda: frozen, [hidden], pull, 2 * flops, wanted[:2])


def _exact_head(plain: Callable[..., Tensor], hidden: Tensor, weight: Tensor, pull: Tensor) -> tuple[Tensor, ...]:
    return _run(plain, [hidden.float(), weight.float()], pull, turns=1).results


def _report(
    what: str,
    make: Callable[[], Callable[..., Tensor]],
    inputs: list[Tensor],
    pull: Tensor,
    flops: float,
    wanted: tuple[Tensor, ...],
) -> None:
    try:
        found = _run(make(), inputs, pull, turns=_TURNS)
    except Exception as error:  # noqa: BLE001 - whatever keeps a package or kernel from running here is the finding
        reason = str(error).strip().split("\n")[0][:90]
        print(f"| {what} | not here: {type(error).__name__}: {reason} | | | |", flush=True)  # noqa: T201
        return
    gap = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found.results, wanted, strict=True))
    peak = "" if found.peak_gib is None else f"{found.peak_gib:.2f}"
    cells = f"{1e3 * found.seconds:.1f} | {peak} | {flops / found.seconds / 1e12:.3g} | {gap:.1e}"
    print(f"| {what} | {cells} |", flush=True)  # noqa: T201


def _run(way: Callable[..., Tensor], inputs: list[Tensor], pull: Tensor, *, turns: int) -> Figures:
    """One pass to warm up, and the median of some."""
    on_gpu = inputs[0].is_cuda
    learned = [t.detach().requires_grad_() for t in inputs]
    seconds: list[float] = []
    before, results = 0, ()
    for _ in range(turns + 1):
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        out = way(*learned)
        grads = torch.autograd.grad(out, learned, pull.to(out.dtype))
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        results = (out.detach(), *grads)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**30 if on_gpu else None
    return Figures(statistics.median(seconds[1:]), peak, tuple(t.float().cpu() for t in results))


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


if __name__ == "__main__":
    main()
