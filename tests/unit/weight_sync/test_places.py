"""Tensors are written straight into an engine's layers only where that is what vLLM's own reload did."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("vllm", reason="vllm is not installed")

from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

from workers.weight_sync.places import Given, Places, _rows, learned


def _layer(weight: Tensor, method: Any, bias: Tensor | None = None) -> Any:
    """As vLLM leaves one after loading."""
    layer: Any = nn.Module()
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)
    layer.quant_method = method
    if weight.ndim == 2:
        layer.input_size_per_partition, layer.output_partition_sizes = weight.shape[1], [weight.shape[0]]
    if method is not None:
        method.process_weights_after_loading(layer)
    return layer


class _Engine(nn.Module):
    """A projection of q, k and v in one, a norm, and an embedding filled up to 8 words."""

    def __init__(self, sent: dict[str, Tensor]) -> None:
        super().__init__()
        packed = torch.cat([sent["q"], sent["k"], sent["v"]])
        self.qkv = _layer(packed, UnquantizedLinearMethod(), sent["bias"])
        self.norm = _layer(sent["norm"], None)
        self.words = _layer(torch.cat([sent["words"], torch.zeros(3, 16)]), UnquantizedEmbeddingMethod())

    def given(self, sent: dict[str, Tensor]) -> Given:
        qkv = [("weight", shard, sent[shard]) for shard in "kvq"]
        return {
            self.qkv: [("bias", None, sent["bias"]), *qkv],
            self.norm: [("weight", None, sent["norm"])],
            self.words: [("weight", None, sent["words"])],
        }

    def answers(self) -> list[Tensor]:
        x = torch.linspace(-1, 1, 32).reshape(2, 16)
        bias, words = self.qkv.bias, self.words.weight
        return [self.qkv.cpu_linear(x, None, bias), self.norm.weight, self.words.cpu_linear(x, words, None), words]


def _sent(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    shapes = {"q": (16, 16), "k": (8, 16), "v": (8, 16), "bias": (32,), "norm": (16,), "words": (5, 16)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _learned(sent: dict[str, Tensor], engine: _Engine, given: Given | None = None) -> Places | None:
    return learned(engine, engine.given(sent) if given is None else given, sent)


def test_what_is_written_directly_is_what_a_reload_would_have_made() -> None:
    first, second = _sent(0), _sent(1)
    engine = _Engine(first)
    places = _learned(first, engine)
    assert places is not None and places.cover(second, full=True)
    places.load({name: second[name] for name in reversed(second)})
    for found, wanted in zip(engine.answers(), _Engine(second).answers(), strict=True):
        torch.testing.assert_close(found, wanted)
    # Its memory is the trainer's to write again: nothing may go on reading it.
    before = [a.clone() for a in engine.answers()]
    for tensor in second.values():
        tensor.zero_()
    assert all(torch.equal(a, b) for a, b in zip(engine.answers(), before, strict=True))


def test_parts_are_written_where_they_are_whole_parameters() -> None:
    first, second = _sent(0), _sent(1)
    engine = _Engine(first)
    places = _learned(first, engine)
    assert places is not None
    assert not places.cover({"q", "k"}, full=False) and not places.cover({"q", "k", "v"}, full=True)
    assert not places.cover({"norm", "unheard_of"}, full=False)
    assert not places.cover({"bias", "norm"}, full=False), "the weight beside it was lost"
    part = {name: second[name] for name in ("q", "k", "v")}
    assert places.cover(part, full=False)
    places.load(part)
    for found, wanted in zip(engine.answers(), _Engine(first | part).answers(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_whatever_is_not_understood_leaves_the_model_to_vllm() -> None:
    sent = _sent(0)
    engine = _Engine(sent)
    given = engine.given(sent)

    def without(layer: nn.Module) -> Given:
        return {k: v for k, v in given.items() if k is not layer}

    assert _learned(sent, engine, without(engine.norm)) is None, "a parameter came from elsewhere"
    other_order = {"q": 2, "k": 1, "v": 0}
    swapped = [("weight", other_order[shard], sent[shard]) for shard in "qkv"]
    bias = ("bias", None, sent["bias"])
    assert _learned(sent, engine, without(engine.qkv) | {engine.qkv: [bias, *swapped]}) is None, "another order"
    changed = without(engine.norm) | {engine.norm: [("weight", None, sent["norm"] + 1)]}
    assert _learned(sent, engine, changed) is None, "not a tensor that was sent"
    engine.norm.weight.data += 1
    assert _learned(sent, engine) is None, "changed on its way"
    engine.norm.weight.data -= 1
    engine.norm.weight.data.copy_(sent["norm"])
    engine.qkv.kv_b_proj = None
    assert _learned(sent, engine) is None, "an attention that keeps what it computed from weights"


@pytest.mark.parametrize("narrower", [(slice(None), slice(8)), (slice(8), slice(None))])
def test_a_kernel_is_never_handed_what_it_was_not_packed_for(narrower: tuple[slice, slice]) -> None:
    sent = _sent(0)
    engine = _Engine(sent)
    asked: list[Tensor] = []
    engine.qkv.cpu_linear = lambda x, weight, bias: asked.append(x)
    # What a worker under tensor parallelism is given: whole tensors, of which it keeps a part.
    other = sent | {name: sent[name][narrower].contiguous() for name in "qkv"}
    assert _learned(other, engine) is None
    assert not asked


def test_a_kernel_that_refuses_leaves_the_model_to_vllm(caplog: pytest.LogCaptureFixture) -> None:
    sent = _sent(0)
    engine = _Engine(sent)

    def refuse(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        raise RuntimeError("expected another dtype")

    engine.qkv.cpu_linear = refuse
    assert _learned(sent, engine) is None
    assert "weights go through vLLM's own reload: expected another dtype" in caplog.text


def test_parts_that_follow_each_other_in_memory_are_joined_without_a_copy() -> None:
    held = torch.arange(48.0).reshape(12, 4)
    q, k, v = held[:3], held[3:7], held[7:]
    joined = _rows([q, k, v])
    assert torch.equal(joined, held) and joined.data_ptr() == held.data_ptr()
    apart = [[q, v], [k, q], [q, k.clone(), v], [held[0:2, :2], held[2:4, :2]], [q, k.bfloat16()]]
    for parts in apart:
        rows = _rows(parts)
        assert torch.equal(rows, torch.cat(parts)) and rows.data_ptr() != parts[0].data_ptr()
