"""MM-DPO, its parts and its β against the numbers of MM-RLHF's own code (profile ``mmrlhf_released``)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.dpo import Ipo
from algorithms.figures import values
from algorithms.maths.aggregation import response_weights
from algorithms.maths.logprobs import token_logprobs
from algorithms.maths.pair_betas import (
    factor_betas,
    implicit_beta,
    implicit_sample,
    implicit_sample_weights,
)
from algorithms.maths.preference_losses import (
    DPO_REDUCTION,
    DpoKind,
    PairLoss,
    dpo_loss,
    kto_pair_loss,
)
from algorithms.mm_dpo import MmDpo
from algorithms.preference import Preference, PreferenceSection
from tests.golden.vectors import Case, assert_close, floats, load, one, select
from tests.response_scores import imitation, response_scores, row_groups

FILE = "mm_rlhf.json"
DPO = "trl/trainer/dpo_trainer.py:736-849"
LOGPS = "trl/trainer/dpo_trainer.py:851-897"
SFT = "trl/trainer/dpo_trainer.py:899-910"
STEP = "trl/trainer/dpo_trainer.py:959-1086"
REWARD = "trl/trainer/reward_trainer.py:211-355"
HEAD = "llava/model/language_model/llava_qwen.py:55-61"
BENCH = "llava/eval/cal_performance_mmreweard_bench.py:1-98"
NO_FORMULA = {
    "llava/model/language_model/llava_qwen.py:83-151": "which position a reward is read at; no loss",
    "llava/train/train_dpo.py:613-661": "which tokens are labels; a template",
    "llava/train/train_dpo.py:1314-1361": "padding of a batch; rows here are packed",
    "llava/train/train_dpo.py:509-532": "the evaluator's prompt; a template",
    "scripts/convert_to_swift.py:1-62": "a file format",
}
"""Sources of the file that hold no number of a loss or metric, and what they hold instead."""
KINDS: dict[str, DpoKind] = {"sigmoid": "sigmoid", "hinge": "hinge", "ipo": "ipo_sum"}
IGNORED = -100
ONE_PAIR = "implicit_B1_raises"


def _name(case: Case) -> str:
    return case.name


def test_every_source_of_the_file_is_tested_or_holds_no_formula() -> None:
    tested = (DPO, LOGPS, SFT, STEP, REWARD, HEAD, BENCH)
    sources = {case.source for case in load(FILE)}
    assert {source for source in sources if not source.startswith((*tested, *NO_FORMULA))} == set()
    for source in (*tested, *NO_FORMULA):
        assert select(FILE, source)


def _smoothed(released: float) -> tuple[float, bool]:
    """Our ``label_smoothing``, and whether the labels are exchanged besides: 1 there is 0 here, 0 there inverts all."""
    return (1.0 - released, False) if released >= 0.5 else (released, True)


def _dpo(ratios: tuple[Tensor, Tensor], *, kind: DpoKind, beta: float | Tensor, released_smoothing: float) -> PairLoss:
    smoothing, exchanged = _smoothed(released_smoothing)
    if kind != "sigmoid":
        return dpo_loss(*ratios, kind=kind, beta=beta)
    ordered = ratios[::-1] if exchanged else ratios
    return dpo_loss(ordered[0], ordered[1], kind=kind, beta=beta, label_smoothing=smoothing)


def _log_ratios(case: Case) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
    """Log-ratios as the loss of the case reads them, and the policy's log-probs they came from."""
    policy = floats(case, "policy_chosen_logps", "policy_rejected_logps", grad=True)
    reference = floats(case, "reference_chosen_logps", "reference_rejected_logps")
    if case.params["reference_free"]:
        return (policy[0], policy[1]), policy
    return (policy[0] - reference[0], policy[1] - reference[1]), policy


def _factors(case: Case, num_pairs: int) -> Tensor:
    return torch.tensor(case.inputs["ls_factor"], dtype=case.dtype).expand(num_pairs)


def _betas(case: Case, margins: Tensor) -> Tensor:
    """β of every pair, by the mode the released code runs the case in."""
    beta, weight = case.params["beta"], case.params["ls_factor_weight"]
    if case.params["loss_type"] == "sigmoid" and case.params["implicit_beta"]:
        sample = torch.tensor(case.outputs["sample_index"])
        return implicit_beta(margins, sample, beta=beta, weight=weight).expand(len(margins))
    if case.params["loss_type"] == "sigmoid" and not case.params["vision"]:
        return factor_betas(_factors(case, len(margins)), beta=beta, weight=weight)
    return torch.full((len(margins),), beta, dtype=torch.float64)


ONE_RANK = [case for case in select(FILE, DPO) if "by_rank" not in case.inputs and case.name != ONE_PAIR]
TWO_RANKS = [case for case in select(FILE, DPO) if "by_rank" in case.inputs]


@pytest.mark.parametrize("case", ONE_RANK, ids=_name)
def test_pair_loss_beta_and_gradient(case: Case) -> None:
    ratios, policy = _log_ratios(case)
    betas = _betas(case, ratios[0] - ratios[1])
    if case.params["loss_type"] == "kto_pair":
        loss = kto_pair_loss(*ratios, beta=case.params["beta"]).loss
    else:
        kind = KINDS[case.params["loss_type"]]
        loss = _dpo(
            ratios, kind=kind, beta=betas.to(case.dtype), released_smoothing=case.params["label_smoothing"]
        ).loss
    stored = torch.tensor(case.outputs["losses"], dtype=case.dtype)
    # Their kto_pair has 2B terms, chosen first; ours averages the two of each pair.
    assert_close(loss, stored.view(2, -1).mean(dim=0) if len(stored) > len(loss) else stored)
    gradients = torch.autograd.grad(loss.mean(), policy)
    assert_close(gradients[0], case.outputs["grad_mean_loss_wrt_policy_chosen"])
    assert_close(gradients[1], case.outputs["grad_mean_loss_wrt_policy_rejected"])
    if case.params["loss_type"] == "sigmoid":
        used = torch.tensor(case.outputs["beta_used"], dtype=case.dtype).expand_as(betas)
        assert_close(betas.to(case.dtype), used)


@pytest.mark.parametrize("case", ONE_RANK, ids=_name)
def test_rewards_there_are_of_the_base_beta(case: Case) -> None:
    policy = floats(case, "policy_chosen_logps", "policy_rejected_logps")
    reference = floats(case, "reference_chosen_logps", "reference_rejected_logps")
    result = dpo_loss(policy[0] - reference[0], policy[1] - reference[1], kind="sigmoid", beta=case.params["beta"])
    assert_close(result.chosen_rewards, case.outputs["chosen_rewards"])
    assert_close(result.rejected_rewards, case.outputs["rejected_rewards"])


@pytest.mark.parametrize("case", [case for case in ONE_RANK if "sample_index" in case.outputs], ids=_name)
def test_implicit_sample_is_as_large_and_as_likely_as_there(case: Case) -> None:
    ratios, _ = _log_ratios(case)
    margins = ratios[0] - ratios[1]
    assert_close(implicit_sample_weights(margins).to(case.dtype), case.outputs["sample_weights"])
    sample = implicit_sample(margins, generator=torch.Generator().manual_seed(1))
    assert len(sample) == case.outputs["sample_num"]
    assert len(set(sample.tolist())) == len(sample)


def test_one_pair_is_plain_dpo_where_the_original_fails() -> None:
    case = one(FILE, DPO, ONE_PAIR)
    assert case.outputs["raises"] == "RuntimeError"
    ratios, _ = _log_ratios(case)
    margins = ratios[0] - ratios[1]
    assert implicit_sample_weights(margins).tolist() == [1.0]
    sample = implicit_sample(margins, generator=torch.Generator().manual_seed(1))
    beta, weight = case.params["beta"], case.params["ls_factor_weight"]
    assert sample.tolist() == [0]
    assert implicit_beta(margins, sample, beta=beta, weight=weight).item() == beta


@pytest.mark.parametrize("case", TWO_RANKS, ids=_name)
def test_implicit_beta_is_of_the_margins_of_both_ranks(case: Case) -> None:
    ranks = [
        {name: torch.tensor(values, dtype=case.dtype) for name, values in rank.items()}
        for rank in case.inputs["by_rank"]
    ]
    ratios = [
        (
            (rank["policy_chosen_logps"] - rank["reference_chosen_logps"]).requires_grad_(),
            (rank["policy_rejected_logps"] - rank["reference_rejected_logps"]).requires_grad_(),
        )
        for rank in ranks
    ]
    margins = torch.cat([chosen - rejected for chosen, rejected in ratios])
    weights = implicit_sample_weights(margins)
    for (chosen, rejected), stored in zip(ratios, case.outputs["by_rank"], strict=True):
        assert_close(weights, stored["sample_weights"])
        beta = implicit_beta(
            margins,
            torch.tensor(stored["sample_index"]),
            beta=case.params["beta"],
            weight=case.params["ls_factor_weight"],
        )
        assert_close(beta, stored["beta_used"])
        loss = dpo_loss(chosen, rejected, kind="sigmoid", beta=beta.expand(len(chosen))).loss
        gradients = torch.autograd.grad(loss.mean(), (chosen, rejected))
        assert_close(loss, stored["losses"])
        assert_close(gradients[0], stored["grad_mean_loss_wrt_policy_chosen"])
        assert_close(gradients[1], stored["grad_mean_loss_wrt_policy_rejected"])


def _tokens(logits: Tensor, labels: Tensor, *, ignored: int = IGNORED, shifted: bool = True) -> tuple[Tensor, Tensor]:
    """``(logprobs, mask)``: NaN where nothing is counted."""
    if shifted:
        logits, labels = logits[:, :-1], labels[:, 1:]
    mask = labels != ignored
    logprobs, *_ = token_logprobs(logits.flatten(0, 1), labels.where(mask, 0).flatten())
    return logprobs.view_as(labels).masked_fill(~mask, float("nan")), mask


@pytest.mark.parametrize("case", select(FILE, LOGPS), ids=_name)
def test_scores_of_responses(case: Case) -> None:
    logits, labels = torch.tensor(case.inputs["logits"], dtype=case.dtype), torch.tensor(case.inputs["labels"])
    logprobs, mask = _tokens(
        logits,
        labels,
        ignored=case.params["label_pad_token_id"],
        shifted=not case.params["is_encoder_decoder"],
    )
    average = case.params["average_log_prob"]
    stored = torch.tensor(case.outputs["logps"], dtype=case.dtype)
    # The mean of nothing is 0 here and NaN there.
    assert torch.equal(stored.isnan(), ~mask.any(dim=1) & average)
    assert_close(response_scores(logprobs, mask, reduction="mean" if average else "sum"), stored.nan_to_num(0.0))


def _sft_weights(mask: Tensor) -> Tensor:
    num_tokens = mask.sum(dim=1)
    return response_weights(
        num_tokens,
        torch.ones_like(num_tokens),
        mode="token-mean",
        global_num_sequences=int(mask.any(dim=1).sum()),
        global_num_tokens=int(num_tokens.sum()),
    )


@pytest.mark.parametrize("case", select(FILE, SFT), ids=_name)
def test_sft_term_is_the_token_mean_over_the_batch(case: Case) -> None:
    logits = torch.tensor(case.inputs["logits"], dtype=case.dtype, requires_grad=True)
    logprobs, mask = _tokens(logits, torch.tensor(case.inputs["labels"]))
    loss = imitation(logprobs, mask, _sft_weights(mask))
    if case.name == "all_masked_nan":
        # Nothing to imitate is no loss here.
        assert torch.tensor(case.outputs["loss"]).isnan()
        assert loss.item() == 0.0
    else:
        (gradient,) = torch.autograd.grad(loss, logits)
        assert_close(loss, case.outputs["loss"])
        assert_close(gradient, case.outputs["grad_logits"])


def _algorithm(kind: type[Preference], **chosen: Any) -> Preference:
    settings = {name: section() for name, section in kind.sections.items()}
    return kind(kind.__name__.lower(), settings | {"preference": PreferenceSection(**chosen)})


@pytest.mark.parametrize("case", select(FILE, STEP), ids=_name)
def test_whole_step_from_logits_to_loss_and_metrics(case: Case) -> None:
    params, stored = case.params, case.outputs
    labels = torch.tensor(stored["concatenated_labels"])
    half = len(labels) // 2
    kind: DpoKind = "ipo_mean" if params["loss_type"] == "ipo" else "sigmoid"
    reduction = DPO_REDUCTION[kind]
    logprobs, mask = _tokens(floats(case, "policy_logits")[0], labels)
    scores = response_scores(logprobs, mask, reduction=reduction)
    if case.inputs["reference_logits"] is None:
        reference = torch.cat(floats(case, "reference_chosen_logp", "reference_rejected_logp"))
    else:
        reference = response_scores(*_tokens(floats(case, "reference_logits")[0], labels), reduction=reduction)
    ratios = (scores - reference)[:half], (scores - reference)[half:]
    betas = torch.full((half,), params["beta"], dtype=torch.float64)
    if kind == "sigmoid":
        sample = torch.tensor(stored["sample_index"])
        betas = implicit_beta(
            ratios[0] - ratios[1], sample, beta=params["beta"], weight=params["ls_factor_weight"]
        ).expand(half)
    smoothing, exchanged = _smoothed(params["label_smoothing"])
    assert not exchanged
    algorithm = _algorithm(Ipo if kind == "ipo_mean" else MmDpo, label_smoothing=smoothing)
    assert algorithm.reduction == reduction
    shares = params["gamma"] * _sft_weights(mask[:half])
    groups = row_groups(algorithm, mask, reference, betas, shares, alpha=params["dpo_alpha"])
    found = algorithm.objective()(Scores(logprobs=tuple(logprobs[i][mask[i]] for i in range(2 * half))), groups)
    rewards = dpo_loss(*ratios, kind="sigmoid", beta=params["beta"])
    metrics = stored["metrics"]
    assert_close(scores[:half], stored["policy_chosen_logps"])
    assert_close(scores[half:], stored["policy_rejected_logps"])
    assert_close(found.losses.sum().to(case.dtype), stored["loss"])
    told = values(found.figures)
    assert_close(algorithm.pair_loss(*ratios, betas.to(case.dtype)).mean(), metrics["losses/dpo"])
    assert_close(imitation(logprobs[:half], mask[:half], _sft_weights(mask[:half])), metrics["losses/sft"])
    imitated = told.get("policy/imitation_loss", 0.0)
    assert imitated == pytest.approx(params["gamma"] * metrics["losses/sft"], rel=1e-6)
    assert_close(rewards.chosen_rewards.mean(), metrics["rewards/chosen"])
    assert_close(rewards.rejected_rewards.mean(), metrics["rewards/rejected"])
    assert_close(rewards.margin.mean(), metrics["rewards/margins"])
    assert_close(rewards.correct.float().mean(), metrics["rewards/accuracies"])
    for name, rows in (("logps", scores), ("ref_logps", reference)):
        assert_close(rows[:half].mean(), metrics[f"{name}/chosen"])
        assert_close(rows[half:].mean(), metrics[f"{name}/rejected"])
