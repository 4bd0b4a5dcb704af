"""What is tried before a run is stopped, in which order, and what the last sentence says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.figures import Mean, Most, Sum
from algorithms.maths.logprobs import Mismatch, logprob_mismatch
from algorithms.policy_gradient import AlgorithmSection
from algorithms.records import Rollout, Sequence, TrainSample
from algorithms.reinforce_pp import ReinforcePp
from algorithms.tokens import MISMATCH
from orchestrator.errors import GuardStop
from orchestrator.rewards.reward import Reward, RewardStatus, check_unknown
from orchestrator.run.guards import check_finite, mismatch_in, mismatch_of, mismatch_remedy
from workers.types import RankUpdate

_WIDE = Mismatch(abs_mean=0.3, abs_max=1.0, num_nonfinite=0)
_CLOSE = Mismatch(abs_mean=0.01, abs_max=1.0, num_nonfinite=0)


def _reward(status: RewardStatus, *, consistency: float | None = None, detail: str | None = None) -> Reward:
    value = None if status == "failed" else 1.5
    parts = {"format": 1.0, "accuracy": 1.0, "consistency": consistency}
    return Reward(value=value, parts=parts, status=status, detail=detail)


def test_a_judge_that_is_unreadable_more_often_than_allowed_stops_the_run_and_is_quoted() -> None:
    said = _reward("unknown", consistency=0.0, detail="the judge gave no verdict: '<think>'")
    judged, wrong, lost = _reward("scored", consistency=1.0), _reward("scored"), _reward("failed")
    others = [wrong] * 50 + [lost] * 5 + [_reward("cached", consistency=1.0)] * 20
    check_unknown([said] * 2 + [judged] * 2 + others, most=0.5)
    check_unknown([said] * 9 + others, most=None)
    check_unknown([said, *others], most=0.5)  # of one nobody can tell
    check_unknown(others, most=0.0)
    with pytest.raises(
        GuardStop,
        match=r"no verdict on 3 of the 5 samples it was asked about, a share of 0\.600 above reward\.max_unknown = "
        r"0\.5; for example: the judge gave no verdict: '<think>'",
    ):
        check_unknown([said] * 3 + [judged] * 2 + others, most=0.5)
    with pytest.raises(GuardStop, match="1 of the 9 samples"):
        check_unknown([said, *[judged] * 8], most=0.0)


def test_each_step_in_a_row_beyond_the_bound_goes_one_further() -> None:
    strikes, remedies = 0, []
    for _ in range(3):
        remedy, strikes = mismatch_remedy(_WIDE, strikes, bound=0.1)
        remedies.append(remedy)
    assert remedies == ["warn", "correct", "resync"]
    with pytest.raises(GuardStop, match=r"differ by 0\.3 nats a token on average \(guard\.max_mismatch = 0\.1\)"):
        mismatch_remedy(_WIDE, strikes, bound=0.1)


def test_a_step_within_the_bound_starts_again() -> None:
    _, strikes = mismatch_remedy(_WIDE, 2, bound=0.1)
    assert mismatch_remedy(_CLOSE, strikes, bound=0.1) == ("none", 0)
    assert mismatch_remedy(_WIDE, 0, bound=0.1) == ("warn", 1)


def _sample() -> TrainSample:
    ids = np.arange(4)
    return TrainSample(
        sequence=Sequence(uid="p", sample_index=0, input_ids=ids, prompt_len=1, media=()),
        loss_weight=np.array([0.0, 0.25, 0.25, 0.5]),
        advantages=np.ones(4, np.float32),
        old_logprobs=np.log(np.array([1.0, 0.5, 0.6, 0.2], np.float32)),
        rollout_logprobs=np.log(np.array([1.0, 0.5, 0.2, 0.4], np.float32)),
    )


def _corrected(sample: TrainSample, **chosen: Any) -> TrainSample:
    (found,) = ReinforcePp("reinforce_pp", {"algorithm": AlgorithmSection(**chosen)}).corrected([sample])
    return found


def test_a_correction_weighs_each_token_by_trainer_over_engine_up_to_two() -> None:
    # Ratios 1, 3 cut to 2, and 0.5.
    np.testing.assert_allclose(_corrected(_sample()).loss_weight, [0.0, 0.25, 0.5, 0.25], rtol=1e-6)


def test_a_loss_that_is_corrected_already_is_not_corrected_twice() -> None:
    np.testing.assert_array_equal(_corrected(_sample(), correction="token_mask").loss_weight, _sample().loss_weight)


def test_a_token_the_engine_could_not_score_is_left_out_of_a_corrected_batch() -> None:
    broken = replace(_sample(), rollout_logprobs=np.array([0.0, np.nan, -1.0, -1.0], np.float32))
    assert _corrected(broken).loss_weight[1] == 0.0


def test_what_is_not_finite_is_named_and_stops_the_run_or_is_skipped() -> None:
    ranks = [RankUpdate(), RankUpdate(nonfinite=("train-000007", "train-000009"))]
    assert check_finite(ranks[:1], action="stop")
    assert not check_finite(ranks, action="skip")
    with pytest.raises(GuardStop, match=r"2 samples is not finite \(train-000007, train-000009\); no optimizer step"):
        check_finite(ranks, action="stop")


def _gap(total: float, count: float, most: float, unscored: int) -> RankUpdate:
    shares = (Mean(total, count), Most(most), Sum(unscored))
    return RankUpdate(figures={figure.name: share for figure, share in zip(MISMATCH, shares, strict=True)})


def test_the_gap_of_an_update_is_that_of_all_ranks_over_the_tokens_they_could_compare() -> None:
    ranks = [_gap(0.5, 3, 0.3, 1), _gap(1.0, 3, 0.9, 0)]
    assert mismatch_in([ranks]) == Mismatch(1.5 / 6, 0.9, 1)
    assert mismatch_in([[_gap(0.0, 0, 0.0, 4)]]) == Mismatch(0.0, 0.0, 4)
    assert mismatch_in([]) is None
    assert mismatch_in([[RankUpdate()]]) is None


def test_the_gap_of_a_rollout_is_that_of_what_has_a_reward() -> None:
    sample = _sample()
    lost = Rollout(
        sequence=sample.sequence,
        reward=None,
        rollout_logprobs=np.full(4, np.nan, np.float32),
        old_logprobs=sample.old_logprobs,
        ref_logprobs=None,
    )
    good = replace(lost, reward=1.0, rollout_logprobs=sample.rollout_logprobs)
    # ln 1, ln 3, ln 2 behind a prompt of one token
    gaps = np.log([1.0, 3.0, 2.0])
    found = mismatch_of([lost, good])
    assert found is not None
    assert (found.abs_mean, found.abs_max) == (pytest.approx(gaps.mean()), pytest.approx(gaps.max()))
    assert found.num_nonfinite == 0
    assert mismatch_of([replace(good, old_logprobs=None)]) is None


@pytest.mark.parametrize("share", [None, 0.5])
@pytest.mark.parametrize("poison", [False, True])
def test_the_gap_is_to_the_bit_that_of_all_tokens_one_behind_the_other(share: float | None, *, poison: bool) -> None:
    rng, rollouts, masks = np.random.default_rng(0), list[Rollout](), list[np.ndarray]()
    for prompt_len, length in zip(rng.integers(1, 9, 40), rng.integers(0, 300, 40), strict=True):
        size = int(prompt_len + length)
        sequence = replace(_sample().sequence, input_ids=np.zeros(size, np.int32), prompt_len=int(prompt_len))
        old, sampled = rng.random((2, size)).astype(np.float32)
        if poison:
            sampled[rng.random(size) < 0.1] = np.nan
        rollouts.append(
            Rollout(sequence=sequence, reward=1.0, rollout_logprobs=sampled, old_logprobs=old, ref_logprobs=None)
        )
        masks.append(sequence.action_mask & (rng.random(size) < (share or 1.0)))
    rows = [
        (
            r.old_logprobs[r.sequence.prompt_len :],
            r.rollout_logprobs[r.sequence.prompt_len :],
            m[r.sequence.prompt_len :],
        )
        for r, m in zip(rollouts, masks, strict=True)
        if r.old_logprobs is not None
    ]
    joint = (torch.from_numpy(np.concatenate(column))[None] for column in zip(*rows, strict=True))
    assert mismatch_of(rollouts, among=None if share is None else masks) == logprob_mismatch(*joint)
