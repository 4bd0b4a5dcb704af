"""Pair losses, log-probs of responses, token diff and DDPO against the numbers of VL-RLHF's own code."""

from functools import partial

import jaxtyping
import pytest
import torch
from torch import Tensor

from algorithms.maths.logprobs import token_logprobs
from algorithms.maths.preference_losses import DpoKind, PairLoss, dpo_loss, kto_pair_loss, weighted_scores
from algorithms.maths.token_diff import DDPO_MODES, ddpo_weights, token_diff
from tests.golden import vectors
from tests.golden.vectors import DECIMAL_TOLERANCE, Case, floats, one, select
from tests.response_scores import response_scores

FILE = "vl_rlhf.json"
DPO = "src/vlrlhf/base/trainer.py:244-301"
LOGPS = "src/vlrlhf/base/trainer.py:149-188"
DIFF = "src/vlrlhf/utils/diff_lib.py:173-180"
KINDS: dict[str, DpoKind] = {"sigmoid": "sigmoid", "ddpo": "sigmoid", "hinge": "hinge", "ipo": "ipo_sum"}
SMOOTHED = ("sigmoid", "ddpo")
"""Loss types whose label smoothing the original does not ignore."""

assert_close = partial(vectors.assert_close, tolerances=DECIMAL_TOLERANCE)


def _name(case: Case) -> str:
    return case.name


def _short(case: Case) -> str:
    return case.name.partition("/")[2]


PAIRS = [case for case in select(FILE, DPO) if "raises" not in case.outputs]


def _log_ratios(case: Case) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Log-ratios as the loss of the case reads them, and the policy's log-probs they came from."""
    policy = floats(case, "policy_chosen_logps", "policy_rejected_logps", grad=True)
    reference = floats(case, "reference_chosen_logps", "reference_rejected_logps")
    if case.params["reference_free"] and case.params["loss_type"] != "kto_pair":
        return (policy[0], policy[1]), policy
    return (policy[0] - reference[0], policy[1] - reference[1]), policy


def _pair_loss(case: Case, *, label_smoothing: float) -> tuple[PairLoss, list[Tensor]]:
    log_ratios, policy = _log_ratios(case)
    beta, loss_type = case.params["beta"], case.params["loss_type"]
    if loss_type == "kto_pair":
        return kto_pair_loss(*log_ratios, beta=beta), policy
    return dpo_loss(*log_ratios, kind=KINDS[loss_type], beta=beta, label_smoothing=label_smoothing), policy


@pytest.mark.parametrize("case", PAIRS, ids=_name)
def test_pair_loss_and_gradient(case: Case) -> None:
    smoothing = case.params["label_smoothing"] if case.params["loss_type"] in SMOOTHED else 0.0
    result, policy = _pair_loss(case, label_smoothing=smoothing)
    stored = torch.tensor(case.outputs["losses"], dtype=case.dtype)
    # Their kto_pair has 2B terms, chosen first; ours averages the two of each pair.
    assert_close(result.loss, stored.view(2, -1).mean(dim=0) if len(stored) > len(result.loss) else stored)
    assert_close(result.loss.mean(), case.outputs["loss_mean"])
    gradients = torch.autograd.grad(result.loss.mean(), policy)
    assert_close(gradients[0], case.outputs["grad_policy_chosen"])
    assert_close(gradients[1], case.outputs["grad_policy_rejected"])


@pytest.mark.parametrize("case", PAIRS, ids=_name)
def test_rewards_need_no_reference_where_the_loss_has_none(case: Case) -> None:
    result, policy = _pair_loss(case, label_smoothing=0.0)
    rewards = (result.chosen_rewards, result.rejected_rewards)
    references = ("reference_chosen_logps", "reference_rejected_logps")
    free = case.params["reference_free"] and case.params["loss_type"] != "kto_pair"
    for reward, name, reference, own in zip(
        rewards, ("chosen_rewards", "rejected_rewards"), floats(case, *references), policy, strict=True
    ):
        assert not reward.requires_grad
        if free:
            # Without a reference our reward is that of the loss, beta log pi.
            assert_close(reward, case.params["beta"] * own.detach())
            assert_close(reward - case.params["beta"] * reference, case.outputs[name])
        else:
            assert_close(reward, case.outputs[name])


@pytest.mark.parametrize("case", [case for case in PAIRS if case.name.endswith("hinge/label_smoothing")], ids=_name)
def test_label_smoothing_of_hinge_is_refused_where_the_original_ignores_it(case: Case) -> None:
    with pytest.raises(ValueError, match=r"label_smoothing = 0\.1 has no meaning for hinge"):
        _pair_loss(case, label_smoothing=case.params["label_smoothing"])


def test_unknown_kind_is_refused_as_by_the_original() -> None:
    case = one(FILE, DPO, "dpo_loss/sigmoidal/unknown")
    assert case.outputs["raises"] == "ValueError"
    # In tests the shape checker looks at the literal before the function does.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        dpo_loss(torch.zeros(2), torch.zeros(2), kind=case.params["loss_type"], beta=0.1)


RESPONSES = [case for case in select(FILE, LOGPS) if "raises" not in case.outputs]
EMPTY_MEAN = ("average_empty_mask_row", "ddpo_average_identical_is_nan")


def _tokens(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """``(logprobs, mask, ids)``, ids 0 where nothing is counted, as the original diffs them."""
    logits, labels = torch.tensor(case.inputs["logits"], dtype=case.dtype), torch.tensor(case.inputs["labels"])
    if not case.params["is_encoder_decoder"]:
        logits, labels = logits[:, :-1], labels[:, 1:]
    mask = labels != case.params["label_pad_token_id"]
    ids = labels.where(mask, 0)
    logprobs, *_ = token_logprobs(logits.flatten(0, 1), ids.flatten())
    return logprobs.view_as(labels), mask, ids


def _seen_there(case: Case) -> Tensor:
    """Tokens of a response that the original counts: those that its diff sees, where it has one."""
    return torch.tensor(case.outputs["weight_mask"]) > 0


def _scores(case: Case, logprobs: Tensor, mask: Tensor) -> Tensor:
    average = case.params["average_log_prob"]
    if not case.params["mask_shared_tokens"]:
        return response_scores(logprobs, mask, reduction="mean" if average else "sum")
    mode = DDPO_MODES["vl_rlhf"]
    weights = ddpo_weights(mask, _seen_there(case), gamma=mode.gamma, average=average, base_weight=mode.base_weight)
    return weighted_scores(logprobs, weights).to(case.dtype)


@pytest.mark.parametrize("case", RESPONSES, ids=_name)
def test_scores_of_responses(case: Case) -> None:
    logprobs, mask, _ = _tokens(case)
    counted = _seen_there(case)
    if case.params["mask_shared_tokens"]:
        assert not (counted & ~mask).any()
    else:
        assert torch.equal(counted, mask)
    # At uncounted positions the original scores label 0, which is what the ids hold here.
    assert_close(logprobs, case.outputs["per_token_logps"])
    stored = torch.tensor(case.outputs["logps"], dtype=case.dtype)
    # The mean of nothing is 0 here and NaN there.
    assert bool(stored.isnan().any()) == _short(case).startswith(EMPTY_MEAN)
    assert torch.equal(stored.isnan(), ~counted.any(dim=1) & case.params["average_log_prob"])
    assert_close(_scores(case, logprobs, mask), stored.nan_to_num(0.0))


@pytest.mark.parametrize(
    "name", ["ddpo_insertion_padded", "ddpo_tail_insertion_padded", "ddpo_tail_insertion_then_pad_both"]
)
def test_inserted_tokens_are_scored_where_the_original_sees_nothing_or_what_padding_lets_it_see(name: str) -> None:
    case = one(FILE, LOGPS, f"get_batch_logps/{name}")
    logprobs, mask, ids = _tokens(case)
    chosen, rejected = (row[counted].tolist() for row, counted in zip(ids, mask, strict=True))
    diff = token_diff(chosen, rejected)
    corrected = torch.zeros_like(mask)
    for row in range(2):
        corrected[row, mask[row]] = torch.tensor(diff[row])
    weights = ddpo_weights(mask, corrected, gamma=1.0, average=False, base_weight=0)
    scores = weighted_scores(logprobs, weights).to(case.dtype)
    inserted = len(rejected) - len(chosen)
    assert not corrected[0].any()
    assert corrected[1].sum() == inserted > 0
    assert scores[0] == 0.0
    assert_close(scores[1], logprobs[1][corrected[1]].sum())
    seen_there = int(torch.tensor(case.outputs["weight_mask"])[1].sum())
    assert seen_there == (inserted if name == "ddpo_tail_insertion_padded" else 0)


@pytest.mark.parametrize("name", ["ddpo_odd_rows", "shape_mismatch"])
def test_rows_that_do_not_fit_each_other_cannot_be_expressed(name: str) -> None:
    case = one(FILE, LOGPS, f"get_batch_logps/{name}")
    logits, labels = torch.tensor(case.inputs["logits"], dtype=case.dtype), torch.tensor(case.inputs["labels"])
    if name == "shape_mismatch":
        with pytest.raises(jaxtyping.TypeCheckError):
            token_logprobs(logits.flatten(0, 1), labels.clamp(min=0).flatten())
    else:
        # Pairs are made before they are scored, so half a pair fails where both sides meet.
        scores = response_scores(torch.zeros(labels.shape), labels > 0, reduction="sum")
        with pytest.raises(jaxtyping.TypeCheckError):
            dpo_loss(scores[: len(scores) // 2], scores[len(scores) // 2 :], kind="sigmoid", beta=0.1)
    assert case.outputs["raises"] in ("AssertionError", "ValueError")


def _positions(marks: list[bool]) -> list[int]:
    return [position for position, marked in enumerate(marks) if marked]


OUR_DIFF = {
    # Insertions and deletions, unseen there.
    "insertion_mid": ([], [5, 6]),
    "insertion_start": ([], [0, 1, 2]),
    "deletion_mid": ([4, 5, 6], []),
    "tail_insertion_no_pad": ([], [8, 9, 10]),
    "insertion_plus_substitution": ([9], [4, 10]),
    "one_empty": ([0, 1, 2, 3], []),
    "long_insertion": ([], [120, 121]),
    # Padding is no part of our input. Given it anyway, a one-sided tail is a replacement; equal tails are common.
    "tail_insertion_pad_both_2": ([8, 9, 10], [8, 9, 10]),
    "tail_insertion_pad_both_4": ([8, 9, 10], [8, 9, 10]),
    # An identical pair, marked whole there because it is short.
    "shorter_than_min_match": ([], []),
    # Only the substitution; autojunk loses 149 and 99 more tokens there.
    "len250_every_token_frequent_one_substitution": ([100], [100]),
    "len200_every_token_frequent_one_substitution": ([100], [100]),
}


@pytest.mark.parametrize("case", select(FILE, DIFF), ids=_name)
def test_our_diff_agrees_with_the_original_but_for_its_known_losses(case: Case) -> None:
    a, b = token_diff(case.inputs["a"], case.inputs["b"], min_match=case.params["min_match_size"])
    stored = (case.outputs["a_ids"], case.outputs["b_ids"])
    expected = OUR_DIFF.get(_short(case), stored)
    assert (_positions(a), _positions(b)) == expected
    assert (expected != stored) == (_short(case) in OUR_DIFF)
