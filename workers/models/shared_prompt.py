"""Attention over a row in which several responses share one prompt, and several prompts one row.

    prompt        attends to itself, causally
    y_k           attends to its prompt and, causally, to itself

A mask of the row's full square would make every response pay for all others: K responses of length L cost (P + KL)²
there and P² + KL(P + L) here. So it is done in two parts, either of which a flash kernel can do: every piece of the row
attends causally to itself, and the responses of a prompt, end to end, attend to all of that prompt. It is registered
with transformers as an attention of its own; other batches go on to SDPA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Self

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from workers.models.attention_kernels import (
    CpuKernel,
    EfficientKernel,
    Kernel,
    Look,
    PlainKernel,
)
from workers.models.flash_kernels import FlashAttention2Kernel, FlashKernel
from workers.models.flex_rows import flex_row, row_mask
from workers.multimodal.packing import Segments

# transformers loads packages for names with "flash" in them.
NAMES = {
    "sdpa": "shared_prompt_sdpa",
    "eager": "shared_prompt_plain",
    "flash_attention_2": "shared_prompt_fa2",
    "flash_attention_3": "shared_prompt_fa3",
    "flash_attention_4": "shared_prompt_fa4",
    "flex_attention": "shared_prompt_flex",
}
"""For each ``model.attention`` what transformers knows it by, in a language model that sees packed rows."""

_SAY_NOTHING = {"position_ids", "use_cache", "output_hidden_states", "output_attentions", "is_causal"}
"""What layers hand on that changes no score: positions are in queries and keys already."""
_MOST_FLASH_WIDTH = 256
"""Numbers of a head, a multiple of 8, that flash kernels take."""
_FLASH_MAJORS = {
    "flash_attention_2": range(8, 99),
    "flash_attention_3": range(9, 10),
    "flash_attention_4": range(9, 11),
}
"""Compute capabilities, before the point, of the GPUs that each runs on.

Source: flash-attn 2.8, README; torch 2.13, ``torch/nn/attention/_fa3.py`` and ``_fa4.py``
"""


class SegmentMask(Tensor):
    """What is handed through a model as its attention mask: four-dimensional, so that no model touches it."""

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    segments: Segments
    blocks: Any
    """The mask in FlexAttention's form, made by the first layer that asks for it."""


def segment_mask(segments: Segments) -> SegmentMask:
    """The mask of a row with these segments, for ``attend``."""
    mask = segments.real.new_empty(1, 1, 1, 1).as_subclass(SegmentMask)
    mask.segments, mask.blocks = segments, None
    return mask


def positions(segments: Segments, of_prompts: Tensor) -> Tensor:
    """Positions of the row: responses count on from the end of their prompt.

    Args:
        of_prompts: ``[G, P]`` or, with several axes, ``[A, G, P]``.
    Returns:
        ``[1, T]``, or ``[A, 1, T]``.
    """
    axes = of_prompts.unsqueeze(0) if of_prompts.ndim == 2 else of_prompts
    ends = axes.masked_fill(~segments.real, -1).amax(dim=(0, 2)) + 1
    row = (ends[segments.group] + segments.offset).repeat(len(axes), 1)
    # Filling is written where the last token of its prompt is, with that token's positions.
    last = segments.real.sum(dim=1, keepdim=True) - 1
    filled = axes.where(segments.real, axes.gather(2, last.expand(len(axes), -1, -1)))
    row[:, segments.prompts.flatten()] = filled.flatten(1)
    return row if of_prompts.ndim == 2 else row.unsqueeze(1)


class _InTwoParts(torch.autograd.Function):
    """Softmax attention of a row's tokens, with keys in two disjoint parts A and B.

    Let S be the scores of a query, L_A and L_B the log-sum-exps of those in A and B, O_A and O_B the outputs of
    attending to one part alone. Over both, the log-sum-exp is L = log(exp L_A + exp L_B), a key's weight is
    P = exp(S - L), which is exp(S - L_A) exp(L_A - L) in A, and so the output O = exp(L_A - L) O_A + exp(L_B - L) O_B.

    Backward, with dO the output's gradient: dV_j = sum_i P_ij dO_i, and dS_ij = P_ij (dO_i·V_j - sum_l P_il dO_i·V_l),
    where the sum over the keys of both parts is dO_i·O_i. So a part needs no more of the other than L and O: a kernel
    that computes exp(S - its log-sum-exp) and dO·(its output) is given those of both parts in place of its own, and
    returns exactly what its part contributes. dQ is the sum of both contributions.

    Source: joining by log-sum-exps as in Ring Attention, https://arxiv.org/abs/2310.01889; backward of one part as in
    FlashAttention-2, https://arxiv.org/abs/2307.08691, section 3.1.2
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, at: Segments, kernel: Kernel, scale: float) -> Tensor:
        """``[T, heads, D]``."""
        itself, prompt = _looks(at, scale)
        out, lse = kernel.forward(q, k, v, itself)
        if len(at.responses):
            out_b, lse_b = kernel.forward(_rows(q, at.responses), _rows(k, at.answered), _rows(v, at.answered), prompt)
            out_a, lse_a = _rows(out, at.responses), lse.index_select(1, at.responses)
            share = torch.sigmoid(lse_b - lse_a)  # exp(L_B - L)
            joined = torch.lerp(out_a.to(lse.dtype), out_b.to(lse.dtype), share.mT.unsqueeze(-1))
            out.index_copy_(0, at.responses, joined.to(out.dtype))
            lse.index_copy_(1, at.responses, torch.logaddexp(lse_a, lse_b))
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.told = at, kernel, scale
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out, lse = ctx.saved_tensors
        at, kernel, scale = ctx.told
        itself, prompt = _looks(at, scale)
        grad = grads[0].contiguous()
        dq, dk, dv = kernel.backward(grad, q, k, v, out, lse, itself)
        if len(at.responses):
            of_responses, of_prompts = partial(_rows, at=at.responses), partial(_rows, at=at.answered)
            more = kernel.backward(
                *(of_responses(grad), of_responses(q), of_prompts(k), of_prompts(v), of_responses(out)),
                *(lse.index_select(1, at.responses), prompt),
            )
            for own, other, where in zip((dq, dk, dv), more, (at.responses, at.answered, at.answered), strict=True):
                own.index_copy_(0, where, other.add_(_rows(own, where)))
        return dq, dk, dv, None, None, None


def two_parts(q: Tensor, k: Tensor, v: Tensor, at: Segments, *, kernel: Kernel, scale: float) -> Tensor:
    """Attention of a row's tokens, each as its segment asks.

    Args:
        q: ``[T, heads, D]``.
        k: ``[T, key heads, D]``, and v too.
    Returns:
        ``[T, heads, D]``.
    """
    return _InTwoParts.apply(q, k, v, at, kernel, scale)  # type: ignore[return-value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a device and torch's build for it have."""

    capability: tuple[int, int] | None
    """Compute capability; None of a CPU."""
    has_flash: bool = True
    """torch was built with flash attention."""

    @classmethod
    def of(cls, device: torch.device) -> Self:
        """Of this machine's device."""
        if device.type != "cuda":
            return cls(capability=None)
        has_flash = torch.backends.cuda.is_flash_attention_available()
        return cls(capability=torch.cuda.get_device_capability(device), has_flash=has_flash)


def kernel_name(attention: str, card: Card, *, dtype: torch.dtype, width: int) -> str:
    """What computes ``model.attention`` there, for heads of this width.

    Raises:
        ValueError: nothing does, in one sentence with what would.
    """
    told = f"model.attention = {attention!r} with heads of {width} numbers in {str(dtype).removeprefix('torch.')}"
    if attention in ("eager", "flex_attention"):
        return attention
    if card.capability is None:
        if attention == "sdpa":
            return "cpu"
        raise ValueError(f"{told} needs a GPU; use 'sdpa'")
    fits = dtype != torch.float32 and width % 8 == 0 and width <= _MOST_FLASH_WIDTH
    major = card.capability[0]
    if attention in _FLASH_MAJORS:
        if fits and major in _FLASH_MAJORS[attention]:
            return attention
        raise ValueError(f"{told} does not run on compute capability {major}.{card.capability[1]}; use 'sdpa'")
    if fits and card.has_flash and major in _FLASH_MAJORS["flash_attention_2"]:
        return "sdpa"
    aligned = width * dtype.itemsize % 16 == 0
    if aligned and (major >= 8 or dtype != torch.bfloat16):
        return "efficient"
    raise ValueError(f"{told} does not run on compute capability {major}.{card.capability[1]}; use 'eager'")


def kernel_for(attention: str, q: Tensor) -> Kernel:
    """What computes ``model.attention`` for queries like these."""
    return _made(kernel_name(attention, Card.of(q.device), dtype=q.dtype, width=q.shape[-1]))


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    attention: str = "sdpa",
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention function: ``[1, heads, T, D]`` in, ``[1, T, heads, D]`` out.

    Args:
        attention: One of ``NAMES``.
    Raises:
        ValueError: the layer asks for what the two parts do not do, as a window or a cap on scores.
    """
    if not isinstance(attention_mask, SegmentMask):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    asked = {name for name, told in kwargs.items() if name not in _SAY_NOTHING and not (told is None or told is False)}
    if asked or dropout:
        raise ValueError(
            f"attention with {', '.join(sorted(asked)) or 'dropout'} cannot share prompts; use batching.mode = 'pairs'"
        )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if attention == "flex_attention":
        if attention_mask.blocks is None:
            attention_mask.blocks = row_mask(attention_mask.segments)
        return flex_row(query, key, value, attention_mask.blocks, scale=scale).transpose(1, 2), None
    q, k, v = (t[0].transpose(0, 1).contiguous() for t in (query, key, value))
    out = two_parts(q, k, v, attention_mask.segments, kernel=kernel_for(attention, query), scale=scale)
    return out.unsqueeze(0), None


def register() -> None:
    """Make the attention known to transformers in this process."""
    for attention, name in NAMES.items():
        AttentionInterface.register(name, partial(attend, attention=attention))
        # Other batches are masked as for SDPA.
        AttentionMaskInterface.register(name, sdpa_mask)  # type: ignore[arg-type]


_KERNELS: dict[str, Callable[[], Kernel]] = {
    "eager": PlainKernel,
    "cpu": CpuKernel,
    "efficient": EfficientKernel,
    "sdpa": FlashKernel,
    "flash_attention_2": FlashAttention2Kernel,
    "flash_attention_3": partial(FlashKernel, "FA3"),
    "flash_attention_4": partial(FlashKernel, "FA4"),
}


@cache
def _made(name: str) -> Kernel:
    return _KERNELS[name]()


def _looks(at: Segments, scale: float) -> tuple[Look, Look]:
    return Look(at.pieces, at.pieces, True, scale), Look(at.prompted, at.prompting, False, scale)


def _rows(t: Tensor, at: Tensor) -> Tensor:
    # Not by indexing, which is slower.
    return t.index_select(0, at)
