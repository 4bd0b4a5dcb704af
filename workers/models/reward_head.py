"""The scalar head of a reward model: a linear one, or the two layers of MM-RLHF's; and the folder it is kept in."""

import json
import math
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from workers.models.folder import REWARD_HEAD_CONFIG, REWARD_HEAD_FOLDER, has_reward_head

HeadKind = Literal["linear", "mlp"]

_WEIGHTS = "model.safetensors"
_BIAS = "bias"
# Every rank draws the same first layer, whatever else it has drawn.
_SEED = 0


class RewardHead(nn.Module):
    """``hidden -> 1``, in place of a language model's head. A new one gives every sequence the reward 0.

    ``linear`` has ``weight``, and ``bias`` where it is asked for: where rewards are only compared, it would cancel out.
    ``mlp`` is Linear → tanh → Linear, as released; its tensors are ``dense.*`` and ``out_proj.*``, with biases.
    The released one has dropout around tanh, which makes two forwards of one sequence disagree; here there is none.

    Source: MM-RLHF, llava_qwen.py:46-61, which starts from random rewards; the paper has a linear head, section 3.1
    """

    def __init__(
        self, kind: HeadKind, hidden_size: int, *, bias: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        """
        Args:
            bias: Of a linear head; an ``mlp`` has its own either way.
        Raises:
            ValueError: an unknown kind, or a size below 1.
        """
        super().__init__()
        if hidden_size < 1:
            raise ValueError(f"hidden_size = {hidden_size} must be at least 1")
        self.kind: HeadKind = kind
        if kind == "linear":
            self.weight = nn.Parameter(torch.zeros(1, hidden_size, dtype=dtype))
            self.bias = nn.Parameter(torch.zeros(1, dtype=dtype)) if bias else None
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
            return nn.functional.linear(hidden, self.weight, self.bias)
        return self.out_proj(self.dense(hidden).tanh())


def save_reward_head(
    kind: HeadKind, tensors: dict[str, Tensor], folder: Path, *, request: str | None, opening: str | None = None
) -> None:
    """Write the head of the model in ``folder``.

    Args:
        tensors: Its state, whole.
        request, opening: see ``algorithms.algorithm.ScalarHead``.
    """
    target = folder / REWARD_HEAD_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / _WEIGHTS)
    told = {"kind": kind, "request": request} | ({_BIAS: True} if _BIAS in tensors else {})
    told |= {} if opening is None else {"opening": opening}
    (folder / REWARD_HEAD_CONFIG).write_text(json.dumps(told) + "\n")


def load_reward_head(
    folder: Path, hidden_size: int, *, dtype: torch.dtype, kind: HeadKind | None = None, bias: bool = False
) -> RewardHead:
    """The head of the model in ``folder``; a new one where it has none.

    Args:
        kind: What the head must be; None takes the kind that was saved.
        bias: A linear head without a bias gets one, of 0, which changes no reward.
    Raises:
        ValueError: the saved head is of another kind or size, or there is none and no kind is named.
    """
    if not has_reward_head(folder):
        if kind is None:
            raise ValueError(f"{str(folder)!r} has no reward head (no {REWARD_HEAD_CONFIG})")
        return RewardHead(kind, hidden_size, bias=bias, dtype=dtype)
    source = folder / REWARD_HEAD_FOLDER
    told = json.loads((folder / REWARD_HEAD_CONFIG).read_text())
    saved, has_bias = told["kind"], told.get(_BIAS, False)
    if kind is not None and saved != kind:
        raise ValueError(f"{str(source)!r} holds a head of kind {saved!r}, asked for is {kind!r}")
    head = RewardHead(saved, hidden_size, bias=bias or has_bias, dtype=dtype)
    with safe_open(source / _WEIGHTS, framework="pt") as tensors:
        for name, parameter in head.named_parameters():
            if name == _BIAS and not has_bias:
                continue
            value = tensors.get_tensor(name)
            if value.shape != parameter.shape:
                raise ValueError(f"{str(source)!r}: {name} is {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            parameter.data.copy_(value)
    return head


def _uniform(hidden_size: int, dtype: torch.dtype) -> nn.Linear:
    """As torch starts a linear layer, but from a seed of its own."""
    layer = nn.Linear(hidden_size, hidden_size, dtype=dtype)
    bound, generator = 1.0 / math.sqrt(hidden_size), torch.Generator().manual_seed(_SEED)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer
