"""Relations that hold for the losses of every policy-gradient algorithm, as workers compute them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.maths.advantages import decoupled_advantages, group_advantages
from algorithms.maths.policy_losses import cispo_loss_map, ppo_clip_loss_map, sapo_loss_map
from algorithms.policy_gradient import AlgorithmSection, PolicyGradient
from algorithms.records import Sequence, TrainSample
from algorithms.registry import ALGORITHMS, algorithm_class
from tests.property.batches import POISON, Batch, batches, poisoned

FAMILY = [name for name in ALGORITHMS if issubclass(algorithm_class(name), PolicyGradient)]
SEQUENCES = ["gspo", "rloo"]


def _algorithm(name: str, **chosen: Any) -> PolicyGradient:
    """With its own defaults, and what is chosen beyond them."""
    kind = algorithm_class(name)
    assert issubclass(kind, PolicyGradient)
    own = {option.split(".")[1]: value for option, value in kind.defaults.items() if option.startswith("algorithm.")}
    others = {section: of() for section, of in kind.sections.items() if section != "algorithm"}
    return kind(name, {**others, "algorithm": AlgorithmSection(**{**own, **chosen})})


def _samples(batch: Batch, *, on_policy: bool = False) -> list[TrainSample]:
    """A sample a row behind a prompt of one token; what the mask leaves out has no weight."""
    mask, olds = batch.mask.numpy(), (batch.logprobs if on_policy else batch.old_logprobs).numpy()
    return [
        TrainSample(
            sequence=Sequence(
                uid="p", sample_index=row, input_ids=np.zeros(len(mask[row]), np.int64), prompt_len=1, media=()
            ),
            loss_weight=mask[row] / batch.num_tokens,
            advantages=batch.advantages[row].numpy().astype(np.float32),
            old_logprobs=None if on_policy else olds[row].astype(np.float32),
            rollout_logprobs=olds[row].astype(np.float32),
            ref_logprobs=batch.ref_logprobs[row].numpy().astype(np.float32),
        )
        for row in range(len(mask))
    ]


def _learned(
    algorithm: PolicyGradient, samples: list[TrainSample], logprobs: Tensor, parts: list[list[int]] | None = None
) -> tuple[Tensor, Tensor]:
    """``(loss, gradient [B, T])`` over micro-batches of these rows."""
    leaf = logprobs.float().clone().requires_grad_()
    objective, loss = algorithm.objective(), torch.zeros(())
    for rows in parts or [list(range(len(samples)))]:
        pieces = tuple(leaf[row, 1:] for row in rows)
        entropy = torch.zeros(sum(len(piece) for piece in pieces))
        loss = loss + objective(Scores(pieces, entropy=entropy), [samples[row] for row in rows]).losses.sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), gradient


def _assert_near(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FAMILY)
@given(batch=batches())
def test_on_policy_every_loss_has_the_gradient_of_reinforce(name: str, batch: Batch) -> None:
    _, gradient = _learned(_algorithm(name), _samples(batch, on_policy=True), batch.logprobs)
    wanted = torch.where(batch.mask, -batch.advantages, 0.0) / batch.num_tokens
    torch.testing.assert_close(gradient, wanted.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("correction", ["none", "token_mask", "sequence_truncate"])
@pytest.mark.parametrize("name", FAMILY)
@given(batch=batches(), data=st.data())
def test_micro_batches_add_up_to_the_whole(name: str, correction: str, batch: Batch, data: st.DataObject) -> None:
    algorithm, samples = _algorithm(name, correction=correction, off_policy_max_kl=0.5), _samples(batch)
    order = data.draw(st.permutations(range(len(samples))))
    cut = data.draw(st.integers(0, len(samples)))
    parts = [part for part in (order[:cut], order[cut:]) if part]
    _assert_near(_learned(algorithm, samples, batch.logprobs, parts), _learned(algorithm, samples, batch.logprobs))


@pytest.mark.parametrize("poison", POISON)
@pytest.mark.parametrize("name", FAMILY)
@given(batch=batches())
def test_what_a_token_without_weight_holds_changes_nothing(name: str, poison: float, batch: Batch) -> None:
    algorithm = _algorithm(name, correction="sequence_truncate", off_policy_max_kl=0.5)
    clean, fields = _samples(batch), ("advantages", "old_logprobs", "rollout_logprobs")
    bad = [
        replace(s, **{f: np.where(mask, getattr(s, f), np.float32(poison)) for f in fields})
        for s, mask in zip(clean, batch.mask.numpy(), strict=True)
    ]
    logprobs = torch.where(batch.mask, batch.logprobs, poison)
    _assert_near(_learned(algorithm, bad, logprobs), _learned(algorithm, clean, batch.logprobs))


@pytest.mark.parametrize("poison", POISON)
@given(batch=batches())
def test_a_map_is_zero_outside_its_mask_whatever_stands_there(poison: float, batch: Batch) -> None:
    now, ratio, advantages = (
        poisoned(values, batch.mask, poison)
        for values in (batch.logprobs, batch.logprobs - batch.old_logprobs, batch.advantages)
    )
    clip = {"clip_low": 0.2, "clip_high": 0.3}
    for found in (
        ppo_clip_loss_map(ratio, advantages, batch.mask, dual_clip=2.0, **clip),
        cispo_loss_map(ratio, now, advantages, batch.mask, **clip),
        sapo_loss_map(ratio, advantages, batch.mask, tau_pos=1.0, tau_neg=1.05),
    ):
        assert not found.loss[~batch.mask].any() and torch.isfinite(found.loss).all()
        assert not (found.clip_hit | found.preclip_hit)[~batch.mask].any()


@pytest.mark.parametrize("name", SEQUENCES)
@given(batch=batches())
def test_the_tokens_of_a_response_are_clipped_together(name: str, batch: Batch) -> None:
    # With one advantage a response, either all of its tokens learn or none does.
    one = replace(batch, advantages=torch.ones_like(batch.advantages))
    _, gradient = _learned(_algorithm(name), _samples(one), batch.logprobs)
    for row, mask in zip(gradient, batch.mask, strict=True):
        assert len(set(row[mask].tolist())) <= 1


@given(batch=batches())
def test_a_gspo_ratio_is_the_geometric_mean_of_its_tokens(batch: Batch) -> None:
    algorithm = _algorithm("gspo", clip_low=1.0, clip_high=1e9)
    _, gradient = _learned(algorithm, _samples(batch), batch.logprobs)
    for row, mask in enumerate(batch.mask):
        ratio = (batch.logprobs - batch.old_logprobs)[row][mask].mean().exp()
        wanted = -ratio * batch.advantages[row][mask] / batch.num_tokens
        torch.testing.assert_close(gradient[row][mask], wanted.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in FAMILY if n not in ("cispo", "distill", "sapo")])
@given(batch=batches(max_log_ratio=200), bound=st.floats(1.5, 5.0))
def test_a_dual_clip_bounds_what_a_bad_token_costs(name: str, batch: Batch, bound: float) -> None:
    bad = replace(batch, advantages=-batch.advantages.abs() - 0.25)
    loss, gradient = _learned(_algorithm(name, dual_clip=bound), _samples(bad), batch.logprobs)
    most = bound * torch.where(batch.mask, -bad.advantages, 0.0) / batch.num_tokens
    assert loss <= most.sum() * (1 + 1e-5)
    assert torch.isfinite(gradient).all() and (gradient.abs() <= most * (1 + 1e-4) + 1e-6).all()


@given(batch=batches())
def test_a_dual_clip_leaves_good_tokens_alone(batch: Batch) -> None:
    good = replace(batch, advantages=batch.advantages.abs())
    bounded, plain = (
        _learned(_algorithm("grpo", dual_clip=dual), _samples(good), batch.logprobs) for dual in (1.5, None)
    )
    assert torch.equal(bounded[0], plain[0]) and torch.equal(bounded[1], plain[1])


@given(batch=batches(max_log_ratio=200))
def test_a_soft_gate_is_finite_and_fades_however_far_a_ratio_is(batch: Batch) -> None:
    loss, gradient = _learned(_algorithm("sapo"), _samples(batch), batch.logprobs)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    gap = batch.logprobs.float() - batch.old_logprobs.float()
    assert not gradient[(gap > 5) & batch.mask].any()


@example(reward=1.55, sizes=[3])
@given(reward=st.floats(-3, 3), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_equal_rewards_of_a_prompt_teach_nothing(reward: float, sizes: list[int]) -> None:
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    scores = torch.full(groups.shape, reward)
    for baseline in ("grpo", "rloo", "mean"):
        assert not group_advantages(scores, groups, baseline=baseline).any()
    assert not decoupled_advantages(scores[:, None].repeat(1, 3), torch.tensor([1.0, 2.0, 0.5]), groups).any()


_THREE = st.lists(st.integers(-8, 8), min_size=3, max_size=3, unique=True)


@given(rewards=st.builds(list.__add__, _THREE, _THREE), factor=st.sampled_from([0.5, 2.0, 100.0]))
def test_no_part_of_a_reward_drowns_in_a_larger_one(rewards: list[int], factor: float) -> None:
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    parts = torch.stack([torch.tensor(rewards, dtype=torch.float64), torch.arange(6).double() ** 2], dim=1)
    weights = torch.ones(2, dtype=torch.float64)
    larger = torch.stack([parts[:, 0] * factor, parts[:, 1]], dim=1)
    first, second = (decoupled_advantages(p, weights, groups) for p in (parts, larger))
    torch.testing.assert_close(first, second, rtol=1e-2, atol=1e-2)
