"""Pair losses, KTO and the reward model's loss against the numbers of TRL 1.16."""

from functools import partial

import jaxtyping
import pytest
import torch
from torch import Tensor

from algorithms.maths.aggregation import token_weights, weighted
from algorithms.maths.kto import kto_baseline, kto_loss
from algorithms.maths.policy_losses import sft_loss_map
from algorithms.maths.preference_losses import (
    DPO_REDUCTION,
    DpoKind,
    PairLoss,
    Reduction,
    bco_loss,
    bradley_terry_loss,
    dpo_loss,
)
from algorithms.mpo import MpoSection
from tests.golden import vectors
from tests.golden.vectors import DECIMAL_TOLERANCE, Case, floats, load, one, select
from tests.response_scores import response_scores

FILE = "trl.json"
DPO = "trl.trainer.dpo_trainer:DPOTrainer._compute_loss"
KTO = "trl.trainer.kto_trainer:KTOTrainer._compute_loss"
REWARD = "trl.trainer.reward_trainer:RewardTrainer.compute_loss"
CPO = "trl.experimental.cpo.cpo_trainer:CPOTrainer.cpo_loss"
LEFT_OUT = {
    # Losses of TRL that have no counterpart here: another meaning of smoothing (robust), another loss altogether,
    # another divergence (ld_alpha discounts the tail of the longer response), or sorting over the batch (aot).
    DPO: {
        "robust_0", "robust_1", "robust_zero_smoothing", "aot_label_smoothing_b3", "aot_unpaired_label_smoothing",
        "exo_pair", "nca_pair", "sppo_hard", "apo_down", "discopop",
        "ld_alpha", "forward_kl", "js_divergence", "alpha_divergence_float32",
    },
    CPO: {"simpo", "simpo_label_smoothing", "simpo_extreme", "simpo_equal", "alpha_po"},
}  # fmt: skip
KINDS: dict[str, tuple[DpoKind, Reduction]] = {
    "sigmoid": ("sigmoid", "sum"),
    "hinge": ("hinge", "sum"),
    "ipo": ("ipo_mean", "mean"),
    "sigmoid_norm": ("sigmoid", "mean"),
    # Sorting one margin changes nothing, so this is the plain loss, and the only one that smooths labels.
    "aot": ("sigmoid", "sum"),
}
CPO_KINDS: dict[str, DpoKind] = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo_sum"}

assert_close = partial(vectors.assert_close, tolerances=DECIMAL_TOLERANCE)


def _name(case: Case) -> str:
    return case.name


def _short(case: Case) -> str:
    return case.name.partition("/")[2]


PAIRS = [
    case
    for case in select(FILE, DPO)
    if _short(case) not in LEFT_OUT[DPO] | {"unknown", "sft", "sigmoid_sft_weights", "apo_zero", "mpo_sigmoid_bco_sft"}
    and not _short(case).startswith("bco_pair")
]


def _tokens(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """``(logprobs, ref_logprobs, mask)`` of all rows, chosen first; NaN wherever the mask is False."""
    logprobs, reference = floats(case, "per_token_logps", "ref_per_token_logps")
    mask = torch.tensor(case.inputs["completion_mask"], dtype=torch.bool)[:, 1:]
    logprobs, reference = (values.masked_fill(~mask, float("nan")) for values in (logprobs, reference))
    return logprobs.requires_grad_(), reference, mask


def _log_ratios(logprobs: Tensor, reference: Tensor, mask: Tensor, reduction: Reduction) -> tuple[Tensor, Tensor]:
    """As a trainer would make them: two reductions, subtracted."""
    ratios = response_scores(logprobs, mask, reduction=reduction) - response_scores(
        reference, mask, reduction=reduction
    )
    half = len(ratios) // 2
    return ratios[:half], ratios[half:]


def _pair_loss(case: Case, logprobs: Tensor, reference: Tensor, mask: Tensor, label_smoothing: float) -> PairLoss:
    kind, reduction = KINDS[case.params["loss_type"][0]]
    return dpo_loss(
        *_log_ratios(logprobs, reference, mask, reduction),
        kind=kind,
        beta=case.params["beta"],
        label_smoothing=label_smoothing,
    )


@pytest.mark.parametrize("case", PAIRS, ids=_name)
def test_pair_loss_and_gradient(case: Case) -> None:
    logprobs, reference, mask = _tokens(case)
    smoothing = 0.0 if case.name.endswith("_is_ignored") else case.params["label_smoothing"]
    loss = _pair_loss(case, logprobs, reference, mask, smoothing).loss.mean()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])


@pytest.mark.parametrize("case", PAIRS, ids=_name)
def test_metrics_are_of_summed_log_ratios(case: Case) -> None:
    logprobs, reference, mask = _tokens(case)
    summed = dpo_loss(*_log_ratios(logprobs, reference, mask, "sum"), kind="sigmoid", beta=case.params["beta"])
    assert_close(summed.chosen_rewards.mean(), case.outputs["rewards/chosen"])
    assert_close(summed.rejected_rewards.mean(), case.outputs["rewards/rejected"])
    assert_close(summed.margin.mean(), case.outputs["rewards/margins"])
    # TRL makes the accuracy in float32 whatever the rest is.
    assert_close(summed.correct.float().mean(), case.outputs["rewards/accuracies"])
    chosen, rejected = response_scores(logprobs.detach(), mask, reduction="sum").chunk(2)
    assert_close(chosen.mean(), case.outputs["logps/chosen"])
    assert_close(rejected.mean(), case.outputs["logps/rejected"])


def test_rewards_of_a_mean_reduction_are_per_token_where_trl_reports_sums() -> None:
    case = one(FILE, DPO, "dpo/ipo_random")
    logprobs, reference, mask = _tokens(case)
    result = _pair_loss(case, logprobs, reference, mask, 0.0)
    lengths = mask.sum(dim=1).chunk(2)
    assert_close((result.chosen_rewards * lengths[0]).mean(), case.outputs["rewards/chosen"])
    assert_close((result.rejected_rewards * lengths[1]).mean(), case.outputs["rewards/rejected"])
    assert abs(result.chosen_rewards.mean().item() - case.outputs["rewards/chosen"]) > 1e-2


def test_kinds_name_the_reduction_that_tells_the_two_ipos_apart() -> None:
    case = one(FILE, DPO, "dpo/ipo_random")
    logprobs, reference, mask = _tokens(case)
    losses = {
        kind: dpo_loss(
            *_log_ratios(logprobs, reference, mask, DPO_REDUCTION[kind]), kind=kind, beta=case.params["beta"]
        ).loss.mean()
        for kind in ("ipo_sum", "ipo_mean")
    }
    assert_close(losses["ipo_mean"], case.outputs["loss"])
    assert abs(losses["ipo_sum"].item() - case.outputs["loss"]) > 1.0


def test_label_smoothing_acts_where_trl_ignores_it() -> None:
    case = one(FILE, DPO, "dpo/sigmoid_label_smoothing_is_ignored")
    tokens, smoothing = _tokens(case), case.params["label_smoothing"]
    plain, swapped = (
        dpo_loss(*ratios, kind="sigmoid", beta=case.params["beta"]).loss.mean()
        for ratios in (_log_ratios(*tokens, "sum"), _log_ratios(*tokens, "sum")[::-1])
    )
    assert_close(plain, case.outputs["loss"])
    smoothed = _pair_loss(case, *tokens, smoothing).loss.mean()
    assert_close(smoothed, (1 - smoothing) * plain + smoothing * swapped)
    assert abs(smoothed.item() - case.outputs["loss"]) > 1e-4


def test_label_smoothing_of_hinge_is_refused_where_trl_ignores_it() -> None:
    case = one(FILE, DPO, "dpo/hinge_label_smoothing_is_ignored")
    with pytest.raises(ValueError, match="has no meaning for hinge"):
        _pair_loss(case, *_tokens(case), case.params["label_smoothing"])


def test_unknown_kind_is_refused_as_by_the_original() -> None:
    case = one(FILE, DPO, "dpo/unknown")
    assert case.outputs["raises"] == "ValueError"
    # In tests the shape checker looks at the literal before the function does.
    with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
        dpo_loss(torch.zeros(2), torch.zeros(2), kind=case.params["loss_type"][0], beta=0.1)


def _bco_loss(case: Case, logprobs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Their running mean of rewards is 0 in the first call, whatever the batch is."""
    ratios = _log_ratios(logprobs, reference, mask, "sum")
    return bco_loss(*ratios, beta=case.params["beta"], shift=0.0).loss.mean()


@pytest.mark.parametrize("name", ["dpo/bco_pair_0", "dpo/bco_pair_1", "dpo/bco_pair_2"])
def test_bco_of_pairs(name: str) -> None:
    case = one(FILE, DPO, name)
    logprobs, reference, mask = _tokens(case)
    loss = _bco_loss(case, logprobs, reference, mask)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])


def test_mpo_is_three_losses_by_their_weights() -> None:
    case = one(FILE, DPO, "dpo/mpo_sigmoid_bco_sft")
    logprobs, reference, mask = _tokens(case)
    half, own = len(mask) // 2, MpoSection()
    assert [own.dpo_weight, own.bco_weight, own.sft_weight] == case.params["loss_weights"]
    # Theirs is the mean over tokens, as in mm_dpo; that of mpo is the paper's, over responses of their means.
    weights = token_weights(
        mask[:half], mode="token-mean", global_num_sequences=half, global_num_tokens=int(mask[:half].sum())
    )
    loss = (
        own.dpo_weight * _pair_loss(case, logprobs, reference, mask, 0.0).loss.mean()
        + own.bco_weight * _bco_loss(case, logprobs, reference, mask)
        + own.sft_weight * weighted(sft_loss_map(logprobs[:half], mask[:half]), weights).sum()
    )
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])


@pytest.mark.parametrize("name", ["dpo/sft", "dpo/sigmoid_sft_weights"])
def test_sft_term_is_the_token_mean_over_chosen_responses(name: str) -> None:
    case = one(FILE, DPO, name)
    logprobs, reference, mask = _tokens(case)
    half = len(mask) // 2
    weights = token_weights(
        mask[:half], mode="token-mean", global_num_sequences=half, global_num_tokens=int(mask[:half].sum())
    )
    sft = weighted(sft_loss_map(logprobs[:half], mask[:half]), weights).sum()
    if name == "dpo/sft":
        loss = sft
    else:
        pair = _pair_loss(case, logprobs, reference, mask, 0.0).loss.mean()
        loss = case.params["loss_weights"][0] * pair + case.params["loss_weights"][1] * sft
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])


def test_paired_apo_zero_is_the_unpaired_one_over_both_halves() -> None:
    case = one(FILE, DPO, "dpo/apo_zero")
    logprobs, reference, mask = _tokens(case)
    ratios = torch.cat(_log_ratios(logprobs, reference, mask, "sum"))
    desirable = torch.arange(len(ratios)) < len(ratios) // 2
    terms, _ = kto_loss(
        ratios, desirable, baseline=0.0, beta=case.params["beta"], desirable_weight=1.0, undesirable_weight=1.0
    )
    loss = terms.sum() / (len(ratios) // 2)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])


@pytest.mark.parametrize("case", [case for case in select(FILE, CPO) if _short(case) not in LEFT_OUT[CPO]], ids=_name)
def test_cpo_is_dpo_without_a_reference(case: Case) -> None:
    policy = floats(case, "policy_chosen_logps", "policy_rejected_logps", grad=True)
    result = dpo_loss(
        *policy,
        kind=CPO_KINDS[case.params["loss_type"]],
        beta=case.params["beta"],
        label_smoothing=case.params["label_smoothing"],
    )
    gradients = torch.autograd.grad(result.loss.mean(), policy)
    assert_close(result.loss, case.outputs["losses"])
    assert_close(result.chosen_rewards, case.outputs["chosen_rewards"])
    assert_close(result.rejected_rewards, case.outputs["rejected_rewards"])
    assert_close(gradients[0], case.outputs["grad_chosen"])
    assert_close(gradients[1], case.outputs["grad_rejected"])


def _kto_ratios(case: Case, prefix: str = "") -> tuple[Tensor, Tensor]:
    """``(log_ratios, policy log-probs)``; NaN wherever the mask is False."""
    mask = torch.tensor(case.inputs[f"{prefix}completion_mask"], dtype=torch.bool)[:, 1:]
    logprobs, reference = (
        values.masked_fill(~mask, float("nan"))
        for values in floats(case, f"{prefix}per_token_logps", f"{prefix}ref_per_token_logps")
    )
    logprobs.requires_grad_()
    scores = (response_scores(values, mask, reduction="sum") for values in (logprobs, reference))
    return next(scores) - next(scores), logprobs


@pytest.mark.parametrize("case", select(FILE, KTO), ids=_name)
def test_kto_loss_baseline_and_gradient(case: Case) -> None:
    ratios, logprobs = _kto_ratios(case)
    desirable = torch.tensor(case.inputs["label"], dtype=torch.bool)
    baseline = 0.0
    if case.params["calculate_KL"]:
        of_mismatched, _ = _kto_ratios(case, "KL_")
        baseline = kto_baseline(of_mismatched.detach().double().sum().item(), len(of_mismatched))
    weights = {name: case.params[name] for name in ("beta", "desirable_weight", "undesirable_weight")}
    # Their apo_zero_unpaired is kto against no baseline.
    assert not (case.params["calculate_KL"] and case.params["loss_type"] == "apo_zero_unpaired")
    loss, rewards = kto_loss(ratios, desirable, baseline=baseline, **weights)
    (gradient,) = torch.autograd.grad(loss.mean(), logprobs)
    assert_close(torch.tensor(baseline, dtype=case.dtype), case.outputs["kl"])
    assert case.outputs["grad_KL_per_token_logps_is_none"]
    assert_close(loss.mean(), case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_per_token_logps"])
    assert not rewards.requires_grad
    for name, rows in (("chosen", desirable), ("rejected", ~desirable)):
        assert (f"rewards/{name}" in case.outputs) == bool(rows.any())
        if rows.any():
            assert_close(rewards[rows].mean(), case.outputs[f"rewards/{name}"])


@pytest.mark.parametrize("case", select(FILE, REWARD), ids=_name)
def test_reward_model_loss_and_gradient(case: Case) -> None:
    chosen, rejected = floats(case, "rewards_chosen", "rewards_rejected", grad=True)
    result = bradley_terry_loss(chosen, rejected)
    # A required margin is taken from the chosen score by whoever wants one; rewards stay those of the model.
    margin = case.inputs["margin"]
    wanted = chosen if margin is None else chosen - torch.tensor(margin, dtype=case.dtype)
    loss = bradley_terry_loss(wanted, rejected).loss.mean()
    gradient = torch.cat(torch.autograd.grad(loss, (chosen, rejected)))
    # The centring term, coefficient times mean (r_c + r_r)^2, is no part of this loss: take it off their numbers.
    coefficient = case.params["center_rewards_coefficient"] or 0.0
    total = (chosen + rejected).detach()
    centring = coefficient * total.square().mean()
    assert_close(loss + centring, case.outputs["loss"])
    assert_close(gradient + (2 * coefficient / len(total)) * total.repeat(2), case.outputs["grad_rewards"])
    assert_close(result.margin.mean(), case.outputs["margin"])
    assert_close(result.correct.to(case.dtype).mean(), case.outputs["accuracy"])
    assert_close(torch.cat([result.chosen_rewards, result.rejected_rewards]).mean(), case.outputs["mean_reward"])


def test_every_case_left_out_exists() -> None:
    for source, names in LEFT_OUT.items():
        assert names <= {_short(case) for case in load(FILE) if case.source == source}
