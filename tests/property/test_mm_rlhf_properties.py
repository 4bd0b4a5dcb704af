"""Relations that hold for every margin, every MM-DPO objective and every pair of a critique reward model."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from algorithms.maths.aggregation import response_weights, token_weights, weighted
from algorithms.maths.critique_reward_loss import critique_pair_loss, mean_weights
from algorithms.maths.pair_betas import factor_betas, implicit_beta, implicit_sample, margin_betas
from algorithms.maths.policy_losses import sft_loss_map
from algorithms.maths.preference_losses import bradley_terry_loss, dpo_loss
from tests.property.batches import Batch, batches, log_ratios, row_splits
from tests.response_scores import imitation

BETAS = st.floats(0.01, 4.0)
WEIGHTS = st.floats(0.0, 4.0)
STEEPNESS = st.floats(0.01, 8.0)
MARGINS = st.lists(st.floats(allow_nan=False, width=32), min_size=1, max_size=8)
SFT_MODES: tuple[Literal["token-mean", "seq-mean-token-mean"], ...] = ("token-mean", "seq-mean-token-mean")


def _doubles(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def _critique_loss(chosen: Tensor, rejected: Tensor, ties: Tensor, **weights: float) -> Tensor:
    return critique_pair_loss(chosen, rejected, ties, margins=None, **weights).loss


@st.composite
def _annotated(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of both sides, and which pairs are ties."""
    chosen, rejected = draw(log_ratios())
    rows = len(chosen)
    return chosen, rejected, torch.tensor(draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))


@given(margins=MARGINS, beta=BETAS, weight=WEIGHTS, steepness=STEEPNESS)
def test_beta_stays_in_its_bounds_and_never_falls_as_the_margin_grows(
    margins: list[float], beta: float, weight: float, steepness: float
) -> None:
    betas = margin_betas(
        _doubles(sorted(margins)), beta=beta, weight=weight, steepness=steepness, negative="clamp"
    ).betas
    assert (betas >= beta).all()
    assert (betas <= beta * (1 + weight)).all()
    assert (betas.diff() >= 0).all()


@given(margins=MARGINS, beta=BETAS, weight=WEIGHTS, steepness=STEEPNESS)
def test_a_margin_that_is_not_positive_leaves_beta_alone_and_is_counted_if_negative(
    margins: list[float], beta: float, weight: float, steepness: float
) -> None:
    delta = _doubles(margins)
    results = [
        margin_betas(delta, beta=beta, weight=weight, steepness=steepness, negative=negative)
        for negative in ("clamp", "drop", "flag")
    ]
    for result in results:
        assert (result.betas[delta <= 0] == beta).all()
        assert result.num_negative == int((delta < 0).sum())
        assert torch.equal(result.betas, results[0].betas)
    assert torch.equal(results[1].keep, ~(delta < 0))
    assert list(results[2].flagged) == (delta < 0).nonzero().flatten().tolist()


@given(margins=st.lists(st.floats(0.0, 64.0), min_size=1, max_size=8), beta=BETAS, weight=WEIGHTS, steepness=STEEPNESS)
def test_a_factor_made_of_the_margin_gives_the_margins_beta(
    margins: list[float], beta: float, weight: float, steepness: float
) -> None:
    delta = _doubles(margins)
    direct = margin_betas(delta, beta=beta, weight=weight, steepness=steepness, negative="clamp").betas
    _close(factor_betas(1 - (-steepness * delta).exp(), beta=beta, weight=weight), direct)


@given(ratios=log_ratios(), beta=BETAS, seed=st.integers(0, 2**32 - 1))
def test_implicit_beta_without_weight_is_beta_and_knows_no_common_shift(
    ratios: tuple[Tensor, Tensor], beta: float, seed: int
) -> None:
    margins = ratios[0] - ratios[1]
    sample = implicit_sample(margins, generator=torch.Generator().manual_seed(seed))
    assert implicit_beta(margins, sample, beta=beta, weight=0.0).item() == beta
    shifted = implicit_beta(margins + 5.0, sample, beta=beta, weight=0.1)
    _close(shifted, implicit_beta(margins, sample, beta=beta, weight=0.1))


@given(ratios=log_ratios(), margins=st.lists(st.floats(-8.0, 8.0), min_size=5, max_size=5))
def test_exchanging_the_responses_of_a_pair_negates_its_margin_and_mirrors_its_loss(
    ratios: tuple[Tensor, Tensor], margins: list[float]
) -> None:
    rows = len(ratios[0])
    betas = margin_betas(_doubles(margins[:rows]), beta=0.1, weight=0.5, steepness=0.5, negative="clamp").betas
    result, exchanged = (dpo_loss(a, b, kind="sigmoid", beta=betas) for a, b in (ratios, ratios[::-1]))
    assert torch.equal(result.margin, -exchanged.margin)
    # -log sigma(-x) = -log sigma(x) + x
    _close(exchanged.loss, result.loss + betas * (ratios[0] - ratios[1]))


@pytest.mark.parametrize("mode", SFT_MODES)
@given(batch=batches())
def test_weights_of_responses_are_those_of_their_tokens(
    mode: Literal["token-mean", "seq-mean-token-mean"], batch: Batch
) -> None:
    weights = token_weights(
        batch.mask, mode=mode, global_num_sequences=batch.num_sequences, global_num_tokens=batch.num_tokens
    )
    num_tokens = batch.mask.sum(dim=1)
    of_responses = response_weights(
        num_tokens,
        torch.ones_like(num_tokens),
        mode=mode,
        global_num_sequences=batch.num_sequences,
        global_num_tokens=batch.num_tokens,
    )
    found = imitation(batch.logprobs, batch.mask, of_responses)
    _close(found, weighted(sft_loss_map(batch.logprobs, batch.mask), weights).sum())


@pytest.mark.parametrize("mode", SFT_MODES)
@given(batch=batches(), data=st.data())
def test_a_repeat_is_another_copy_of_the_response(
    mode: Literal["token-mean", "seq-mean-token-mean"], batch: Batch, data: st.DataObject
) -> None:
    rows = len(batch.mask)
    repeats = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=rows, max_size=rows)))
    copied = batch.mask.repeat_interleave(repeats, dim=0)
    counts = {
        "global_num_sequences": max(int(copied.any(dim=1).sum()), 1),
        "global_num_tokens": max(int(copied.sum()), 1),
    }
    once = torch.ones(len(copied), dtype=torch.long)
    repeated = response_weights(batch.mask.sum(dim=1), repeats, mode=mode, **counts)
    of_copies = response_weights(copied.sum(dim=1), once, mode=mode, **counts)
    _close(
        imitation(batch.logprobs, batch.mask, repeated),
        imitation(batch.logprobs.repeat_interleave(repeats, dim=0), copied, of_copies),
    )


@given(pairs=_annotated(), preference=WEIGHTS, tie=WEIGHTS, shift=st.integers(-64, 64))
def test_a_shift_of_both_scores_changes_nothing_without_centring(
    pairs: tuple[Tensor, Tensor, Tensor], preference: float, tie: float, shift: int
) -> None:
    chosen, rejected, ties = pairs
    weights = {"preference_weight": preference, "tie_weight": tie, "centre_weight": 0.0}
    # Whole numbers on top of multiples of 2^-8: the differences stay exact.
    plain, shifted = (_critique_loss(chosen + s, rejected + s, ties, **weights) for s in (0.0, float(shift)))
    assert torch.equal(plain, shifted)


@given(pairs=_annotated(), centre=st.floats(0.01, 4.0))
def test_centring_is_least_where_the_scores_of_a_pair_are_opposite(
    pairs: tuple[Tensor, Tensor, Tensor], centre: float
) -> None:
    chosen, rejected, ties = pairs
    weights = {"preference_weight": 1.0, "tie_weight": 1.0, "centre_weight": centre}
    middle = (chosen + rejected) / 2
    loss, centred = (_critique_loss(chosen - m, rejected - m, ties, **weights) for m in (0 * middle, middle))
    _close(loss - centred, centre * (chosen + rejected).square())


@given(pairs=_annotated(), tie=WEIGHTS, centre=WEIGHTS)
def test_a_tie_does_not_care_which_response_is_called_chosen(
    pairs: tuple[Tensor, Tensor, Tensor], tie: float, centre: float
) -> None:
    chosen, rejected, ties = pairs
    weights = {"preference_weight": 1.0, "tie_weight": tie, "centre_weight": centre}
    loss, exchanged = (_critique_loss(a, b, ties, **weights) for a, b in ((chosen, rejected), (rejected, chosen)))
    assert torch.equal(loss[ties], exchanged[ties])


@given(scores=log_ratios())
def test_without_ties_and_centring_it_is_bradley_terry(scores: tuple[Tensor, Tensor]) -> None:
    weights = {"preference_weight": 1.0, "tie_weight": 1.0, "centre_weight": 0.0}
    loss = _critique_loss(*scores, torch.zeros(len(scores[0]), dtype=torch.bool), **weights)
    assert torch.equal(loss, bradley_terry_loss(*scores).loss)


@given(pairs=_annotated(), score=WEIGHTS, tie=WEIGHTS, centre=WEIGHTS, data=st.data())
def test_however_the_pairs_are_split_the_sum_is_the_mean_over_each_kind_of_pair(
    pairs: tuple[Tensor, Tensor, Tensor], score: float, tie: float, centre: float, data: st.DataObject
) -> None:
    chosen, rejected, ties = pairs
    num_pairs, num_ties = len(ties), int(ties.sum())
    preference_weight, tie_weight = mean_weights(
        float(num_pairs - num_ties), float(num_ties), score_weight=score, tie_weight=tie
    )
    total = sum(
        (
            _critique_loss(
                chosen[rows],
                rejected[rows],
                ties[rows],
                preference_weight=preference_weight,
                tie_weight=tie_weight,
                centre_weight=centre,
            )
            / num_pairs
        ).sum()
        for rows in data.draw(row_splits(num_pairs))
    )
    gap = chosen - rejected
    expected = centre * (chosen + rejected).square().mean()
    if num_ties < num_pairs:
        expected = expected + score * bradley_terry_loss(chosen[~ties], rejected[~ties]).loss.mean()
    if num_ties:
        expected = expected + score * tie * gap[ties].square().mean()
    assert isinstance(total, Tensor)
    _close(total, expected)
