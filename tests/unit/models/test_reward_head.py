"""A reward model's head: how a new one starts, what it is called on disk, and what it refuses."""

from pathlib import Path

import pytest
import torch

from workers.models.folder import REWARD_HEAD_CONFIG, critique_request
from workers.models.reward_head import HeadKind, RewardHead, load_reward_head, save_reward_head


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


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_head_comes_back_from_its_folder_bit_by_bit(kind: HeadKind, tmp_path: Path) -> None:
    head = RewardHead(kind, 4)
    torch.nn.init.normal_(next(iter(head.parameters())))
    save_reward_head(kind, dict(head.named_parameters()), tmp_path, request="why ?")
    again = load_reward_head(tmp_path, 4, dtype=torch.float32)
    assert again.kind == kind
    assert all(torch.equal(again.state_dict()[name], value) for name, value in head.state_dict().items())
    assert critique_request(tmp_path) == "why ?"


def test_a_head_of_another_kind_or_size_is_refused(tmp_path: Path) -> None:
    save_reward_head("linear", dict(RewardHead("linear", 4).named_parameters()), tmp_path, request=None)
    with pytest.raises(ValueError, match="of kind 'linear', asked for is 'mlp'"):
        load_reward_head(tmp_path, 4, dtype=torch.float32, kind="mlp")
    with pytest.raises(ValueError, match=r"weight is \(1, 4\), expected \(1, 5\)"):
        load_reward_head(tmp_path, 5, dtype=torch.float32)
    with pytest.raises(ValueError, match="is no critique reward model"):
        critique_request(tmp_path)


def test_a_folder_without_a_head_gives_a_new_one_of_the_kind_asked_for(tmp_path: Path) -> None:
    assert load_reward_head(tmp_path, 4, dtype=torch.float32, kind="mlp").kind == "mlp"
    with pytest.raises(ValueError, match="has no reward head"):
        load_reward_head(tmp_path, 4, dtype=torch.float32)


def test_a_linear_head_is_a_product() -> None:
    head = RewardHead("linear", 2)
    head.load_state_dict({"weight": torch.tensor([[2.0, -1.0]])})
    assert head(torch.tensor([[3.0, 5.0]])).tolist() == [[1.0]]


def test_a_bias_is_added_to_every_reward_and_learns() -> None:
    head = RewardHead("linear", 2, bias=True)
    head.load_state_dict({"weight": torch.tensor([[2.0, -1.0]]), "bias": torch.tensor([0.5])})
    rewards = head(torch.tensor([[3.0, 5.0], [0.0, 0.0]]))
    assert rewards.tolist() == [[1.5], [0.5]]
    rewards.sum().backward()
    assert head.bias is not None and head.bias.grad is not None and head.bias.grad.tolist() == [2.0]


def test_a_head_without_a_bias_gets_one_of_0_where_it_is_asked_for(tmp_path: Path) -> None:
    save_reward_head("linear", {"weight": torch.tensor([[2.0, -1.0]])}, tmp_path, request=None)
    assert list(load_reward_head(tmp_path, 2, dtype=torch.float32).state_dict()) == ["weight"]
    head = load_reward_head(tmp_path, 2, dtype=torch.float32, bias=True)
    assert {name: value.tolist() for name, value in head.state_dict().items()} == {"weight": [[2, -1]], "bias": [0]}


def test_a_head_with_a_bias_comes_back_with_it_also_where_none_is_asked_for(tmp_path: Path) -> None:
    tensors = {"weight": torch.tensor([[2.0, -1.0]]), "bias": torch.tensor([0.5])}
    save_reward_head("linear", tensors, tmp_path, request=None)
    for bias in (False, True):
        again = load_reward_head(tmp_path, 2, dtype=torch.float32, kind="linear", bias=bias).state_dict()
        assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_a_new_head_has_a_bias_where_it_is_asked_for(tmp_path: Path) -> None:
    assert list(RewardHead("linear", 2).state_dict()) == ["weight"]
    head = load_reward_head(tmp_path, 2, dtype=torch.float32, kind="linear", bias=True)
    assert list(head.state_dict()) == ["weight", "bias"] and not head(torch.ones(1, 2)).any()


def test_what_is_written_about_a_head_without_a_bias_is_what_older_code_reads(tmp_path: Path) -> None:
    save_reward_head("linear", {"weight": torch.zeros(1, 2)}, tmp_path, request=None)
    assert (tmp_path / REWARD_HEAD_CONFIG).read_text() == '{"kind": "linear", "request": null}\n'


def test_an_unknown_kind_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match="kind = 'conv' must be 'linear' or 'mlp'"):
        RewardHead("conv", 4)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="hidden_size = 0 must be at least 1"):
        RewardHead("mlp", 0)
