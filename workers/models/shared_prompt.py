"""Attention over a row in which several responses share one prompt, and several prompts one row.

    prompt        attends to itself, causally
    y_k           attends to its prompt and, causally, to itself

A mask of the row's full square would make every response pay for all others: K responses of length L cost (P + KL)²
there and P² + KL(P + L) here. Prompts and responses are cut out of the row, attended to as ordinary batches, and put
back. It is registered with transformers as an attention of its own; other batches go on to SDPA.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workers.multimodal.packing import Segments, Spans

NAME = "sdpa_shared_prompt"


class SegmentMask(Tensor):
    """What is handed through a model as its attention mask: four-dimensional, so that no model touches it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    segments: Segments
    response_sees: tuple[Tensor, ...]
    """For each batch of responses bool ``[S, 1, L, P + L]``: of the prompt, then of itself."""


def segment_mask(segments: Segments) -> SegmentMask:
    """The mask of a row with these segments, for ``attend``."""
    prompts = segments.prompts.real
    mask = prompts.new_empty(1, 1, 1, 1).as_subclass(SegmentMask)
    mask.segments = segments
    mask.response_sees = tuple(_sees(prompts[some.prompt_of], some.real) for some in segments.responses)
    return mask


def positions(segments: Segments, of_prompts: Tensor) -> Tensor:
    """Positions of the row: responses count on from the end of their prompt.

    Args:
        of_prompts: ``[G, P]`` or, with several axes, ``[A, G, P]``.
    Returns:
        ``[1, T]``, or ``[A, 1, T]``.
    """
    axes = of_prompts.unsqueeze(0) if of_prompts.ndim == 2 else of_prompts
    ends = axes.masked_fill(~segments.prompts.real, -1).amax(dim=(0, 2)) + 1
    parts = [axes.flatten(1)]
    for some in segments.responses:
        counted = ends[some.prompt_of][:, None] + torch.arange(some.positions.shape[1], device=ends.device)
        parts.append(counted.flatten().expand(len(axes), -1))
    row = torch.cat(parts, dim=1)[:, segments.found_at]
    return row if of_prompts.ndim == 2 else row.unsqueeze(1)


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
    """transformers' attention function: ``[1, heads, T, D]`` in, ``[1, T, heads, D]`` out.

    Raises:
        ValueError: the layer attends to a window only, which the segments do not know.
    """
    if not isinstance(attention_mask, SegmentMask):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if kwargs.get("sliding_window") is not None:
        raise ValueError("sliding-window attention cannot share prompts; use batching.mode = 'pairs'")
    at, groups = attention_mask.segments, query.shape[1] // key.shape[1]
    row_q, row_k, row_v = (t[0].transpose(0, 1) for t in (query, key, value))
    prompt_k, prompt_v = _cut(row_k, at.prompts, groups), _cut(row_v, at.prompts, groups)
    options: dict[str, Any] = {"dropout_p": dropout, "scale": scaling}
    # Filling is at the end, where nothing real sees it.
    parts = [scaled_dot_product_attention(_cut(row_q, at.prompts, 1), prompt_k, prompt_v, is_causal=True, **options)]
    for some, sees in zip(at.responses, attention_mask.response_sees, strict=True):
        keys = torch.cat([prompt_k.index_select(0, some.prompt_of), _cut(row_k, some, groups)], dim=2)
        values = torch.cat([prompt_v.index_select(0, some.prompt_of), _cut(row_v, some, groups)], dim=2)
        parts.append(scaled_dot_product_attention(_cut(row_q, some, 1), keys, values, attn_mask=sees, **options))
    joined = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return joined.index_select(0, at.found_at).unsqueeze(0), None


def register() -> None:
    """Make the attention known to transformers in this process."""
    AttentionInterface.register(NAME, attend)
    # Other batches are masked as for SDPA.
    AttentionMaskInterface.register(NAME, sdpa_mask)  # type: ignore[arg-type]


def _cut(row: Tensor, spans: Spans, repeats: int) -> Tensor:
    """``[T, heads, D]`` to ``[S, heads * repeats, L, D]``."""
    # Not by indexing, whose backward pass adds up one element after the other.
    cut = row.index_select(0, spans.positions.flatten()).view(*spans.positions.shape, *row.shape[1:])
    return repeat_kv(cut.transpose(1, 2), repeats)


def _sees(prompt_real: Tensor, real: Tensor) -> Tensor:
    longest = real.shape[1]
    # Filling has itself to look at, or its attention would be nothing but NaN.
    own = (_causal(longest, real.device) & real[:, None, :]) | torch.eye(longest, device=real.device).bool()
    return torch.cat([prompt_real[:, None, :].expand(-1, longest, -1), own], dim=2).unsqueeze(1)


def _causal(size: int, device: torch.device) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool, device=device).tril()
