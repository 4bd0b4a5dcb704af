"""FlexAttention over a packed row: the whole row's mask, of which blocks that nobody sees cost nothing.

Its backward pass takes no log-sum-exp from outside; but its mask says at once what ``shared_prompt`` does in two parts.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from workers.multimodal.packing import Segments


def row_mask(at: Segments) -> BlockMask:
    """Who sees whom in a row of these segments, in blocks of 128 x 128 tokens."""
    is_prompt = torch.ones_like(at.group, dtype=torch.bool)
    is_prompt[at.responses] = False

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_its_prompt = is_prompt[key] & (at.group[query] == at.group[key])
        return (query >= key) & (of_its_prompt | (at.piece[query] == at.piece[key]))

    size = len(at.group)
    make: Any = _compiled(create_block_mask) if at.group.is_cuda else create_block_mask
    return make(sees, None, None, size, size, device=at.group.device)


def flex_row(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, *, scale: float) -> Tensor:
    """``[1, heads, T, D]`` in and out; keys and values may have fewer heads.

    Raises:
        NotImplementedError: by torch, for a backward pass on a CPU.
    """
    attend: Any = _compiled(flex_attention) if query.is_cuda else flex_attention
    return attend(query, key, value, block_mask=mask, scale=scale, enable_gqa=True)


@cache
def _compiled(function: Any) -> Any:
    return torch.compile(function, dynamic=True)
