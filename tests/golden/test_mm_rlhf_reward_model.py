"""The critique reward model's loss and head against the numbers of MM-RLHF's own code."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithms.maths.aggregation import response_weights
from algorithms.maths.critique_reward_loss import critique_pair_loss, mean_weights
from algorithms.maths.preference_losses import PairLoss, weighted_scores
from tests.golden.vectors import Case, assert_close, floats, one, select
from workers.models.reward_head import RewardHead

FILE = "mm_rlhf.json"
LOSS = "trl/trainer/reward_trainer.py:211-355"
HEAD = "llava/model/language_model/llava_qwen.py:55-61"
RAISES = ("tie_without_tie_weight_raises", "critic_weight_none_raises")


def _name(case: Case) -> str:
    return case.name


def _ties(case: Case) -> Tensor:
    rows = len(case.inputs["rewards_chosen"])
    return torch.tensor(case.inputs["is_tie"] or [False] * rows, dtype=torch.bool)


def _pairs(case: Case, chosen: Tensor, rejected: Tensor, *, tie_weight: float) -> PairLoss:
    ties = _ties(case)
    # None of a weight is 1 there, and None of the centring is none.
    score_weight = case.params["float_rewards_weight"]
    preference_weight, tie_weight = mean_weights(
        float((~ties).sum()),
        float(ties.sum()),
        score_weight=1.0 if score_weight is None else score_weight,
        tie_weight=tie_weight,
    )
    margin = case.inputs["margin"]
    return critique_pair_loss(
        chosen.flatten(),
        rejected.flatten(),
        ties,
        preference_weight=preference_weight,
        tie_weight=tie_weight,
        centre_weight=case.params["center_rewards_coefficient"] or 0.0,
        margins=None if margin is None else torch.tensor(margin, dtype=case.dtype),
    )


def _critique(case: Case, chosen: Tensor, rejected: Tensor) -> Tensor:
    """The term as released, from one cross-entropy a side of the micro-batch, here given to each of its responses."""
    wanted = ~torch.tensor(case.inputs["no_critic"], dtype=torch.bool)
    num_pairs = len(wanted)
    each = torch.ones(2 * num_pairs, dtype=torch.long)
    # A mean over pairs of the sum of two sides: its denominator is the pairs, those without critique included.
    weights = response_weights(
        each,
        wanted.long().repeat(2),
        mode="seq-mean-token-mean",
        global_num_sequences=num_pairs,
        global_num_tokens=1,
    )
    sides = torch.cat([chosen.expand(num_pairs), rejected.expand(num_pairs)])
    return case.params["critic_rewards_weight"] * weighted_scores(sides[None], weights[None])[0].to(sides.dtype)


@pytest.mark.parametrize("case", select(FILE, LOSS, without=RAISES), ids=_name)
def test_loss_metrics_and_gradient(case: Case) -> None:
    chosen, rejected = floats(case, "rewards_chosen", "rewards_rejected", grad=True)
    critiques = floats(case, "critic_ce_chosen", "critic_ce_rejected", grad=True)
    result = _pairs(case, chosen, rejected, tie_weight=case.params["tie_weight"] or 0.0)
    loss = result.loss.mean() + _critique(case, *critiques)
    gradients = torch.autograd.grad(loss, (chosen, rejected, *critiques))
    # Without any preference the original adds up in float32.
    assert_close(loss.float() if bool(_ties(case).all()) else loss, case.outputs["loss"])
    names = ("rewards_chosen", "rewards_rejected", "critic_ce_chosen", "critic_ce_rejected")
    for name, gradient in zip(names, gradients, strict=True):
        assert_close(gradient, case.outputs[f"grad_{name}"])
    metrics = case.outputs["metrics"]
    assert_close(result.chosen_rewards.mean(), metrics["trainrewards/chosen"])
    assert_close(result.rejected_rewards.mean(), metrics["trainrewards/rejected"])
    assert_close(result.margin.mean(), metrics["trainrewards/margins"])
    ties = _ties(case)
    assert ("trainloss/tie" in metrics) == bool(ties.any())
    if "trainloss/tie" in metrics:
        assert_close(result.margin[ties].square().mean().float(), metrics["trainloss/tie"])
        assert_close(result.margin[ties].abs().mean().float(), metrics["trainrewards/tie_margin"])
    # Of preferences only; 0 without any, and in float32 whatever the rest is.
    correct = result.correct[~ties].float()
    assert_close(correct.sum() / max(len(correct), 1), metrics["trainrewards/accuracies"])


def test_ties_have_a_weight_where_the_original_has_no_such_option() -> None:
    case = one(FILE, LOSS, RAISES[0])
    assert case.outputs["raises"] == "AttributeError"
    chosen, rejected = floats(case, "rewards_chosen", "rewards_rejected")
    without, with_ties = (_pairs(case, chosen, rejected, tie_weight=weight).loss for weight in (0.0, 0.5))
    # One tie among two pairs: its mean over ties, in a sum of shares 1/2, has the factor 2.
    gap = (chosen - rejected)[0].item()
    assert_close(with_ties - without, [2 * 0.5 * gap**2, 0.0])


def test_a_critique_without_weight_is_a_weight_of_zero_where_the_original_fails_on_none() -> None:
    case = one(FILE, LOSS, RAISES[1])
    assert case.outputs["raises"] == "AttributeError"
    free = replace(case, params=case.params | {"critic_rewards_weight": 0.0})
    assert _critique(free, *floats(free, "critic_ce_chosen", "critic_ce_rejected")).item() == 0.0


@pytest.mark.parametrize("case", select(FILE, HEAD), ids=_name)
def test_rewards_of_the_two_layer_head(case: Case) -> None:
    hidden, *tensors = floats(case, "hidden_states", "dense_weight", "dense_bias", "out_proj_weight", "out_proj_bias")
    head = RewardHead("mlp", hidden.shape[-1], dtype=case.dtype)
    names = ("dense.weight", "dense.bias", "out_proj.weight", "out_proj.bias")
    head.load_state_dict(dict(zip(names, tensors, strict=True)))
    assert_close(head(hidden), case.outputs["rewards"])
