"""Processor time of one layer's attention over a packed row, forward and backward, against what there was before.

    PYTHONPATH=. python benchmarks/attention.py [tiny] [realistic] [four] [7b]

before      responses padded in classes of length, each with a copy of its prompt's keys, copied once more for every
            query head, under a dense mask (commit ec7ea54)
plain       two parts, in matrix products
two parts   two parts, torch's flash kernel of a CPU

The shapes are those of ``vs_trl_grpo.py`` (tiny, realistic), of ``vs_trl_dpo.py`` (four), and the heads of
Qwen2.5-VL-7B. Lengths of answers are drawn as a random model ends them.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from machine import machine_lines
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from workers.models.attention_kernels import CpuKernel, PlainKernel
from workers.models.shared_prompt import two_parts
from workers.multimodal.packing import segments_of

_TURNS = 7


@dataclass(frozen=True)
class Shape:
    """A row and a layer."""

    heads: int
    key_heads: int
    width: int
    prompts: int
    prompt_len: int
    responses: int
    mean_len: int
    most: int
    """Tokens of the longest answer; equal to ``mean_len`` where all are as long."""


SHAPES = {
    "tiny": Shape(heads=4, key_heads=2, width=32, prompts=8, prompt_len=24, responses=8, mean_len=128, most=128),
    "realistic": Shape(heads=12, key_heads=6, width=32, prompts=8, prompt_len=276, responses=8, mean_len=80, most=256),
    "four": Shape(heads=8, key_heads=4, width=32, prompts=4, prompt_len=470, responses=4, mean_len=40, most=40),
    "7b": Shape(heads=28, key_heads=4, width=128, prompts=1, prompt_len=1024, responses=8, mean_len=200, most=512),
}


def main() -> None:
    """Time every shape that is asked for."""
    print("\n".join(machine_lines()), f"threads: {torch.get_num_threads()}", sep="\n")  # noqa: T201
    print("| shape | tokens | before, ms | plain, ms | two parts, ms | faster than before |")  # noqa: T201
    print("| --- | --- | --- | --- | --- | --- |")  # noqa: T201
    for name in sys.argv[1:] or SHAPES:
        shape = SHAPES[name]
        lengths = drawn_lengths(shape)
        at = segments_of(lengths)
        ways: list[Callable[[Tensor, Tensor, Tensor], Tensor]] = [
            Before(lengths),
            *(partial(two_parts, at=at, kernel=k, scale=shape.width**-0.5) for k in (PlainKernel(), CpuKernel())),
        ]
        before, plain, now = timed(ways, shape, len(at.group))
        cells = f"{before:.1f} | {plain:.1f} | {now:.1f} | {before / now:.2f}x"
        print(f"| {name} | {len(at.group)} | {cells} |", flush=True)  # noqa: T201


def drawn_lengths(shape: Shape) -> list[list[int]]:
    """For each prompt its length and those of its responses."""
    rng = np.random.default_rng(0)
    if shape.mean_len == shape.most:
        return [[shape.prompt_len, *[shape.most] * shape.responses]] * shape.prompts
    drawn = np.minimum(rng.geometric(1 / shape.mean_len, (shape.prompts, shape.responses)), shape.most)
    return [[shape.prompt_len, *row] for row in drawn.tolist()]


def timed(ways: list[Callable[[Tensor, Tensor, Tensor], Tensor]], shape: Shape, num_tokens: int) -> list[float]:
    """Median milliseconds of each way, taken in turns; their results agree."""
    generator = torch.Generator().manual_seed(0)
    heads = (shape.heads, shape.key_heads, shape.key_heads)
    row = [torch.randn(num_tokens, n, shape.width, generator=generator).requires_grad_() for n in heads]
    pull = torch.randn(num_tokens, shape.heads, shape.width, generator=generator)
    seconds: list[list[float]] = [[] for _ in ways]
    results = []
    for turn in range(_TURNS + 1):
        for way, taken in zip(ways, seconds, strict=True):
            start = time.process_time()
            out = way(*row)
            grads = torch.autograd.grad(out, row, pull)
            taken.append(time.process_time() - start)
            if turn == 0:
                results.append((out.detach(), *grads))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)
    return [1e3 * statistics.median(taken[1:]) for taken in seconds]


class Before:
    """The attention of commit ec7ea54."""

    def __init__(self, lengths: list[list[int]]) -> None:
        """
        Args:
            lengths: see ``drawn_lengths``.
        """
        ends = np.cumsum([n for own in lengths for n in own]).tolist()
        spans = [(end, n, g, k) for end, (n, g, k) in zip(ends, _each(lengths), strict=True)]
        classes: dict[int, list[tuple[int, int, int]]] = {}
        for end, n, group, k in spans:
            size = -1 if k == 0 else max(0, (n - 1) // 16).bit_length()
            classes.setdefault(size, []).append((end - n, n, group))
        self.prompts, *self.responses = (_Spans(classes[size]) for size in sorted(classes))
        everyone = [self.prompts, *self.responses]
        real = torch.cat([b.real.flatten() for b in everyone])
        self.found_at = torch.zeros(ends[-1], dtype=torch.long)
        self.found_at[torch.cat([b.positions.flatten() for b in everyone])[real]] = real.nonzero().squeeze(1)
        self.sees = [_sees(self.prompts.real[b.prompt_of], b.real) for b in self.responses]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """``[T, heads, D]`` in and out."""
        groups = q.shape[1] // k.shape[1]
        keys, values = self.prompts.cut(k, groups), self.prompts.cut(v, groups)
        parts = [scaled_dot_product_attention(self.prompts.cut(q, 1), keys, values, is_causal=True)]
        for some, sees in zip(self.responses, self.sees, strict=True):
            own_k = torch.cat([keys.index_select(0, some.prompt_of), some.cut(k, groups)], dim=2)
            own_v = torch.cat([values.index_select(0, some.prompt_of), some.cut(v, groups)], dim=2)
            parts.append(scaled_dot_product_attention(some.cut(q, 1), own_k, own_v, attn_mask=sees))
        return torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts]).index_select(0, self.found_at)


class _Spans:
    def __init__(self, spans: list[tuple[int, int, int]]) -> None:
        starts, lengths, self.prompt_of = (torch.tensor(column) for column in zip(*spans, strict=True))
        index = torch.arange(int(lengths.max()))
        self.positions = starts[:, None] + torch.minimum(index, lengths[:, None] - 1)
        self.real = index < lengths[:, None]

    def cut(self, row: Tensor, repeats: int) -> Tensor:
        some = row.index_select(0, self.positions.flatten()).view(*self.positions.shape, *row.shape[1:])
        return some.transpose(1, 2).repeat_interleave(repeats, dim=1)


def _each(lengths: list[list[int]]) -> list[tuple[int, int, int]]:
    return [(n, group, k) for group, own in enumerate(lengths) for k, n in enumerate(own)]


def _sees(prompt_real: Tensor, real: Tensor) -> Tensor:
    longest = real.shape[1]
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    own = (causal & real[:, None, :]) | torch.eye(longest).bool()
    return torch.cat([prompt_real[:, None, :].expand(-1, longest, -1), own], dim=2).unsqueeze(1)


if __name__ == "__main__":
    main()
