"""The scalar head of a reward model: a linear one, or the two layers of MM-RLHF's."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

HeadKind = Literal["linear", "mlp"]

# Every rank draws the same first layer, whatever else it has drawn.
_SEED = 0


class RewardHead(nn.Module):
    """``hidden -> 1``, in place of a language model's head. A new one gives every sequence the reward 0.

    ``linear`` has one tensor, ``weight``, and no bias: rewards are compared, and a bias would cancel out.
    ``mlp`` is Linear → tanh → Linear, as released; its tensors are ``dense.*`` and ``out_proj.*``, with biases.
    The released one has dropout around tanh, which makes two forwards of one sequence disagree; here there is none.

    Source: MM-RLHF, llava_qwen.py:46-61, which starts from random rewards; the paper has a linear head, section 3.1
    """

    def __init__(self, kind: HeadKind, hidden_size: int, *, dtype: torch.dtype = torch.float32) -> None:
        """
        Raises:
            ValueError: an unknown kind, or a size below 1.
        """
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size = {hidden_size} must be at least 1")
        self.kind: HeadKind = kind
        if kind == "linear":
            self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype))
        elif kind == "mlp":
            self.dense = _uniform(hidden_size, dtype)
            self.out_proj = nn.Linear(hidden_size, 1, dtype=dtype)
            nn.init.zeros_(self.out_proj.weight)
            nn.init.zeros_(self.out_proj.bias)
        else:
            raise ValueError(f"kind = {kind!r} must be 'linear' or 'mlp'")

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., H]`` to ``[..., 1]``."""
        if self.kind == "linear":
            return nn.functional.linear(hidden, self.weight)
        return self.out_proj(self.dense(hidden).tanh())


def _uniform(hidden_size: int, dtype: torch.dtype) -> nn.Linear:
    """As torch starts a linear layer, but from a seed of its own."""
    layer = nn.Linear(hidden_size, hidden_size, dtype=dtype)
    bound, generator = 1.0 / math.sqrt(hidden_size), torch.Generator().manual_seed(_SEED)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
