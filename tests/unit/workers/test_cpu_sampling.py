"""What is drawn on a CPU follows the distribution, and depends on a request's own seed alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

pytest.importorskip("vllm", reason="vllm is not installed")

from workers.rollout.cpu_sampling import Inversion

_NEVER = float("-inf")


def _seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _drawn(logits: torch.Tensor, seeds: list[int], steps: int) -> list[list[int]]:
    """Ids of each row, token after token."""
    sampler, generators = Inversion(), {i: _seeded(seed) for i, seed in enumerate(seeds)}
    return torch.stack([sampler(logits, generators, None, None)[0] for _ in range(steps)], dim=1).tolist()


@settings(deadline=None)
@given(seeds=st.lists(st.integers(0, 2**32), min_size=1, max_size=6, unique=True), steps=st.integers(1, 100))
def test_a_row_draws_the_same_whoever_is_beside_it(seeds: list[int], steps: int) -> None:
    torch.manual_seed(len(seeds))
    logits = torch.randn(len(seeds), 50)
    together = _drawn(logits, seeds, steps)
    assert together == [_drawn(logits[i : i + 1], [seed], steps)[0] for i, seed in enumerate(seeds)]


def test_rows_may_move_and_leave_while_others_go_on() -> None:
    logits, sampler = torch.zeros(2, 1000), Inversion()
    first, second = _seeded(1), _seeded(2)
    both = [sampler(logits, {0: first, 1: second}, None, None)[0].tolist() for _ in range(3)]
    moved = [sampler(logits[:1], {0: second}, None, None)[0].tolist() for _ in range(3)]
    assert [b[1] for b in both] + [m[0] for m in moved] == _drawn(logits[:1], [2], 6)[0]


def test_a_request_that_waits_while_many_are_served_goes_on_as_if_nobody_had_been() -> None:
    logits, sampler, waiting = torch.zeros(1, 1000), Inversion(), _seeded(7)
    drawn = [sampler(logits, {0: waiting}, None, None)[0].item() for _ in range(3)]
    others = [_seeded(100 + i) for i in range(200)]
    for other in others:
        sampler(logits, {0: other}, None, None)
    drawn += [sampler(logits, {0: waiting}, None, None)[0].item() for _ in range(3)]
    assert drawn == _drawn(logits, [7], 6)[0]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_logits_that_are_no_distribution_give_a_token_of_which_nothing_is_known(broken: float) -> None:
    logits = torch.zeros(3, 10)
    logits[1, 4] = broken
    ids, logprobs = Inversion()(logits, {i: _seeded(i) for i in range(3)}, None, None)
    assert ids[1] == 0 and logprobs[1, ids[1]].isnan()
    assert ids.max() < 10 and logprobs[[0, 2]].isfinite().all()


def test_requests_that_come_and_go_leave_nothing_behind() -> None:
    sampler = Inversion()
    for seed in range(1000):
        sampler(torch.zeros(1, 3), {0: _seeded(seed)}, None, None)
    assert len(sampler._streams) <= 1


def test_tokens_are_as_frequent_as_they_are_likely_and_log_probs_say_so() -> None:
    logits = torch.tensor([[0.0, _NEVER, 1.0, 2.0, -3.0, _NEVER]]).expand(4096, -1)
    ids, logprobs = Inversion()(logits, {i: _seeded(i) for i in range(4096)}, None, None)
    chances = logits[0].softmax(-1)
    torch.testing.assert_close(logprobs[0].exp(), chances)
    found = torch.bincount(ids, minlength=6) / len(ids)
    assert found[[1, 5]].sum() == 0
    # Six standard deviations of a share.
    assert torch.all((found - chances).abs() <= 6 * (chances * (1 - chances) / len(ids)).sqrt())


@pytest.mark.parametrize("height", [0.0, 1 - 2**-53])
def test_the_ends_of_the_scale_find_a_token_that_has_a_chance(height: float, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Inversion()
    monkeypatch.setattr(sampler, "_next", lambda generator: height)
    logits = torch.full((1, 5000), _NEVER)
    logits[0, 7], logits[0, 4000] = 0.3, -0.2
    ids, _ = sampler(logits, {0: _seeded(0)}, None, None)
    assert ids.tolist() == [7 if height == 0.0 else 4000]


def test_a_nucleus_is_kept_to() -> None:
    logits = torch.tensor([[3.0, 2.0, 0.0, -1.0]]).expand(256, -1).clone()
    generators = {i: _seeded(i) for i in range(256)}
    ids, logprobs = Inversion()(logits, generators, None, torch.full((256,), 0.9))
    assert set(ids.tolist()) == {0, 1}
    torch.testing.assert_close(logprobs[0, :2].exp().sum(), torch.tensor(1.0))
