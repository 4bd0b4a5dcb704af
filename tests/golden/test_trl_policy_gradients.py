"""Policy losses, their advantages and their weights against the engine, against the numbers of TRL 1.16."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.maths.advantages import GroupBaseline, decoupled_advantages, group_advantages
from algorithms.maths.aggregation import Aggregation, token_weights, weighted
from algorithms.maths.importance import correction_weights, on_policy_mask
from algorithms.maths.logprobs import kl_estimate, token_logprobs
from algorithms.maths.masking import keep
from algorithms.maths.policy_losses import (
    PolicyLoss,
    cispo_loss_map,
    ppo_clip_loss_map,
    sapo_loss_map,
    sequence_log_ratio,
)
from tests.golden import vectors
from tests.golden.vectors import DECIMAL_TOLERANCE, Case, floats, load, select

FILE = "trl.json"
_GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
LOSS, BATCH, OFF_POLICY = (
    f"{_GRPO}.{name}" for name in ("_compute_loss", "_generate_and_score_completions", "get_off_policy_mask")
)
RLOO_LOSS = "trl.trainer.rloo_trainer:RLOOTrainer._compute_loss"
RLOO_BATCH = "trl.trainer.rloo_trainer:RLOOTrainer._generate_and_score_completions"
SCORES, STD = "trl.trainer.utils:selective_log_softmax_and_entropy", "trl.trainer.utils:nanstd"
GMPO = "trl.experimental.gmpo.gmpo_trainer:GMPOTrainer._compute_loss"
ENTROPY_MASK, VESPO_WEIGHTS = f"{_GRPO}.get_high_entropy_mask", f"{_GRPO}.get_gamma_weights"
SOURCES = (LOSS, BATCH, OFF_POLICY, RLOO_LOSS, RLOO_BATCH, SCORES, STD, GMPO, ENTROPY_MASK, VESPO_WEIGHTS)
_NO_SUCH = "a loss of TRL that is no algorithm here"
LEFT_OUT = {
    **dict.fromkeys(("grpo/luspo_token", "grpo/luspo_sequence", "grpo/luspo_empty_row"), _NO_SUCH),
    **dict.fromkeys(("grpo/vespo_token", "grpo/vespo_sequence", "grpo/vespo_empty_row", "grpo/vespo_tis"), _NO_SUCH),
    **dict.fromkeys(("grpo/unknown_loss", "grpo/unknown_level"), "an option of TRL; here a loss is a class"),
    **dict.fromkeys(("grpo/grpo_top_entropy", "grpo/dapo_top_entropy"), "no token is left out for its entropy"),
    **{f"high_entropy_mask/{number}": "no token is left out for its entropy" for number in range(6)},
    **{f"vespo_gamma_weights/{number}": _NO_SUCH for number in range(7)},
    **{f"gmpo/{kind}": _NO_SUCH for kind in ("random", "wide", "kl", "empty_row", "one_row", "extreme")},
    "grpo/grpo_entropy_bonus_value_only": "the entropy carries no gradient and is no part of the loss",
    "grpo/grpo_bias_correction_kl": "the KL of the loss has no importance weight",
    **{
        f"grpo_advantages/batch_{kind}": "no advantage is the group's centred reward over the batch's std"
        for kind in ("random", "one_constant_group", "unscorable", "two_functions_weights", "binary")
    },
    "grpo_advantages/bad_scale": "an option of TRL; here the scale is the algorithm's",
    "tis_ratio/unknown_mode": "the configuration refuses an unknown mode",
    **{
        f"completion_masks/{kind}_{number}": "the engine reports what it sampled; no mask is made from ids"
        for kind in ("keep", "drop")
        for number in range(6)
    },
    **dict.fromkeys(
        ("rloo_advantages/normalized", "rloo_advantages/all", "rloo_advantages/unscorable_normalized"),
        "RLOO's advantages are not standardised over the batch, which the paper does not do",
    ),
    "token_logps_and_entropy/3": "rows are left out by whoever asks for log-probs",
    "nanstd/0": "a std over rows that are no group",
    "nanstd/2": "a std over rows that are no group",
    "nanstd/5": "a std over rows that are no group",
}
"""Cases without a counterpart here, each with the reason."""
_ROW_SPREADS = "grpo/bnpo_sequence_level_token_tis"

assert_close = partial(vectors.assert_close, tolerances=DECIMAL_TOLERANCE)


def _name(case: Case) -> str:
    return case.name


def _cases(source: str, *prefixes: str) -> list[Case]:
    """Those of a source that are not left out."""
    return [c for c in select(FILE, source) if c.name not in LEFT_OUT and c.name.startswith(prefixes or "")]


LOSSES, RLOO_LOSSES = _cases(LOSS), _cases(RLOO_LOSS)
GROUPS = _cases(BATCH, "grpo_advantages/group", "grpo_advantages/none", "grpo_advantages/partly")
ONE_GENERATION = [c for s in (BATCH, RLOO_BATCH) for c in _cases(s) if c.name.endswith("eval_one_generation")]
DECOUPLED = _cases(BATCH, "grpo_advantages/normalize_then_sum")
RATIOS = _cases(BATCH, "tis_ratio/")
OFF_POLICY_CASES, SCORE_CASES, STDS = _cases(OFF_POLICY), _cases(SCORES), _cases(STD)
RLOO_GROUPS = [c for c in _cases(RLOO_BATCH) if c not in ONE_GENERATION]


def _flat(rows: Tensor) -> Tensor:
    """Samples one behind the other, as a micro-batch has them."""
    return rows.reshape(1, -1)


def _mask(case: Case) -> Tensor:
    """bool ``[B, T]``."""
    mask = torch.tensor(case.inputs["completion_mask"], dtype=torch.bool)
    tools = case.inputs.get("tool_mask")
    return mask if tools is None else mask & torch.tensor(tools, dtype=torch.bool)


def _token_advantages(case: Case, mask: Tensor) -> Tensor:
    (advantages,) = floats(case, "advantages")
    return _flat((advantages[:, None] if advantages.ndim == 1 else advantages).expand(mask.shape))


def _policy_loss(case: Case, logprobs: Tensor, mask: Tensor) -> PolicyLoss:
    """The map of the algorithm that has the case's loss, over samples one behind the other."""
    params, lengths = case.params, [mask.shape[1]] * len(mask)
    now, where = _flat(logprobs), _flat(mask)
    # On policy nobody has asked for the old ones.
    given = case.inputs["old_per_token_logps"] is not None
    old = _flat(floats(case, "old_per_token_logps")[0]) if given else now.detach()
    advantages = _token_advantages(case, mask)
    if params["importance_sampling_level"] == "sequence":
        log_ratio = sequence_log_ratio(now, old, where, lengths, length_normalised=True)
    else:
        log_ratio = now - old
    if params["loss_type"] == "cispo":
        # Theirs is the bound itself, and there is no lower one.
        high = params["epsilon_high"] - 1.0
        return cispo_loss_map(log_ratio, now, advantages, where, clip_low=1.0, clip_high=high)
    if params["loss_type"] == "sapo":
        taus = {"tau_pos": params["sapo_temperature_pos"], "tau_neg": params["sapo_temperature_neg"]}
        return sapo_loss_map(log_ratio, advantages, where, **taus)
    return ppo_clip_loss_map(
        log_ratio,
        advantages,
        where,
        clip_low=params["epsilon"],
        clip_high=params["epsilon_high"],
        dual_clip=params.get("delta"),
    )


def _weighed(case: Case, loss: Tensor, logprobs: Tensor, mask: Tensor) -> Tensor:
    """Times what the engine's log-probs say, plus the KL to the reference, ``[1, N]``."""
    where, lengths = _flat(mask), [mask.shape[1]] * len(mask)
    if "off_policy_mask_threshold" in case.params:
        near = on_policy_mask(
            _token_advantages(case, mask),
            _flat(logprobs),
            _flat(floats(case, "sampling_per_token_logps")[0]),
            where,
            lengths,
            max_kl=case.params["off_policy_mask_threshold"],
        )
        loss = keep(loss, near)
    if "importance_sampling_ratio" in case.inputs:
        loss = loss * _flat(floats(case, "importance_sampling_ratio")[0].expand(mask.shape))
    if case.params["beta"]:
        ref = _flat(floats(case, "ref_per_token_logps")[0])
        loss = loss + case.params["beta"] * kl_estimate(_flat(logprobs), ref, where, estimator="k3")
    return loss


BASELINES: dict[str, GroupBaseline] = {"group": "grpo", "none": "mean"}
MODES: dict[str, Aggregation] = {
    "grpo": "seq-mean-token-mean",
    "sapo": "seq-mean-token-mean",
    "dr_grpo": "seq-mean-token-sum-norm",
    "bnpo": "token-mean",
    "dapo": "token-mean",
    "cispo": "token-mean",
}


def _token_weights(case: Case, mask: Tensor) -> Tensor:
    """The counts of the global batch are theirs: of all accumulated micro-batches, empty rows among the sequences."""
    params, num_tokens, share = case.params, max(int(mask.sum()), 1), 1.0
    accumulated = params.get("gradient_accumulation_steps", 1) if params.get("training") else 1
    if "num_items_in_batch" in params:
        # Items are of all batches that were generated together, of which an optimizer step takes a part.
        num_tokens, share = params["num_items_in_batch"], params["steps_per_generation"] / accumulated
    return share * token_weights(
        mask,
        mode=MODES[params["loss_type"]],
        global_num_sequences=len(mask) * accumulated,
        global_num_tokens=num_tokens,
        max_tokens=params.get("max_completion_length"),
    )


@pytest.mark.parametrize("case", LOSSES, ids=_name)
def test_policy_loss_value_and_gradient(case: Case) -> None:
    mask = _mask(case)
    (logprobs,) = floats(case, "per_token_logps")
    logprobs.masked_fill_(~mask, float("nan")).requires_grad_()
    found = _policy_loss(case, logprobs, mask).loss
    loss = weighted(_weighed(case, found, logprobs, mask).reshape(mask.shape), _token_weights(case, mask)).sum()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert_close(loss, case.outputs["loss"])
    wanted = torch.tensor(case.outputs["grad_per_token_logps"], dtype=case.dtype)
    if case.name == _ROW_SPREADS:
        # Tokens of a sequence that weigh differently: here each weighs its own gradient, there their sum is spread.
        gradient, wanted = gradient.sum(dim=1), wanted.sum(dim=1)
    assert_close(gradient, wanted)


@pytest.mark.parametrize("case", RLOO_LOSSES, ids=_name)
def test_rloo_has_the_ratio_of_a_whole_response(case: Case) -> None:
    logprobs, old = floats(case, "per_token_logps", "old_logps")
    mask = _mask(case)
    logprobs.masked_fill_(~mask, float("nan")).requires_grad_()
    # Theirs is one number a response; any share of it on the tokens gives the same sum.
    first = mask & (mask.cumsum(dim=1) == 1)
    olds = torch.where(first, old[:, None], 0.0)
    lengths = [mask.shape[1]] * len(mask)
    log_ratio = sequence_log_ratio(_flat(logprobs), _flat(olds), _flat(mask), lengths, length_normalised=False)
    clip = {"clip_low": case.params["epsilon"], "clip_high": case.params["epsilon_high"]}
    result = ppo_clip_loss_map(log_ratio, _token_advantages(case, mask), _flat(mask), **clip)
    counts: dict[str, Any] = {"global_num_sequences": len(mask), "global_num_tokens": int(mask.sum())}
    # Its gradient is that of the summed tokens; as a number, theirs counts a response once and not once a token.
    value, learned = (
        weighted(result.loss.reshape(mask.shape), token_weights(mask, mode=mode, **counts)).sum()
        for mode in ("seq-mean-token-mean", "seq-mean-token-sum")
    )
    (gradient,) = torch.autograd.grad(learned, logprobs)
    assert_close(gradient, case.outputs["grad_per_token_logps"])
    # A response without a token has no loss here; there it has the advantage's.
    empty = (~mask.any(dim=1)).to(case.dtype)
    assert_close(value - (empty * _empty_row_loss(case)).mean(), case.outputs["loss"])


def _empty_row_loss(case: Case) -> Tensor:
    """What TRL makes of rows without tokens, ``[B]``: e^−old is a ratio like any other."""
    advantages, old = floats(case, "advantages", "old_logps")
    ratio = (-old).exp()
    bounded = ratio.clamp(1 - case.params["epsilon"], 1 + case.params["epsilon_high"])
    return torch.minimum(ratio * advantages, bounded * advantages)


def _scored(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """``(rewards of the parts, groups, who has any)`` of all rollouts."""
    (parts,) = floats(case, "rewards_per_func")
    groups = torch.arange(len(parts)) // case.params["num_generations"]
    return parts, groups, ~parts.isnan().all(dim=1)


def _summed(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The same with the weighted sum in place of the parts."""
    parts, groups, known = _scored(case)
    return (parts * torch.tensor(case.params["reward_weights"], dtype=parts.dtype)).nansum(dim=1), groups, known


@pytest.mark.parametrize("case", GROUPS, ids=_name)
def test_advantages_among_the_samples_of_a_prompt(case: Case) -> None:
    rewards, groups, known = _summed(case)
    baseline = BASELINES[case.params["scale_rewards"]]
    wanted = torch.tensor(case.outputs["advantages"], dtype=case.dtype)
    assert_close(group_advantages(rewards[known], groups[known], baseline=baseline), wanted[known])
    # What has no reward learns nothing there; here it takes no part.
    assert not wanted[~known].any()


@pytest.mark.parametrize("case", ONE_GENERATION, ids=_name)
def test_a_sample_without_a_sibling_teaches_nothing(case: Case) -> None:
    (rewards,) = floats(case, "rewards_per_func")
    baseline = "rloo" if case in select(FILE, RLOO_BATCH) else "grpo"
    found = group_advantages(rewards[:, 0], torch.arange(len(rewards)), baseline=baseline)
    assert_close(found, case.outputs["advantages"])


@pytest.mark.parametrize("case", DECOUPLED, ids=_name)
def test_parts_of_a_reward_are_standardised_each_and_then_their_sum(case: Case) -> None:
    parts, groups, known = _scored(case)
    assert known.all()
    weights = torch.tensor(case.params["reward_weights"], dtype=parts.dtype)
    assert_close(decoupled_advantages(parts, weights, groups), case.outputs["advantages"])


@pytest.mark.parametrize("case", RLOO_GROUPS, ids=_name)
def test_rloo_advantages(case: Case) -> None:
    rewards, groups, known = _summed(case)
    if case.params["reward_clip_range"] is not None:
        rewards = rewards.clamp(*case.params["reward_clip_range"])
    if case.params["beta"]:
        old, ref = floats(case, "old_per_token_logps", "ref_per_token_logps")
        kl = kl_estimate(old, ref, _mask(case), estimator="k1").sum(dim=1)
        rewards = rewards - case.params["beta"] * kl
    wanted = torch.tensor(case.outputs["advantages"], dtype=case.dtype)
    assert_close(group_advantages(rewards[known], groups[known], baseline="rloo"), wanted[known])
    assert not wanted[~known].any()


@pytest.mark.parametrize("case", RATIOS, ids=_name)
def test_weights_between_trainer_and_engine(case: Case) -> None:
    (trainer,) = floats(case, "train_per_token_logps")
    mask = _mask_of_responses(case)
    engine = torch.full_like(trainer, float("nan"))
    for row, given in enumerate(case.inputs["sampler_logps"]):
        engine[row, : len(given)] = torch.tensor([float("nan") if x is None else x for x in given])
    most = case.params["clip_max"]
    weights = correction_weights(
        _flat(trainer),
        _flat(engine),
        _flat(mask),
        [mask.shape[1]] * len(mask),
        mode=case.params["mode"],
        minimum=case.params["clip_min"],
        maximum=float("inf") if most is None else most,
    ).reshape(mask.shape)
    wanted = torch.tensor(case.outputs["importance_sampling_ratio"], dtype=case.dtype).expand(mask.shape)
    scored = mask & ~engine.isnan()
    assert_close(weights[scored], wanted[scored])
    # What the engine could not score has weight 1, or that of its sequence, there; here it is left out.
    assert not weights[~scored].any()


def _mask_of_responses(case: Case) -> Tensor:
    """bool ``[B, T]``; their tool mask has rows of different lengths."""
    mask = torch.tensor(case.inputs["completion_mask"], dtype=torch.bool)
    for row, tools in enumerate(case.inputs["tool_mask"] or []):
        mask[row, : len(tools)] &= torch.tensor(tools, dtype=torch.bool)
    return mask


@pytest.mark.parametrize("case", OFF_POLICY_CASES, ids=_name)
def test_sequences_that_the_policy_has_left(case: Case) -> None:
    advantages, logprobs, rollout = floats(case, "advantages", "per_token_logps", "sampling_per_token_logps")
    mask = torch.tensor(case.inputs["mask"], dtype=torch.bool)
    near = on_policy_mask(
        _flat(advantages.expand(mask.shape)),
        _flat(logprobs),
        _flat(rollout),
        _flat(mask),
        [mask.shape[1]] * len(mask),
        max_kl=case.params["off_policy_threshold"],
    )
    assert torch.equal(near.reshape(mask.shape).to(torch.int64), torch.tensor(case.outputs["keep"]).expand(mask.shape))


@pytest.mark.parametrize("case", SCORE_CASES, ids=_name)
def test_log_probs_and_entropy_of_tempered_logits(case: Case) -> None:
    (logits,) = floats(case, "logits")
    index = torch.tensor(case.inputs["index"])
    scores = token_logprobs(logits.flatten(0, 1), index.flatten(), temperature=case.params["temperature"])
    assert_close(scores.logprobs, torch.tensor(case.outputs["logps"], dtype=scores.logprobs.dtype).flatten())
    assert_close(scores.entropy, torch.tensor(case.outputs["entropy"], dtype=scores.entropy.dtype).flatten())


@pytest.mark.parametrize("case", STDS, ids=_name)
def test_std_of_a_group_leaves_out_what_has_no_reward(case: Case) -> None:
    (rows,) = floats(case, "tensor")
    for rewards, std in zip(rows, case.outputs["std"], strict=True):
        rewards = rewards[~rewards.isnan()]
        found = group_advantages(rewards, torch.zeros(len(rewards), dtype=torch.int64), baseline="grpo")
        centred = rewards - rewards.mean()
        # A group of one, or of none, has no std, and a group of equals has none to divide by.
        wanted = torch.zeros_like(rewards) if not std or std != std else centred / (std + 1e-4)
        assert_close(found, wanted)


def test_every_case_is_covered_or_left_out_by_name() -> None:
    covered = [
        *LOSSES, *RLOO_LOSSES, *GROUPS, *ONE_GENERATION, *DECOUPLED, *RATIOS, *OFF_POLICY_CASES, *SCORE_CASES, *STDS,
        *RLOO_GROUPS,
    ]  # fmt: skip
    names = [case.name for case in covered]
    assert len(set(names)) == len(names) and not set(names) & set(LEFT_OUT)
    assert {*names, *LEFT_OUT} == {case.name for case in load(FILE) if case.source in SOURCES}
