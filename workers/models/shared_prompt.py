"""Attention over rows in which several responses share one prompt, without a mask over the whole row.

    a row         [prompt][y_1][y_2]..[y_K]
    prompt        attends to itself, causally
    y_k           attends to the prompt and, causally, to itself

A mask of the row's full square would make every response pay for the others: K responses of length L cost (P + KL)²
there and P² + KL(P + L) here. Prompts and responses are cut out of the rows, attended to as two ordinary batches, and
put back. It is registered with transformers as an attention of its own; batches without shared prompts go on to SDPA.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_shared_prompt"
_SHORTEST_CLASS = 16
"""Tokens; responses up to this length form one class, up to twice as much the next, and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Responses of similar length, filled up to the longest with any position."""

    positions: Tensor
    """int64 ``[S, L]``, in the flattened rows ``[B * T]``."""
    row_of: Tensor
    """int64 ``[S]``: the row of each response."""
    sees: Tensor
    """bool ``[S, 1, L, P + L]``: of the prompt, then of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Where prompts and responses are in the flattened rows ``[B * T]``."""

    prompts: Tensor
    """int64 ``[B, P]``, filled up with any position."""
    prompt_sees: Tensor
    """bool ``[B, 1, P, P]``."""
    responses: tuple[Responses, ...]
    """By length: a long one would make all others pay for it."""
    found_at: Tensor
    """int64 ``[B * T]``: each token's place in ``prompts`` followed by all ``responses``; padding points anywhere."""


class SegmentMask(Tensor):
    """What is handed through a model as its attention mask: four-dimensional, so that no model touches it."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    segments: Segments


def segment_mask(branch: Tensor) -> SegmentMask:
    """The mask of rows with these branches: int64 ``[B, T]``, 0 on prompts, k on the k-th response, -1 on padding.

    Branches of a row stand one after the other, as ``workers.multimodal.collate`` lays them out.
    """
    (num_rows, width), device = branch.shape, branch.device
    prompt_lens = (branch == 0).sum(dim=1)
    prompts, prompt_real = _spans(torch.zeros_like(prompt_lens), prompt_lens)
    present = torch.nn.functional.one_hot(branch.clamp(min=0), int(branch.max()) + 1).sum(dim=1)[:, 1:]
    starts = prompt_lens[:, None] + present.cumsum(dim=1) - present
    flat = [(prompts + width * torch.arange(num_rows, device=device)[:, None])[prompt_real]]
    real = [prompt_real.flatten()]
    responses: list[Responses] = []
    size_class = (present.clamp(min=1) / _SHORTEST_CLASS).log2().ceil().clamp(min=0).masked_fill(present == 0, -1)
    for wanted in range(int(size_class.max()) + 1):
        row_of, number = (size_class == wanted).nonzero(as_tuple=True)
        if not len(row_of):
            continue
        positions, is_real = _spans(starts[row_of, number], present[row_of, number])
        positions = positions + width * row_of[:, None]
        responses.append(Responses(positions=positions, row_of=row_of, sees=_sees(prompt_real[row_of], is_real)))
        flat.append(positions[is_real])
        real.append(is_real.flatten())
    found_at = torch.zeros(num_rows * width, dtype=torch.long, device=device)
    found_at[torch.cat(flat)] = torch.cat(real).nonzero().squeeze(1)
    mask = branch.new_empty(1, 1, 1, 1).as_subclass(SegmentMask)
    mask.segments = Segments(
        prompts=prompts + width * torch.arange(num_rows, device=device)[:, None],
        prompt_sees=_causal(prompts.shape[1], device).expand(num_rows, 1, -1, -1),
        responses=tuple(responses),
        found_at=found_at,
    )
    return mask


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: ``[B, heads, T, D]`` in, ``[B, T, heads, D]`` out.

    Raises:
        ValueError: the layer attends to a window only, which the segments do not know.
    """
    if not isinstance(attention_mask, SegmentMask):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if kwargs.get("sliding_window") is not None:
        raise ValueError("sliding-window attention cannot share prompts; use batching.mode = 'pairs'")
    at = attention_mask.segments
    groups = query.shape[1] // key.shape[1]
    rows, width = query.shape[0], query.shape[2]
    flat_q, flat_k, flat_v = (t.transpose(1, 2).flatten(0, 1) for t in (query, key, value))

    def cut(flat: Tensor, positions: Tensor, repeats: int = groups) -> Tensor:
        return repeat_kv(flat[positions].transpose(1, 2), repeats)

    prompt_k, prompt_v = cut(flat_k, at.prompts), cut(flat_v, at.prompts)
    options = {"dropout_p": dropout, "scale": scaling}
    parts = [
        scaled_dot_product_attention(
            cut(flat_q, at.prompts, 1), prompt_k, prompt_v, attn_mask=at.prompt_sees, **options
        )
    ]
    for some in at.responses:
        keys = torch.cat([prompt_k[some.row_of], cut(flat_k, some.positions)], dim=2)
        values = torch.cat([prompt_v[some.row_of], cut(flat_v, some.positions)], dim=2)
        queries = cut(flat_q, some.positions, 1)
        parts.append(scaled_dot_product_attention(queries, keys, values, attn_mask=some.sees, **options))
    joined = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return joined[at.found_at].view(rows, width, *joined.shape[1:]), None


def register() -> None:
    """Make the attention known to transformers in this process."""
    AttentionInterface.register(NAME, attend)
    # Batches without shared prompts are masked as for SDPA.
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _spans(starts: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Positions ``[N, longest]`` of spans, and which of them are real; the others repeat the last."""
    index = torch.arange(int(lengths.max()), device=lengths.device)
    real = index < lengths[:, None]
    return starts[:, None] + torch.minimum(index, lengths[:, None] - 1), real


def _sees(prompt_real: Tensor, real: Tensor) -> Tensor:
    """Whom responses see: bool ``[S, 1, L, P + L]`` from what of their prompts ``[S, P]`` and of themselves is real."""
    longest = real.shape[1]
    # Filling has itself to look at, or its attention would be nothing but NaN.
    own = (_causal(longest, real.device) & real[:, None, :]) | torch.eye(longest, device=real.device).bool()
    return torch.cat([prompt_real[:, None, :].expand(-1, longest, -1), own], dim=2).unsqueeze(1)


def _causal(size: int, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()
