"""What leaving the reference costs in the reward: ``algorithm.kl_coef``, which can adapt from step to step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from algorithms.figures import Figure
from algorithms.policy_settings import AlgorithmSection
from algorithms.records import Rollout
from algorithms.tokens import stacked

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.kl_control import KlController

COEF = Figure(
    "kl/coef",
    "what a nat of KL to the reference costs in this step, where it adapts to `algorithm.kl_target`",
    "Cost of the KL to the reference",
    "cost",
)


def nats(own: AlgorithmSection, rollouts: Sequence[Rollout], mask: "Tensor") -> "Tensor":
    """The KL to the reference of every token, ``[B, T]``; 0 outside the mask, and without a reference, in one place."""
    import torch

    from algorithms.maths.logprobs import kl_estimate

    refs = [r.ref_logprobs for r in rollouts if r.ref_logprobs is not None]
    if not refs:
        return torch.zeros(()).expand(mask.shape)
    olds = stacked([r.old_logprobs for r in rollouts if r.old_logprobs is not None])
    return kl_estimate(olds, stacked(refs), mask, estimator=own.kl_estimator)


def control(own: AlgorithmSection, state: Mapping[str, float]) -> "KlController":
    """Of the step whose ``Ask.state`` it is."""
    from algorithms.maths.kl_control import AdaptiveKl, FixedKl

    if own.kl_target is None:
        return FixedKl(coef=own.kl_coef)
    begun = AdaptiveKl(coef=own.kl_coef, target=own.kl_target, horizon=own.kl_horizon)
    return begun.resumed(state) if state else begun


def after(now: "KlController", kl: "Tensor") -> "KlController":
    """Of the next step.

    Args:
        kl: Nats per token of this step's rollouts, ``[B, T]``, 0 where nothing was sampled.
    """
    return now.after(of_a_response(kl), num_rollouts=len(kl))


def of_a_response(kl: "Tensor") -> float:
    """The KL of a whole response, nats, mean over the rollouts."""
    return float(kl.double().sum(dim=1).mean()) if kl.stride() != (0, 0) else 0.0


def check(own: AlgorithmSection, config: Any, *, algo: str, in_loss: bool) -> None:
    """Refuse a cost that cannot adapt.

    Raises:
        ValueError: naming the option.
    """
    if own.kl_target is None:
        return
    if in_loss:
        raise ValueError(
            f"algorithm.kl_target = {own.kl_target:g} must be none for algo = {algo!r}, whose KL is in the loss "
            "and not in the reward"
        )
    if own.kl_coef == 0:
        raise ValueError(
            f"algorithm.kl_target = {own.kl_target:g} needs algorithm.kl_coef above 0, which the cost begins with"
        )
    rollouts = config.rollout.prompts_per_step * config.rollout.samples_per_prompt
    if rollouts >= (most := 5 * own.kl_horizon):
        raise ValueError(
            f"rollout.prompts_per_step * rollout.samples_per_prompt = {rollouts} must be below 5 * "
            f"algorithm.kl_horizon = {most}: one step could turn the cost of the KL negative"
        )
