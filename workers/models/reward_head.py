"""The scalar head of a reward model, and the folder it is kept in beside the weights of its language model."""

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

RewardHeadKind = Literal["linear", "mlp"]

REWARD_HEAD_FOLDER = "reward_head"
"""Beside the weights and not among them, so that transformers and vLLM load the folder as the plain model it is."""
_WEIGHTS, _CONFIG = "model.safetensors", "config.json"


class RewardHead(nn.Module):
    """``hidden -> 1``: linear without bias, as rewards are only compared; or the released two layers with tanh.

    The last layer begins at zero, so that every first reward is 0 and a pair's first loss ln 2.

    Source: linear: MM-RLHF, section 3.1, https://arxiv.org/abs/2502.10391; mlp: its release, llava_qwen.py:46-61,
        whose dropout is left out
    """

    def __init__(self, kind: RewardHeadKind, hidden_size: int, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.kind = kind
        self.dense = nn.Linear(hidden_size, hidden_size, dtype=dtype) if kind == "mlp" else None
        self.out_proj = nn.Linear(hidden_size, 1, bias=kind == "mlp", dtype=dtype)
        for parameter in self.out_proj.parameters():
            nn.init.zeros_(parameter)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[N]`` rewards of ``[N, H]`` hidden states."""
        if self.dense is not None:
            hidden = torch.tanh(self.dense(hidden))
        return self.out_proj(hidden).squeeze(-1)


def save_reward_head(kind: RewardHeadKind, tensors: dict[str, Tensor], folder: Path, *, request: str | None) -> None:
    """Write the head of the model in ``folder``.

    Args:
        tensors: Its state, whole.
        request: What the model was asked before it wrote a critique; None for one that writes none.
    """
    target = folder / REWARD_HEAD_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / _WEIGHTS)
    (target / _CONFIG).write_text(json.dumps({"kind": kind, "request": request}) + "\n")


def has_reward_head(folder: Path) -> bool:
    """True where the model in ``folder`` has a head."""
    return (folder / REWARD_HEAD_FOLDER / _CONFIG).is_file()


def critique_request(folder: Path) -> str:
    """What the critique reward model in ``folder`` was asked when it was trained.

    Raises:
        ValueError: it has no head, or writes no critiques.
    """
    config = folder / REWARD_HEAD_FOLDER / _CONFIG
    request = json.loads(config.read_text())["request"] if config.is_file() else None
    if request is None:
        raise ValueError(
            f"{str(folder)!r} is no critique reward model (no {REWARD_HEAD_FOLDER}/{_CONFIG} with a request)"
        )
    return request


def load_reward_head(
    folder: Path, hidden_size: int, *, dtype: torch.dtype, kind: RewardHeadKind | None = None, seed: int = 0
) -> RewardHead:
    """The head of the model in ``folder``; a new one where it has none.

    Args:
        kind: What the head must be; None takes the kind that was saved.
        seed: Of a new head's first layer.
    Raises:
        ValueError: the saved head is of another kind or size, or there is none and no kind is named.
    """
    if not has_reward_head(folder):
        if kind is None:
            raise ValueError(f"{str(folder)!r} has no reward head (no {REWARD_HEAD_FOLDER}/{_CONFIG})")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return RewardHead(kind, hidden_size, dtype=dtype)
    source = folder / REWARD_HEAD_FOLDER
    saved = json.loads((source / _CONFIG).read_text())["kind"]
    if kind is not None and saved != kind:
        raise ValueError(f"{str(source)!r} holds a head of kind {saved!r}, asked for is {kind!r}")
    head = RewardHead(saved, hidden_size, dtype=dtype)
    with safe_open(source / _WEIGHTS, framework="pt") as tensors:
        for name, parameter in head.named_parameters():
            value = tensors.get_tensor(name)
            if value.shape != parameter.shape:
                raise ValueError(f"{str(source)!r}: {name} is {tuple(value.shape)}, expected {tuple(parameter.shape)}")
            parameter.data.copy_(value)
    return head
