"""Attention in two parts is that of the whole row's mask, whichever kernel computes it, and so is its gradient."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workers.models.attention_kernels import CpuKernel, Kernel, PlainKernel
from workers.models.flex_rows import flex_row, row_mask
from workers.models.shared_prompt import NAMES, Card, attend, kernel_for, kernel_name, segment_mask, two_parts
from workers.multimodal.packing import Segments, segments_of

_WIDTH = 8
pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
_KERNELS = [PlainKernel(), CpuKernel()]
_ROWS = st.lists(
    st.tuples(st.sampled_from([1, 2, 5, 33]), st.lists(st.sampled_from([0, 1, 2, 3, 3, 3, 17, 40]), max_size=5)).map(
        lambda row: [row[0], *row[1]]
    ),
    min_size=1,
    max_size=4,
)
_HEADS = st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1), (14, 2)])


def _row(num_tokens: int, heads: tuple[int, int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(num_tokens)
    sizes = (heads[0], heads[1], heads[1], heads[0])
    made = [torch.randn(num_tokens, n, _WIDTH, dtype=torch.float64, generator=generator).to(dtype) for n in sizes]
    return (*(t.requires_grad_() for t in made[:3]), made[3])


def _sees(lengths: list[list[int]]) -> Tensor:
    """Query by key, from the words of the module: a token sees its prompt, and its own piece, as far as itself."""
    of = [(group, k) for group, own in enumerate(lengths) for k, n in enumerate(own) for _ in range(n)]
    return torch.tensor([[j <= i and q[0] == k[0] and k[1] in (0, q[1]) for j, k in enumerate(of)]
                         for i, q in enumerate(of)])  # fmt: skip


def _by_mask(q: Tensor, k: Tensor, v: Tensor, lengths: list[list[int]], scale: float) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    keys, values = (t.repeat_interleave(groups, 1).transpose(0, 1) for t in (k, v))
    scores = (q.transpose(0, 1) @ keys.mT * scale).masked_fill(~_sees(lengths), float("-inf"))
    return (scores.softmax(dim=-1) @ values).transpose(0, 1)


@pytest.mark.parametrize("kernel", _KERNELS, ids=lambda k: type(k).__name__)
@settings(deadline=None, max_examples=40)
@given(lengths=_ROWS, heads=_HEADS, scale=st.sampled_from([0.1, 0.5, 2.0]))
def test_two_parts_are_the_mask_of_the_whole_row(
    kernel: Kernel, lengths: list[list[int]], heads: tuple[int, int], scale: float
) -> None:
    at = segments_of(lengths)
    *row, pull = _row(len(at.group), heads)
    wanted = _by_mask(*row, lengths, scale)  # type: ignore[misc]
    found = two_parts(*row, at, kernel=kernel, scale=scale)  # type: ignore[misc]
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-12)
    for one, other in zip(torch.autograd.grad(found, row, pull), torch.autograd.grad(wanted, row, pull), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)


@settings(deadline=None, max_examples=30)
@given(lengths=_ROWS, heads=_HEADS)
def test_bfloat16_is_as_close_as_its_numbers_are(lengths: list[list[int]], heads: tuple[int, int]) -> None:
    """Within 2 % of the largest number, or of 1: five times the spacing of bfloat16; on the mean within 0.5 %."""
    at = segments_of(lengths)
    *narrow, pull = _row(len(at.group), heads, torch.bfloat16)
    wide = [t.detach().double().requires_grad_() for t in narrow]
    found = two_parts(*narrow, at, kernel=CpuKernel(), scale=0.4)  # type: ignore[misc]
    wanted = two_parts(*wide, at, kernel=PlainKernel(), scale=0.4)  # type: ignore[misc]
    grads = torch.autograd.grad(found, narrow, pull), torch.autograd.grad(wanted, wide, pull.double())
    for one, other in zip((found, *grads[0]), (wanted, *grads[1]), strict=True):
        assert one.dtype == torch.bfloat16
        gap, size = (one.double() - other).abs(), other.abs().max().clamp(min=1.0)
        assert gap.max() <= 0.02 * size and gap.mean() <= 0.005 * size


@settings(deadline=None, max_examples=15)
@given(lengths=_ROWS, heads=_HEADS)
def test_flex_attention_sees_the_same(lengths: list[list[int]], heads: tuple[int, int]) -> None:
    """Forward alone: torch has no backward pass of it on a CPU."""
    at = segments_of(lengths)
    q, k, v = (t.detach().float() for t in _row(len(at.group), heads)[:3])
    query, key, value = (t.transpose(0, 1).unsqueeze(0) for t in (q, k, v))
    found = flex_row(query, key, value, row_mask(at), scale=0.4)[0].transpose(0, 1)
    torch.testing.assert_close(found, _by_mask(q, k, v, lengths, 0.4), atol=1e-5, rtol=1e-5)


def test_prompts_that_nobody_answers_cost_no_second_part() -> None:
    asked: list[int] = []

    class Counting(PlainKernel):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, look: Any) -> tuple[Tensor, Tensor]:
            asked.append(len(q))
            return super().forward(q, k, v, look)

    q, k, v, _ = _row(9, (2, 1))
    two_parts(q, k, v, segments_of([[4], [5, 0]]), kernel=Counting(), scale=1.0)
    assert asked == [9]


def test_a_row_reads_no_copies_of_keys() -> None:
    """What a kernel is told of: each response's tokens once as queries, each prompt's once as keys."""
    at = segments_of([[3, 2, 0, 4], [2], [5, 1, 1]])
    assert at.pieces.bounds == (0, 3, 5, 9, 11, 16, 17, 18)
    assert (at.prompted.bounds, at.prompting.bounds) == ((0, 6, 8), (0, 3, 8))
    assert at.responses.tolist() == [3, 4, 5, 6, 7, 8, 16, 17]
    assert at.answered.tolist() == [0, 1, 2, 11, 12, 13, 14, 15]


def _attend(at: Segments, **told: Any) -> Tensor:
    q, k, v = (t.detach().transpose(0, 1).unsqueeze(0) for t in _row(len(at.group), (4, 2))[:3])
    return attend(None, q, k, v, segment_mask(at), scaling=0.5, **told)[0]


@pytest.mark.parametrize(
    "told",
    [{"sliding_window": 4}, {"softcap": 50.0}, {"s_aux": torch.zeros(4)}, {"dropout": 0.1}, {"not_known_yet": True}],
    ids=lambda told: next(iter(told)),
)
def test_what_the_two_parts_do_not_do_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"attention with {next(iter(told))} cannot share prompts"):
        _attend(segments_of([[3, 2]]), **told)


def test_what_says_nothing_about_scores_is_not() -> None:
    at = segments_of([[3, 2]])
    told = {"sliding_window": None, "position_ids": torch.arange(5), "use_cache": False, "output_hidden_states": True}
    torch.testing.assert_close(_attend(at, **told), _attend(at))


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_model_attention_chooses_who_computes(attention: str) -> None:
    at = segments_of([[3, 2, 6], [2, 1]])
    torch.testing.assert_close(_attend(at, attention=attention), _attend(at, attention="eager"), atol=1e-6, rtol=1e-6)
    wanted = {"sdpa": CpuKernel, "eager": PlainKernel}
    if attention in wanted:
        assert type(kernel_for(attention, torch.zeros(1, 1, 8))) is wanted[attention]


def test_no_name_is_taken_for_a_package_of_flash_attention() -> None:
    assert not [name for name in NAMES.values() if "flash" in name or "flex_attention" in name]


_CPU, _V100, _T4, _A100, _H100, _B200 = (None, (7, 0), (7, 5), (8, 0), (9, 0), (10, 0))
_BF16, _F32, _F16 = torch.bfloat16, torch.float32, torch.float16


@pytest.mark.parametrize(
    ("attention", "capability", "dtype", "width", "kernel"),
    [
        ("sdpa", _CPU, _F32, 128, "cpu"),
        ("sdpa", _A100, _BF16, 128, "sdpa"),
        ("sdpa", _A100, _BF16, 320, "efficient"),
        ("sdpa", _A100, _F32, 128, "efficient"),
        ("sdpa", _T4, _F16, 128, "efficient"),
        ("sdpa", _V100, _F32, 80, "efficient"),
        ("sdpa", _T4, _BF16, 128, "use 'eager'"),
        ("sdpa", _H100, _BF16, 90, "use 'eager'"),
        ("eager", _T4, _BF16, 90, "eager"),
        ("flex_attention", _A100, _BF16, 128, "flex_attention"),
        ("flash_attention_2", _A100, _BF16, 128, "flash_attention_2"),
        ("flash_attention_2", _T4, _F16, 128, "use 'sdpa'"),
        ("flash_attention_2", _CPU, _BF16, 128, "use 'sdpa'"),
        ("flash_attention_2", _H100, _F32, 128, "use 'sdpa'"),
        ("flash_attention_3", _H100, _BF16, 128, "flash_attention_3"),
        ("flash_attention_3", _A100, _BF16, 128, "use 'sdpa'"),
        ("flash_attention_3", _B200, _BF16, 128, "use 'sdpa'"),
        ("flash_attention_4", _B200, _BF16, 128, "flash_attention_4"),
        ("flash_attention_4", _A100, _BF16, 128, "use 'sdpa'"),
    ],
)
def test_a_card_computes_what_it_can_and_refuses_the_rest(
    attention: str, capability: tuple[int, int] | None, dtype: torch.dtype, width: int, kernel: str
) -> None:
    card = Card(capability=capability)
    if not kernel.startswith("use "):
        assert kernel_name(attention, card, dtype=dtype, width=width) == kernel
        return
    with pytest.raises(ValueError, match=f"^model.attention = '{attention}' with heads of {width} .*{kernel}$"):
        kernel_name(attention, card, dtype=dtype, width=width)


def test_a_build_without_flash_attention_has_the_efficient_kernel() -> None:
    assert kernel_name("sdpa", Card(capability=_H100, has_flash=False), dtype=_BF16, width=128) == "efficient"
