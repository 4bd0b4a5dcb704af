"""Flash attention of a GPU, whose kernels take stretches of any length as they are. Tests, which have none, run none.

``benchmarks/gpu_kernels.py`` holds each against ``PlainKernel``.
"""

from typing import Any

import torch
from torch import Tensor

from workers.models.attention_kernels import Look


class FlashKernel:
    """torch's flash attention on a GPU: FlashAttention 2, or a newer one that torch was told to call in its place.

    Source: torch 2.13, ``torch.nn.attention.varlen``, which keeps the log-sum-exp from its own backward pass
    """

    def __init__(self, newer: str | None = None) -> None:
        """
        Args:
            newer: ``FA3`` (package flash-attn-3) or ``FA4`` (flash-attn-4), from here on for all of this process.
        """
        if newer is not None:
            torch.nn.attention.activate_flash_attention_impl(newer)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        attend = torch.ops.aten._flash_attention_forward
        out, lse, *_ = attend(q, k, v, *_bounds(look), 0.0, look.causal, False, scale=look.scale)
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        pull = torch.ops.aten._flash_attention_backward
        unused = torch.zeros(2, dtype=torch.uint64, device=q.device)  # state of the dropout
        return pull(
            *(grad, q, k, v, out, lse, *_bounds(look), 0.0, look.causal, unused, torch.empty(0, device=q.device)),
            scale=look.scale,
        )


class FlashAttention2Kernel:
    """The package flash-attn, in its own build for this GPU.

    Source: flash-attn 2.8, ``flash_attn/flash_attn_interface.py``
    """

    def __init__(self) -> None:
        from flash_attn import flash_attn_interface  # type: ignore[import-not-found]

        self._package: Any = flash_attn_interface

    def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Look) -> tuple[Tensor, Tensor]:
        out, lse, *_ = self._package._flash_attn_varlen_forward(
            *(q, k, v, *_bounds(look)), dropout_p=0.0, softmax_scale=look.scale, causal=look.causal
        )
        return out, lse

    def backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, look: Look
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        self._package._flash_attn_varlen_backward(
            *(grad, q, k, v, out, lse, *grads, *_bounds(look)),
            dropout_p=0.0,
            softmax_scale=look.scale,
            causal=look.causal,
            window_size_left=-1,
            window_size_right=-1,
            softcap=0.0,
            alibi_slopes=None,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        return grads


def _bounds(look: Look) -> tuple[Tensor, Tensor, int, int]:
    return look.queries.on_device, look.keys.on_device, look.queries.longest, look.keys.longest
