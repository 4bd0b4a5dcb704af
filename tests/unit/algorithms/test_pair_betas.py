"""β of a pair by hand, the three ways with a negative margin, and what is refused."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from algorithms.maths.pair_betas import (
    MIN_BETA,
    NegativeMargin,
    factor_betas,
    implicit_beta,
    implicit_sample,
    implicit_sample_weights,
    margin_betas,
)

NAN, INF = float("nan"), float("inf")
MARGINS = torch.tensor([-1.0, 0.0, 1.0, INF])
PAPER = {"beta": 0.1, "weight": 0.5, "steepness": 0.5}


def _doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("negative", ["clamp", "drop", "flag"])
def test_beta_of_a_margin_by_hand(negative: NegativeMargin) -> None:
    result = margin_betas(MARGINS, **PAPER, negative=negative)
    # 0.1 (1 + 0.5 (1 - exp(-0.5))) = 0.1196735
    assert result.betas.dtype == torch.float64
    assert result.betas.tolist() == pytest.approx([0.1, 0.1, 0.05 * (3 - math.exp(-0.5)), 0.15], abs=1e-15)
    assert result.num_negative == 1


def test_a_negative_margin_is_learned_from_left_out_or_named() -> None:
    results = {way: margin_betas(MARGINS, **PAPER, negative=way) for way in ("clamp", "drop", "flag")}
    assert results["clamp"].keep.tolist() == results["flag"].keep.tolist() == [True] * 4
    assert results["drop"].keep.tolist() == [False, True, True, True]
    assert {way: result.flagged for way, result in results.items()} == {"clamp": (), "drop": (), "flag": (0,)}


def test_positions_of_several_flagged_pairs_are_ascending() -> None:
    assert margin_betas(_doubles(-2.0, 1.0, -INF, -0.5), **PAPER, negative="flag").flagged == (0, 2, 3)


def test_beta_has_no_gradient() -> None:
    margins = _doubles(1.0, 2.0).requires_grad_()
    assert not margin_betas(margins, **PAPER, negative="clamp").betas.requires_grad
    assert not factor_betas(margins, beta=0.1, weight=0.5).requires_grad
    assert not implicit_beta(margins, torch.tensor([0]), beta=0.1, weight=0.5).requires_grad


def test_factors_are_clamped_from_below_only() -> None:
    # 0.1 (1 + 0.5 f) = 0.15, 0.1, 0.2 and -0.1.
    betas = factor_betas(_doubles(1.0, 0.0, 2.0, -4.0), beta=0.1, weight=0.5)
    assert betas.tolist() == pytest.approx([0.15, 0.1, 0.2, MIN_BETA], abs=1e-15)


def test_implicit_beta_by_hand() -> None:
    # Margins 1, 2, 6: mean 3, standard deviation sqrt(7); the sample of the last two has mean 4.
    margins = _doubles(1.0, 2.0, 6.0)
    assert implicit_sample_weights(margins).tolist() == pytest.approx(
        [math.exp(-2 / 7), math.exp(-1 / 14), math.exp(-9 / 14)], abs=1e-6
    )
    beta = implicit_beta(margins, torch.tensor([1, 2]), beta=0.1, weight=0.5)
    assert beta.item() == pytest.approx(0.1 * (1 + 0.5 * (4 - 3)), abs=1e-15)
    assert implicit_beta(margins, torch.tensor([0]), beta=0.1, weight=0.5).item() == MIN_BETA


@pytest.mark.parametrize(("num_pairs", "num_drawn"), [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (8, 6), (10, 8)])
def test_the_sample_is_four_fifths_of_the_pairs_drawn_once_each(num_pairs: int, num_drawn: int) -> None:
    margins = torch.arange(num_pairs, dtype=torch.float32)
    first, again = (implicit_sample(margins, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert len(set(first.tolist())) == len(first) == num_drawn
    assert set(first.tolist()) <= set(range(num_pairs))
    assert torch.equal(first, again)


def test_pairs_near_the_mean_are_drawn_more_often() -> None:
    generator = torch.Generator().manual_seed(0)
    margins = _doubles(-9.0, 0.0, 0.5, 0.25, 9.0)
    drawn = torch.cat([implicit_sample(margins, generator=generator) for _ in range(500)]).bincount(minlength=5)
    # Weights exp(-1.0) at the ends against almost 1: of four draws in five the ends are left out most.
    assert max(drawn[0], drawn[4]) < min(drawn[1], drawn[2], drawn[3])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": 0.0}, "beta = 0.0 must be positive and finite"),
        ({"beta": NAN}, "beta = nan must be positive and finite"),
        ({"weight": -0.5}, "weight = -0.5 must be finite and not negative"),
        ({"weight": INF}, "weight = inf must be finite"),
        ({"steepness": 0.0}, "steepness = 0.0 must be positive and finite"),
        ({"steepness": INF}, "steepness = inf must be positive and finite"),
    ],
)
def test_numbers_outside_their_bounds_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margin_betas(MARGINS, **(PAPER | changed), negative="clamp")


@pytest.mark.parametrize("negative", ["clamp", "drop", "flag"])
def test_a_pair_without_a_margin_is_named(negative: NegativeMargin) -> None:
    with pytest.raises(ValueError, match=r"margins\[2\] = nan must be a number"):
        margin_betas(_doubles(1.0, -1.0, NAN, NAN), **PAPER, negative=negative)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_factor_or_log_ratio_that_is_not_finite_is_named(value: float) -> None:
    values, generator = _doubles(1.0, value), torch.Generator()
    refused: list[tuple[str, Callable[[], object]]] = [
        ("factors", lambda: factor_betas(values, beta=0.1, weight=0.5)),
        ("margins", lambda: implicit_sample(values, generator=generator)),
        ("margins", lambda: implicit_beta(values, torch.tensor([0]), beta=0.1, weight=0.5)),
    ]
    for name, call in refused:
        with pytest.raises(ValueError, match=rf"{name}\[1\] = .* must be finite"):
            call()


def test_an_implicit_beta_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="has no pair"):
        implicit_sample(_doubles(), generator=torch.Generator())
    with pytest.raises(ValueError, match="the sample is empty"):
        implicit_beta(_doubles(1.0), torch.tensor([], dtype=torch.long), beta=0.1, weight=0.5)
