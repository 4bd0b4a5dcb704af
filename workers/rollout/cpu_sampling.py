"""Drawing tokens on a CPU: one number of a request's own stream a token, by inverting its distribution.

vLLM draws noise for every token of the vocabulary, which for a small model costs as much as its layers. Both are
samples of the same distribution, and both depend on the seed and on how many tokens it has drawn alone: a request that
waits while others are served goes on with the numbers that were its own.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor
from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

_AHEAD = 64


class Inversion:
    """Stands in for the last part of vLLM's sampler, and returns processed log-probs as it does."""

    def __init__(self) -> None:
        self._streams = WeakKeyDictionary[Generator, list[float]]()
        """What each generator has drawn ahead, last number first; gone with the generator, which its request keeps."""

    def __call__(
        self, logits: Tensor, generators: dict[int, Generator], k: Tensor | None, p: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Draw a token of each row.

        Args:
            logits: [requests, vocabulary], tempered and biased.
            generators: Of the rows that have a seed; the others share torch's own.
        Returns:
            Ids [requests] and log-probs [requests, vocabulary], float32. A row whose logits are no distribution (one is
            NaN or infinite) gets id 0 and log-probs of NaN, as from vLLM: who compares log-probs finds it.
        """
        logprobs = apply_top_k_top_p(logits, k, p).log_softmax(dim=-1, dtype=torch.float32)
        # Summed in float64: the chances of a large vocabulary's tail would be lost in float32.
        reached = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
        height = self._heights(len(logits), generators) * reached[:, -1]
        # Below the top, where rounding up would find nobody; strictly above it, so never what has no chance.
        height = torch.minimum(height, torch.nextafter(reached[:, -1], torch.zeros_like(height)))
        ids = torch.searchsorted(reached, height.unsqueeze(1), right=True).squeeze(1)
        return ids.masked_fill(reached[:, -1].isnan(), 0), logprobs

    def _heights(self, rows: int, generators: dict[int, Generator]) -> Tensor:
        heights = torch.rand(rows, dtype=torch.float64) if len(generators) < rows else torch.empty(rows).double()
        if generators:
            drawn = [self._next(generator) for generator in generators.values()]
            heights[list(generators)] = torch.tensor(drawn, dtype=torch.float64)
        return heights

    def _next(self, generator: Generator) -> float:
        """The generator's next number; so many are drawn at once that asking it is cheap."""
        numbers = self._streams.setdefault(generator, [])
        if not numbers:
            numbers += torch.rand(_AHEAD, dtype=torch.float64, generator=generator).flip(0).tolist()
        return numbers.pop()


def draw_by_inversion(worker: Any) -> None:
    """Let a worker of vLLM's sample so; vLLM's other model runner, for a CPU with Triton, draws in its own way."""
    last_part = getattr(worker.model_runner.sampler, "topk_topp_sampler", None)
    if last_part is not None:
        last_part.forward = Inversion()
