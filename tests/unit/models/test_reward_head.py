"""A reward model's head: how a new one starts, what it is called on disk, and what it refuses."""

import pytest
import torch

from workers.models.folder import REWARD_HEAD
from workers.models.reward_head import HeadKind, RewardHead


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_new_head_gives_every_position_the_reward_0_and_can_learn(kind: HeadKind, dtype: torch.dtype) -> None:
    head = RewardHead(kind, 4, dtype=dtype)
    rewards = head(torch.ones(2, 3, 4, dtype=dtype))
    assert rewards.shape == (2, 3, 1)
    assert rewards.dtype == dtype
    assert not rewards.any()
    rewards.sum().backward()
    last = head.weight if kind == "linear" else head.out_proj.weight
    assert last.grad is not None
    assert last.grad.any()


def test_heads_start_alike_whatever_was_drawn_before() -> None:
    first = RewardHead("mlp", 4).state_dict()
    torch.rand(7)
    again = RewardHead("mlp", 4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["dense.weight"].any()


def test_tensors_have_the_names_their_files_have() -> None:
    assert [f"score.{name}" for name in RewardHead("linear", 4).state_dict()] == [REWARD_HEAD]
    assert list(RewardHead("mlp", 4).state_dict()) == ["dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias"]


def test_a_linear_head_is_a_product() -> None:
    head = RewardHead("linear", 2)
    head.load_state_dict({"weight": torch.tensor([[2.0, -1.0]])})
    assert head(torch.tensor([[3.0, 5.0]])).tolist() == [[1.0]]


def test_an_unknown_kind_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match="kind = 'conv' must be 'linear' or 'mlp'"):
        RewardHead("conv", 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="hidden_size = 0 must be at least 1"):
        RewardHead("mlp", 0)
