"""Preference losses by hand, and what they refuse."""

import math

import pytest
import torch

from algorithms.maths.kto import kto_baseline, kto_loss, kto_weight_warning
from algorithms.maths.preference_losses import DpoKind, bradley_terry_loss, dpo_loss, kto_pair_loss, weighted_scores
from algorithms.maths.token_diff import DDPO_MODES, DdpoMode, ddpo_weights, token_diff

NAN, INF = float("nan"), float("inf")
LOGPROBS = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
ALL = torch.ones(1, 4, dtype=torch.bool)
MIDDLE = torch.tensor([[False, True, True, False]])
TWO = torch.tensor([1.0, 2.0])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # delta = 3 - 1 = 2 and beta = 0.5, so beta delta = 1.
        ("sigmoid", math.log1p(math.exp(-1.0))),
        ("hinge", 0.0),
        ("ipo_sum", (2.0 - 1.0) ** 2),
        ("ipo_mean", (2.0 - 1.0) ** 2),
    ],
)
def test_each_kind_by_hand(kind: DpoKind, expected: float) -> None:
    result = dpo_loss(torch.tensor([3.0]), torch.tensor([1.0]), kind=kind, beta=0.5)
    assert result.loss.item() == pytest.approx(expected, abs=1e-6)
    assert result.chosen_rewards.item() == 1.5
    assert result.rejected_rewards.item() == 0.5
    assert result.margin.item() == 1.0
    assert result.correct.item() is True


def test_a_tie_is_no_success() -> None:
    assert not dpo_loss(TWO, TWO, kind="sigmoid", beta=0.1).correct.any()


def test_kto_pair_is_crossed_and_clamped_as_in_the_original() -> None:
    """VL-RLHF acceptance 4, the vector of its section 2.3."""
    # a = [1, -1], b = [2, 4]: K_c = max(0, 0), K_r = 3; terms .549834 .598688 | .549834 .598688.
    result = kto_pair_loss(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 4.0]), beta=0.1)
    assert result.loss.tolist() == pytest.approx([0.549834, 0.598688], abs=1e-6)
    assert result.loss.mean().item() == pytest.approx(0.574261, abs=1e-6)


def test_bradley_terry_reports_the_scores_as_rewards() -> None:
    result = bradley_terry_loss(torch.tensor([1.0, 0.0], requires_grad=True), torch.tensor([0.0, 2.0]))
    assert result.loss.tolist() == pytest.approx([math.log1p(math.exp(-1.0)), math.log1p(math.exp(2.0))])
    assert result.margin.tolist() == [1.0, -2.0]
    assert result.correct.tolist() == [True, False]
    assert not result.chosen_rewards.requires_grad


@pytest.mark.parametrize("beta", [0.0, -0.1, NAN, INF, torch.tensor([0.1, 0.0]), torch.tensor([0.1, NAN])])
def test_beta_must_be_positive_and_finite(beta: float | torch.Tensor) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        dpo_loss(TWO, TWO, kind="sigmoid", beta=beta)
    with pytest.raises(ValueError, match="must be positive and finite"):
        kto_pair_loss(TWO, TWO, beta=beta)


@pytest.mark.parametrize("label_smoothing", [-0.1, 0.51, NAN])
def test_label_smoothing_that_inverts_the_labels_is_refused(label_smoothing: float) -> None:
    with pytest.raises(ValueError, match=r"must be in \[0, 0\.5\]"):
        dpo_loss(TWO, TWO, kind="sigmoid", beta=0.1, label_smoothing=label_smoothing)


@pytest.mark.parametrize("kind", ["hinge", "ipo_sum", "ipo_mean"])
def test_label_smoothing_is_refused_where_it_would_do_nothing(kind: DpoKind) -> None:
    with pytest.raises(ValueError, match=f"has no meaning for {kind}"):
        dpo_loss(TWO, TWO, kind=kind, beta=0.1, label_smoothing=0.1)


def _ddpo(mode: DdpoMode) -> float:
    weights = ddpo_weights(ALL, MIDDLE, gamma=mode.gamma, average=mode.average, base_weight=mode.base_weight)
    return weighted_scores(LOGPROBS, weights).item()


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # Unchanged -1 and -4, corrected -2 and -3.
        ("paper", (-5 - 5 * 5) / (2 + 5 * 2)),
        ("rlhf_v_recipe", -5 - 1.1 * 5),
        ("vl_rlhf", -5),
    ],
)
def test_the_three_things_called_ddpo(mode: str, expected: float) -> None:
    assert _ddpo(DDPO_MODES[mode]) == pytest.approx(expected)


def test_ddpo_with_gamma_5_sums_to_minus_30_and_averages_to_minus_2_5() -> None:
    assert _ddpo(DdpoMode(gamma=5.0, average=False, base_weight=1)) == -30.0
    assert _ddpo(DdpoMode(gamma=5.0, average=True, base_weight=1)) == pytest.approx(-2.5, rel=1e-15)


@pytest.mark.parametrize("gamma", [0.0, -1.0, NAN, INF])
def test_gamma_must_be_positive_and_finite(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma = .* must be positive and finite"):
        ddpo_weights(ALL, MIDDLE, gamma=gamma, average=False, base_weight=1)


def test_a_chance_match_inside_a_rewritten_passage_is_still_corrected() -> None:
    # "9 9" is common, but too short to end the passage; with min_match 2 it does.
    chosen, rejected = [1, 2, 3, 9, 9, 4, 7], [1, 5, 6, 9, 9, 8, 7]
    both = [False, True, True, True, True, True, False]
    assert token_diff(chosen, rejected) == (both, both)
    split = [False, True, True, False, False, True, False]
    assert token_diff(chosen, rejected, min_match=2) == (split, split)


def test_min_match_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="min_match = 0 must be at least 1"):
        token_diff([1], [2], min_match=0)


def test_kto_baseline_is_the_clamped_mean() -> None:
    assert kto_baseline(6.0, 4) == 1.5
    assert kto_baseline(-6.0, 4) == 0.0


def test_kto_baseline_of_nothing_or_of_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="count = 0"):
        kto_baseline(0.0, 0)
    # max(0, NaN) would be 0.
    with pytest.raises(ValueError, match="must be finite"):
        kto_baseline(NAN, 2)


def test_kto_by_hand() -> None:
    # beta (r - z0) = 0.5 (4 - 2) = 1: 2 sigma(-1) if desirable, 3 sigma(1) if not.
    loss, rewards = kto_loss(
        torch.tensor([4.0, 4.0]),
        torch.tensor([True, False]),
        baseline=2.0,
        beta=0.5,
        desirable_weight=2.0,
        undesirable_weight=3.0,
    )
    assert loss.tolist() == pytest.approx([2 / (1 + math.e), 3 * math.e / (1 + math.e)])
    assert rewards.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beta": 0.0}, "beta = 0.0 must be positive"),
        ({"baseline": -1.0}, "baseline = -1.0 must be finite and not negative"),
        ({"baseline": NAN}, "baseline = nan must be finite"),
        ({"desirable_weight": -1.0}, "desirable_weight = -1.0 must be"),
        ({"undesirable_weight": INF}, "undesirable_weight = inf must be"),
    ],
)
def test_kto_refuses_numbers_without_meaning(changed: dict[str, float], message: str) -> None:
    numbers = {"baseline": 0.0, "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0} | changed
    with pytest.raises(ValueError, match=message):
        kto_loss(TWO, torch.tensor([True, False]), **numbers)


def test_weights_that_balance_the_two_kinds_are_not_worth_a_word() -> None:
    assert kto_weight_warning(100, 100, desirable_weight=1.0, undesirable_weight=1.0) is None
    assert kto_weight_warning(300, 300, desirable_weight=4 / 3, undesirable_weight=1.0) is None
    assert kto_weight_warning(100, 300, desirable_weight=3.3, undesirable_weight=1.0) is None


def test_weights_out_of_balance_are_named_with_the_range_that_would_do() -> None:
    """VL-RLHF acceptance 4."""
    warning = kto_weight_warning(100, 300, desirable_weight=1.0, undesirable_weight=1.0)
    assert warning is not None
    assert "= 0.333 is outside [1, 4/3]" in warning
    assert "desirable_weight between 3 and 4," in warning
    assert kto_weight_warning(140, 100, desirable_weight=1.0, undesirable_weight=1.0) is not None
    assert kto_weight_warning(99, 100, desirable_weight=1.0, undesirable_weight=1.0) is not None


@pytest.mark.parametrize(("counts", "missing"), [((0, 5), "no desirable"), ((5, 0), "no undesirable")])
def test_a_kind_without_examples_is_warned_of(counts: tuple[int, int], missing: str) -> None:
    warning = kto_weight_warning(*counts, desirable_weight=1.0, undesirable_weight=1.0)
    assert warning is not None
    assert missing in warning


@pytest.mark.parametrize(("count", "weight"), [(-1, 1.0), (1, 0.0), (1, NAN)])
def test_counts_and_weights_without_meaning_are_refused(count: int, weight: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        kto_weight_warning(count, 1, desirable_weight=weight, undesirable_weight=1.0)
