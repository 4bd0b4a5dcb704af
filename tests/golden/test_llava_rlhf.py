"""PPO with a critic and the fact-augmented reward model, against the numbers of LLaVA-RLHF's own code.

Its tensors have no mask: padding counts in every sum, the score is paid in the last column, rewards are times ten. So
these are the settings of the profile that reproduces it, a mask of ones and ``last_column``, and not the defaults.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.figures import Sum
from algorithms.kl_cost import of_a_response
from algorithms.maths.advantages import place_terminal_reward
from algorithms.maths.aggregation import token_weights, weighted
from algorithms.maths.gae import gae
from algorithms.maths.kl_control import FixedKl
from algorithms.maths.logprobs import KlEstimator, kl_estimate, token_logprobs
from algorithms.maths.masking import masked_mean
from algorithms.maths.policy_losses import ppo_clip_loss_map
from algorithms.maths.preference_losses import PairLoss, bradley_terry_loss, centred_pair_loss, centring_sign
from algorithms.maths.released_columns import ReleasedEstimate, released_columns
from algorithms.maths.response_end import released_length
from algorithms.maths.value_losses import clipped_value_loss_map, explained_variance
from algorithms.maths.whitening import whiten_groups
from algorithms.tokens import mean_over
from orchestrator.data.readers.llava_rlhf import read_llava_ppo
from orchestrator.evaluation.answers import YesNo
from orchestrator.evaluation.benchmarks.llava_bench import llava_bench_official, parse_scores, relative_scores
from orchestrator.evaluation.benchmarks.mmhal import TYPES, MmhalRow, count_mmhal, mmhal_official, parse_rating
from orchestrator.evaluation.benchmarks.pope import PopeRow, count_pope, pope_official
from orchestrator.rewards.reward import Reward, reward_metrics
from orchestrator.rewards.scalar import of_cut
from orchestrator.training.updates import Update, update_figures
from remote_rm.scorers.symbolic import correctness, length_cost, unfinished
from tests.golden import vectors
from tests.golden.vectors import DECIMAL_TOLERANCE, Case, floats, load
from workers.models.reward_head import RewardHead
from workers.types import RankUpdate

FILE = "llava_rlhf.json"
_RM_IDS = "a reward model's prompt is text, which its own processor encodes; no ids are cut out or padded again"
_ALPACA = "a penalty of AlpacaFarm that no script of the release switches on"
LEFT_OUT = {
    "shape_reward/unknown_approximator": "k2, which is refused there, is an estimator here",
    "whiten/full_batch_on_cpu": "the driver whitens, on whatever device",
    **{f"remove_pad_and_left_pad/random_{number}": _RM_IDS for number in range(6)},
    "post_reward/off_truncate_ids": _ALPACA,
    "post_reward/off_truncate_ids_two": _ALPACA,
    "post_reward/off_truncate_after": _ALPACA,
    "review_summary/first_score_zero": "a relative score to a mean of 0 is 0, there a division by it",
    "mmhal_summary/not_96_rows": "a file of another length is counted, and a note says so",
}  # fmt: skip
"""Cases without a counterpart here, each with the reason."""
_IMAGE = -200
"""Their mark of an image, dropped from a response before it is read; here none can be sampled."""
LABELS = {1: None, 2: "A", 3: "B", 4: "C", 5: "D", 6: "No", 7: "Yes"}
"""By ``caption_type``."""
_ROLLOUT_TOLERANCE = {torch.float64: 1e-6}
"""Bonuses of length and correctness are float32 there, in a rollout of float64."""
ESTIMATORS: dict[str, KlEstimator] = {"k1": "k1_clamped", "k3": "k3"}

assert_close = partial(vectors.assert_close, tolerances=DECIMAL_TOLERANCE)


def _cases(name: str) -> list[Case]:
    """Those of a function that are not left out; never an empty list."""
    found = [case for case in load(FILE) if case.name.partition("/")[0] == name and case.name not in LEFT_OUT]
    assert found, name
    return found


def _name(case: Case) -> str:
    return case.name


SHAPED, WHITENED, ESTIMATED = _cases("shape_reward"), _cases("whiten"), _cases("estimate_advantage")
POLICY_LOSSES, VALUE_LOSSES = _cases("policy_loss"), _cases("value_loss")
BONUSES, PENALTIES, STATS = _cases("correctness_bonus"), _cases("post_reward"), _cases("record_step_stats")
# Their dtype says besides which two numbers are float32 all the same.
ROLLOUTS = [replace(case, dtype=torch.float64) for case in _cases("rollout")]
CUT = _cases("truncate_after_eos") + _cases("truncate_after_eos_with_padding")
RM_LOSSES, RM_METRICS = _cases("rm_loss"), _cases("rm_metrics")
LOGPROBS, FORWARDS, POPE = _cases("compute_logprobs"), _cases("policy_forward"), _cases("pope_eval")
VALUES = _cases("value_forward")
MMHAL, REVIEWS, SUMMARIES = _cases("mmhal_summary"), _cases("parse_score"), _cases("review_summary")


def _every(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def _groups(mode: str, rows: int) -> tuple[Tensor | None, int]:
    """Rows that are whitened together, and how many there must be."""
    return (torch.arange(rows), 1) if mode == "none" else (None, 8)


# -- rewards and advantages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", SHAPED, ids=_name)
def test_rewards_of_tokens(case: Case) -> None:
    scores, logprobs, ref, length, correct = floats(
        case, "rewards", "logprobs", "ref_logprobs", "length_bonus", "correct_bonus"
    )
    own, every = case.params, _every(logprobs)
    kl = kl_estimate(logprobs, ref, every, estimator=ESTIMATORS[own["kl_approximator"]])
    assert_close(kl, case.outputs["kl"])
    whole = scores + own["length_bonus_score"] * length + own["correct_bonus_score"] * correct + own["reward_bias"]
    placed = partial(place_terminal_reward, kl=kl, action_mask=every, kl_coef=own["kl_coef"], reward_clip=None)
    assert_close(placed(whole, placement="last_column"), case.outputs["shaped_rewards"])
    assert_close(placed(torch.zeros_like(whole), placement="last_column"), case.outputs["non_score_rewards"])


@pytest.mark.parametrize("case", WHITENED, ids=_name)
def test_whitening_without_a_mask(case: Case) -> None:
    (values,) = floats(case, "values")
    own = len(values)
    if "values_on_the_other_rank" in case.inputs:
        values = torch.cat([values, *floats(case, "values_on_the_other_rank")])
    groups, least = _groups(case.params["async_stats"], len(values))
    settings: dict[str, Any] = {"shift_mean": case.params["shift_mean"], "min_rows": least}
    if "raises" in case.outputs:
        with pytest.raises(ValueError, match="fewer than min_rows = 8"):
            whiten_groups(values, _every(values), groups, **settings)
        return
    assert_close(whiten_groups(values, _every(values), groups, **settings)[:own], case.outputs["whitened"])


def _estimated(case: Case, rewards: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Advantages before and after whitening, and returns."""
    own, every = case.params, _every(rewards)
    groups, least = _groups(own["whitening_async_stats"], len(rewards))
    if own["whiten_rewards"]:  # by default there, and switched off by its scripts
        rewards = whiten_groups(rewards, every, groups, shift_mean=False, min_rows=least)
        plain, returns = gae(rewards, values, every, gamma=own["gamma"], lam=own["lam"])
    else:
        found = _released(case, torch.zeros_like(rewards[:, 0]), -rewards, values, kl_coef=1.0)
        plain, returns = found.advantages, found.returns
        assert torch.equal(found.rewards, rewards)
    return plain, whiten_groups(plain, every, groups, min_rows=least), returns


def _released(case: Case, scores: Tensor, kl: Tensor, values: Tensor, *, kl_coef: float) -> ReleasedEstimate:
    """As a run of the profile estimates, before it whitens."""
    own = case.params
    return released_columns(
        scores, kl, values, kl_coef=kl_coef, reward_clip=None, gamma=own["gamma"], lam=own["lam"], reward_scale=10.0,
        least_rows=None,
    )  # fmt: skip


@pytest.mark.parametrize("case", ESTIMATED, ids=_name)
def test_advantages_and_returns(case: Case) -> None:
    rewards, values = floats(case, "rewards", "values")
    if "raises" in case.outputs:
        with pytest.raises(ValueError, match="fewer than min_rows = 8"):
            _estimated(case, rewards, values)
        return
    for found, name in zip(
        _estimated(case, rewards, values), ("advantages_before_whitening", "advantages", "returns"), strict=True
    ):
        assert_close(found, case.outputs[name])


# -- losses ----------------------------------------------------------------------------------------------------------


def _mean(loss: Tensor) -> Tensor:
    """Over every column of every row, padding too."""
    counts = {"global_num_sequences": len(loss), "global_num_tokens": loss.numel()}
    return weighted(loss, token_weights(_every(loss), mode="token-mean", **counts)).sum()


def _assert_stats(case: Case, found: dict[str, Tensor]) -> None:
    assert set(found) == set(case.outputs["stats"])
    for name, value in found.items():
        assert_close(value.detach(), case.outputs["stats"][name])


def _share(hits: Tensor) -> Tensor:
    """Theirs is of float32, whatever the case is."""
    return hits.float().mean()


@pytest.mark.parametrize("case", POLICY_LOSSES, ids=_name)
def test_policy_loss_and_its_gradient(case: Case) -> None:
    (logprobs,) = floats(case, "logprobs", grad=True)
    old, advantages, returns, entropies = floats(case, "old_logprobs", "advantages", "returns", "entropies")
    clip = case.params["cliprange"]
    every = _every(old)
    result = ppo_clip_loss_map(logprobs - old, advantages, every, clip_low=clip, clip_high=clip)
    loss = _mean(result.loss)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_logprobs"])
    _assert_stats(
        case,
        {
            "loss/policy": loss,
            "policy/entropy": masked_mean(entropies, every),
            "policy/approxkl": kl_estimate(logprobs, old, every, estimator="k2").mean(),
            "policy/clipfrac": _share(result.clip_hit),
            "returns/mean": returns.mean(),
            "returns/var": returns.var(correction=0),
        },
    )


@pytest.mark.parametrize("case", VALUE_LOSSES, ids=_name)
def test_value_loss_and_its_gradient(case: Case) -> None:
    (values,) = floats(case, "values", grad=True)
    old, returns = floats(case, "old_values", "returns")
    result = clipped_value_loss_map(values, old, returns, _every(old), clip=case.params["cliprange_value"])
    loss = case.params["vf_coef"] * _mean(result.loss)
    (gradient,) = torch.autograd.grad(loss, values)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_values"])
    plain = values.detach()
    _assert_stats(
        case,
        {
            "loss/value": _mean(result.loss),
            "val/vpred": plain.mean(),
            "val/error": (plain - returns).square().mean(),
            "val/clipfrac": _share(result.clip_hit),
            "val/mean": old.mean(),
            "val/var": old.var(correction=0),
        },
    )


def test_explained_variance_is_what_the_release_has_the_moments_for() -> None:
    """It logs error and variance and never their ratio: without a mean error, 1 − error / variance is ours."""
    for case in VALUE_LOSSES:
        values, returns = floats(case, "values", "returns")
        values = values + (returns - values).mean()
        variance = returns.var(correction=0)
        found = explained_variance(values, returns, _every(values))
        if returns.max() == returns.min():
            assert found is None
        else:
            assert found == pytest.approx((1 - (returns - values).square().mean() / variance).item(), rel=1e-4)


def _pairs(case: Case, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Scores of the chosen and the rejected of each pair."""
    chosen_first = torch.tensor(case.inputs["choice"]) == 1
    first, second = (scores.gather(1, torch.tensor(case.inputs[name])) for name in ("index_0", "index_1"))
    chosen, rejected = torch.where(chosen_first, second, first), torch.where(chosen_first, first, second)
    return chosen.flatten(), rejected.flatten()


@pytest.mark.parametrize("case", RM_LOSSES, ids=_name)
def test_reward_models_loss_and_its_gradient(case: Case) -> None:
    (scores,) = floats(case, "rewards", grad=True)
    chosen, rejected = _pairs(case, scores)
    sign = centring_sign(chosen, rejected)
    loss = centred_pair_loss(chosen, rejected, centre_weight=case.params["center_coef"], sign=sign).loss.mean()
    (gradient,) = torch.autograd.grad(loss, scores)
    assert_close(loss, case.outputs["loss"])
    assert_close(gradient, case.outputs["grad_rewards"])


@pytest.mark.parametrize("case", RM_METRICS, ids=_name)
def test_reward_models_figures(case: Case) -> None:
    (logged,) = floats(case, "rewards_1_0")
    second, first = (side.flatten() for side in logged.unbind(dim=-1))
    choice = torch.tensor(case.inputs["choice"]).flatten() == 1
    result: PairLoss = bradley_terry_loss(torch.where(choice, second, first), torch.where(choice, first, second))
    # There equal scores stand for the second response; here they are no success.
    tied = (second == first) & choice
    assert_close((result.correct | tied).to(case.dtype).mean(), case.outputs["accuracy"])
    assert_close(choice.to(case.dtype).mean(), case.outputs["label_positive_rate"])
    average = (result.chosen_rewards + result.rejected_rewards).mean() / 2
    assert_close(average, case.outputs["average_score"])


# -- the parts of a reward, and a whole rollout -----------------------------------------------------------------------


def _bonus(text: str, kind: int) -> float:
    """Before the factor 2, and 0 where there is nothing to be right about."""
    return (correctness(text, LABELS[kind], released=True) or 0.0) / 2


@pytest.mark.parametrize("case", BONUSES, ids=_name)
def test_correctness(case: Case) -> None:
    if "raises" in case.outputs:
        said = [{"from": "human", "value": "<image>\nwhich ?"}, {"from": "gpt", "value": "a"}]
        with pytest.raises(ValueError, match="field 'caption_type' is 8, expected 1 to 7"):
            for kind in case.inputs["caption_types"]:
                read_llava_ppo({"id": "1", "image": "1.jpg", "conversations": said, "caption_type": kind})
        return
    asked = zip(case.inputs["texts"], case.inputs["caption_types"], strict=True)
    assert [_bonus(text, kind) for text, kind in asked] == case.outputs["correct_bonus"]


def test_what_is_read_otherwise_by_default() -> None:
    table = next(case for case in BONUSES if case.name.endswith("strings_25_x_types_7"))
    asked = zip(table.inputs["texts"], table.inputs["caption_types"], strict=True)
    other = {
        (text, LABELS[kind])
        for text, kind in asked
        if correctness(text, LABELS[kind]) != correctness(text, LABELS[kind], released=True)
    }
    more = {(text, "No") for text in ("no", "NO", "yes", "Nobody is there", "Yesterday", "None", "Not at all")}
    assert other == more | {
        ("A", "A"),
        ("A) cat", "A"),
        ("correct option is B", "B"),
        ("the Correct option is D.", "D"),
    }


def _penalised(case: Case, scores: Tensor, finished: list[bool]) -> Tensor:
    """By a part that is added, or by ``reward.scalar_cut`` in place of what the reward model says."""
    if not case.params["penalize_no_stop_token"]:
        return scores
    parts, penalty = [unfinished("stop" if one else "length") for one in finished], case.params["penalty_reward_value"]
    if case.params["relative_stop_token_penalty"]:
        return scores - penalty * torch.tensor(parts, dtype=scores.dtype)
    told = [of_cut(score, {"unfinished": part}, penalty) for score, part in zip(scores.tolist(), parts, strict=True)]
    return torch.tensor(told, dtype=scores.dtype)


@pytest.mark.parametrize("case", PENALTIES, ids=_name)
def test_a_response_that_was_cut(case: Case) -> None:
    (scores,) = floats(case, "rewards")
    assert_close(_penalised(case, scores, case.inputs["has_stop_token"]), case.outputs["rewards"])


@pytest.mark.parametrize("case", ROLLOUTS, ids=_name)
def test_a_rollout_from_sampled_ids_to_advantages(case: Case) -> None:
    """Ids that the reward model is given are its own processor's affair, and no part of this."""
    own, close = case.params, partial(vectors.assert_close, tolerances=_ROLLOUT_TOLERANCE)
    pad, eos = own["pad_token_id"], own["eos_token_id"]
    scores, logprobs, ref, values = floats(case, "rm_scores", "logprobs", "ref_logprobs", "values")
    sampled = case.inputs["sampled_responses"]
    kept = [ids[: released_length(ids, eos_id=eos, mark_ids=own["question_mark_ids"])] for ids in sampled]
    assert [ids + [pad] * (own["response_len"] - len(ids)) for ids in kept] == case.outputs["responses"]
    scores = _penalised(case, scores, [eos in ids for ids in kept])
    close(scores, case.outputs["rewards"])
    lengths = [sum(one != pad for one in ids) for ids in kept]
    factors = [{"length_bonus": factor} for factor in case.inputs["length_bonus_multiplier"]]
    costs = [length_cost(n, row, longest=own["response_len"]) for n, row in zip(lengths, factors, strict=True)]
    asked = zip(case.inputs["texts"], case.inputs["caption_types"], strict=True)
    length, correct = -torch.tensor(costs, dtype=case.dtype), torch.tensor([_bonus(*one) for one in asked])
    close(length, case.outputs["length_bonus"])
    assert correct.tolist() == case.outputs["correct_bonus"]
    every = _every(logprobs)
    kl = kl_estimate(logprobs, ref, every, estimator=ESTIMATORS[own["kl_approximator"]])
    close(kl, case.outputs["kl"])
    whole = scores + own["length_bonus_score"] * length + own["correct_bonus_score"] * correct + own["reward_bias"]
    place = partial(
        place_terminal_reward, kl=kl, action_mask=every, kl_coef=own["kl_coef"], reward_clip=None,
        placement="last_column",
    )  # fmt: skip
    close(place(torch.zeros_like(whole)), case.outputs["non_score_rewards"])
    close(place(whole), case.outputs["shaped_rewards"])
    _, advantages, returns = _estimated(case, place(whole), values)
    if not own["whiten_rewards"]:
        found = _released(case, whole, kl, values, kl_coef=own["kl_coef"])
        close(found.rewards, case.outputs["shaped_rewards"])
        close(found.returns, case.outputs["returns"])
    close(advantages, case.outputs["advantages"])
    close(returns, case.outputs["returns"])


_NO_FIGURE = {"objective/shaped_rewards", "objective/non_score_rewards", "objective/ref_entropies"}
"""What is paid on tokens is the reward less the cost of the KL, which have figures; a reference tells no entropy."""


@pytest.mark.parametrize("case", STATS, ids=_name)
def test_figures_of_a_step(case: Case) -> None:
    rollouts, trained = case.inputs["rollouts"], case.inputs["train_stats"]
    kl, entropies = (torch.tensor(rollouts[name], dtype=case.dtype) for name in ("kl", "entropies"))
    every = _every(kl)
    rewards = [
        Reward(value=value, parts={"length": length, "correct": correct}, status="scored")
        for value, length, correct in zip(
            *(rollouts[name] for name in ("rewards", "length_bonus", "correct_bonus")), strict=True
        )
    ]
    of_reward = reward_metrics(rewards)
    updates = [
        Update([RankUpdate(figures={"policy/loss": Sum(loss)}, lr=case.params["lr"], grad_norm=norm)], True)
        for loss, norm in zip(trained["loss/policy"], trained["loss/grad_norm"], strict=True)
    ] + [
        Update([RankUpdate(figures={"critic/loss": Sum(loss)}, lr=case.params["lr"], grad_norm=1.0)], True, "critic")
        for loss in trained["loss/value"]
    ]
    learned = update_figures(updates, planned=len(trained["loss/policy"]))
    found = {
        "objective/kl_coef": FixedKl(coef=case.params["kl_coef"]).coef,
        "objective/kl_sum_seq": of_a_response(kl),
        "objective/kl_avg_seq": float(masked_mean(kl, every)),
        "objective/length_bonus": of_reward["reward/length"],
        "objective/correct_bonus": of_reward["reward/correct"],
        "objective/rewards": of_reward["reward/mean"],
        "objective/entropies": mean_over(entropies.flatten(), every.reshape(1, -1)).value,
        "objective/lr": learned["policy/lr"],
        "ppo/loss/policy": learned["policy/loss"],
        "ppo/loss/value": learned["critic/loss"],
        "ppo/loss/grad_norm": learned["policy/grad_norm"],
    }
    assert {*found, *_NO_FIGURE} == set(case.outputs)
    for name, value in found.items():
        assert_close(torch.tensor(value, dtype=case.dtype), case.outputs[name])


# -- what a forward says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", LOGPROBS, ids=_name)
def test_log_probs_of_labels(case: Case) -> None:
    (logits,) = floats(case, "logits")
    labels = torch.tensor(case.inputs["labels"])
    found = token_logprobs(logits.flatten(0, 1), labels.flatten()).logprobs.reshape(labels.shape)
    assert_close(found.where(labels != case.params["ignore_index"], 0.0), case.outputs["logprobs"])


@pytest.mark.parametrize("case", FORWARDS, ids=_name)
def test_log_probs_and_entropy_of_responses(case: Case) -> None:
    (logits,) = floats(case, "model_logits")
    responses = torch.tensor(case.inputs["responses"])
    logits = logits[:, -responses.shape[1] - 1 : -1]
    found = token_logprobs(logits.flatten(0, 1), responses.flatten(), temperature=case.params["temperature"])
    logprobs, entropy = (one.reshape(responses.shape) for one in (found.logprobs, found.entropy))
    assert_close(logprobs.where(responses != case.params["pad_token_id"], 0.0), case.outputs["logprobs"])
    assert_close(entropy, case.outputs["entropies"])


@pytest.mark.parametrize("case", CUT, ids=_name)
def test_where_a_response_ends(case: Case) -> None:
    for sampled, wanted in zip(case.inputs["completions"], case.outputs["completions"], strict=True):
        ids = [one for one in sampled if one != _IMAGE]
        kept = released_length(
            ids, eos_id=case.params["eos_token_id"], mark_ids=case.params.get("additional_tokens") or ()
        )
        padding = [case.params.get("pad_token_id")] * (len(wanted) - kept)
        assert ids[:kept] + padding == wanted


@pytest.mark.parametrize("case", POPE, ids=_name)
def test_pope(case: Case) -> None:
    answers: list[YesNo] = [pope_official(text) for text in case.inputs["texts"]]
    assert [int(answer == "yes") for answer in answers] == case.outputs["pred_list"]
    labels: list[YesNo] = case.inputs["labels"]
    # There the counts end with the labels, and the yes-ratio is of all answers.
    rows = [PopeRow(text=text, label=label) for text, label in zip(case.inputs["texts"], labels, strict=False)]
    found, wanted = count_pope(rows, way="official"), case.outputs["metrics"]
    ratio = sum(answer == "yes" for answer in answers) / len(answers)
    ours = {name: found["accuracy" if name == "acc" else name] for name in ("precision", "recall", "f1", "acc")}
    # What divides by zero there, and every figure after it, is null.
    for name, value in (ours | {"yes_ratio": ratio}).items():
        assert wanted[name] is None or value == pytest.approx(wanted[name], abs=1e-12)


@pytest.mark.parametrize("case", MMHAL, ids=_name)
def test_mmhal(case: Case) -> None:
    texts = case.inputs["texts"]
    assert [mmhal_official(text) or 0 for text in texts] == case.outputs["score_per_text"]
    order = case.inputs["order"]
    rows = [MmhalRow(reply=texts[place], type=TYPES[i % len(TYPES)]) for i, place in enumerate(order)]
    found = count_mmhal(rows, way="official")
    assert found["score"] * len(rows) == pytest.approx(case.outputs["scores_sum"], abs=1e-9)
    assert found["hallucination_rate"] * len(rows) == pytest.approx(case.outputs["hallucinated"], abs=1e-9)
    means = [found[f"score/{name}"] for name in TYPES]
    assert means == pytest.approx(case.outputs["type_means"], abs=1e-12)
    assert case.outputs["printed"] == [
        f"Average score: {found['score']:.2f}",
        f"Hallucination rate: {found['hallucination_rate']:.2f}",
        f"Average score for each question type: {','.join(str(round(one, 2)) for one in means)}",
    ]
    assert found.counts["unreadable"] == sum(mmhal_official(texts[place]) is None for place in order)


def test_what_is_a_rating_otherwise_by_default() -> None:
    table = next(case for case in MMHAL if case.name.endswith("strings_25"))
    other = {
        text: (mmhal_official(text), parse_rating(text))
        for text in table.inputs["texts"]
        if mmhal_official(text) != parse_rating(text)
    }
    assert other == {
        "**Rating:** 4": (None, 4),
        "Rating:4": (None, 4),
        "Rating:  4": (None, 4),
        "Rating: \n5": (None, 5),
        "Rating: 10": (1, None),
        "Rating: 12": (1, None),
        "Rating: 4.5": (4, None),
        "Overrating: 1": (1, None),
        "Rating: 0 to 6": (0, None),
    }


@pytest.mark.parametrize("case", REVIEWS, ids=_name)
def test_scores_of_a_review(case: Case) -> None:
    found = llava_bench_official(case.inputs["review"])
    assert found == pytest.approx(tuple(case.outputs["scores"]), nan_ok=True)


def test_what_are_scores_otherwise_by_default() -> None:
    reviews = {case.inputs["review"]: tuple(case.outputs["scores"]) for case in REVIEWS}
    failed = (-1, -1)
    more = {text for text, there in reviews.items() if there == failed and parse_scores(text) is not None}
    fewer = {text for text, there in reviews.items() if there != failed and parse_scores(text) is None}
    assert more == {"8, 9", "8 9 ", " 8 9", "\n8 9", "8  9", "8/10 9/10", "8\t9", "Scores: 8 9", "8;9", "8,9 "}
    assert fewer == {"-1 5", "nan 3", "inf 1", "1e1 2"}
    assert all(
        parse_scores(text) == there for text, there in reviews.items() if text not in more | fewer and there != failed
    )


@pytest.mark.parametrize("case", SUMMARIES, ids=_name)
def test_relative_scores(case: Case) -> None:
    left_out = case.params["ignore"] or []
    rows = [row for row in case.inputs["rows"] if row["question_id"] not in left_out]
    scores = [tuple(row.get("tuple", row.get("score"))) for row in rows]
    found = relative_scores(scores, [row.get("category", "") for row in rows], rounded=True)
    shown = {figure.name.partition("/")[2] or "all": figure.shown for figure in found}
    assert shown == case.outputs["relative_score"]


@pytest.mark.parametrize("case", VALUES, ids=_name)
def test_values_are_of_the_states_before_each_token(case: Case) -> None:
    hidden, weight, bias = floats(case, "model_last_hidden_state", "value_head_weight", "value_head_bias")
    head = RewardHead("linear", hidden.shape[-1], bias=True, dtype=hidden.dtype)
    head.load_state_dict({"weight": weight, "bias": bias})
    longest = len(case.inputs["responses"][0])
    assert_close(head(hidden[:, -longest - 1 : -1]).squeeze(-1).detach(), case.outputs["values"])


def test_every_case_is_covered_or_left_out_by_name() -> None:
    covered = [
        *SHAPED, *WHITENED, *ESTIMATED, *POLICY_LOSSES, *VALUE_LOSSES, *RM_LOSSES, *RM_METRICS, *BONUSES, *PENALTIES,
        *STATS, *ROLLOUTS, *LOGPROBS, *FORWARDS, *VALUES, *CUT, *POPE, *MMHAL, *REVIEWS, *SUMMARIES,
    ]  # fmt: skip
    names = [case.name for case in covered]
    assert len(set(names)) == len(names) and not set(names) & set(LEFT_OUT)
    assert {*names, *LEFT_OUT} == {case.name for case in load(FILE)} and len(names) + len(LEFT_OUT) == 216
