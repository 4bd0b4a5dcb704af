"""What workers minimise for a policy-gradient algorithm: the algorithm's own loss of a token, and what all do to it.

    old log-probs ──► log_ratio ──► policy_loss ──► x weight against the engine ──► + KL to the reference

The algorithm says the two in the middle.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from algorithms.algorithm import Scores
from algorithms.figures import Figure, Tallies
from algorithms.records import TrainSample
from algorithms.tokens import TokenObjective, mean_over, mismatch_tallies, of_actions

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.policy_gradient import PolicyGradient

GUARDS = "Guards: share of tokens"
PRECLIP = Figure("policy/preclip_frac", "share of the action tokens bounded by Pre-CLIP", GUARDS, "Pre-CLIP")
CLIP = Figure("policy/clip_frac", "share of the action tokens whose ratio a clip of the loss bounded", GUARDS, "clip")
CORRECTION = (
    Figure("mismatch/weight_mean", "mean weight of the action tokens that `algorithm.correction` gives; 1 without it"),
    Figure(
        "mismatch/dropped_frac",
        "share of the action tokens that `algorithm.correction` or `algorithm.off_policy_max_kl` gives no weight",
        GUARDS,
        "dropped",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyTokens:
    """The action tokens of a micro-batch, sample after sample; tensors are ``[1, N]``, log-probs in nats."""

    logprobs: "Tensor"
    """Of the current weights, with gradient."""
    old_logprobs: "Tensor"
    """Of the weights at the start of the step."""
    rollout_logprobs: "Tensor"
    """Of the engine that sampled."""
    advantages: "Tensor"
    mask: "Tensor"
    """bool, the tokens that count."""
    lengths: tuple[int, ...]
    """Of the samples."""


@dataclass(frozen=True, slots=True)
class PolicyObjective(TokenObjective):
    """The sum of weighted per-token losses, which the algorithm says."""

    algorithm: "PolicyGradient"

    def loss_map(
        self, samples: Sequence[TrainSample], scores: Scores, logprobs: "Tensor", mask: "Tensor"
    ) -> "tuple[Tensor, Tallies]":
        """Old log-probs that nobody has asked for are those that the update starts from."""
        from algorithms.maths.masking import keep

        own, gap = self.algorithm.section, Tallies()
        rollout = of_actions(samples, "rollout_logprobs", logprobs)
        if samples[0].old_logprobs is None:
            old = logprobs.detach()
            gap = mismatch_tallies(old, rollout, mask)
        else:
            old = of_actions(samples, "old_logprobs", logprobs)
        tokens = PolicyTokens(
            logprobs=logprobs,
            old_logprobs=old,
            rollout_logprobs=rollout,
            advantages=of_actions(samples, "advantages", logprobs),
            mask=mask,
            lengths=tuple(len(piece) for piece in scores.logprobs),
        )
        result = self.algorithm.policy_loss(self.algorithm.log_ratio(tokens), tokens)
        weight = self._engine_weight(tokens)
        loss = keep(result.loss, weight > 0) * weight
        if self.algorithm.kl_in_loss and own.kl_coef > 0:
            from algorithms.maths.logprobs import kl_estimate

            ref = of_actions(samples, "ref_logprobs", logprobs)
            loss = loss + own.kl_coef * kl_estimate(logprobs, ref, mask, estimator=own.kl_estimator)
        return loss, {
            PRECLIP.name: mean_over(result.preclip_hit[0], mask),
            CLIP.name: mean_over(result.clip_hit[0], mask),
            CORRECTION[0].name: mean_over(weight[0], mask),
            CORRECTION[1].name: mean_over((weight == 0)[0], mask),
            **gap,
        }

    def _engine_weight(self, tokens: PolicyTokens) -> "Tensor":
        """What each token's loss counts because another program sampled it; 1 where nothing is corrected."""
        from algorithms.maths.importance import correction_weights, on_policy_mask
        from algorithms.maths.masking import keep

        own, weight = self.algorithm.section, tokens.mask.to(tokens.logprobs)
        if own.correction != "none":
            weight = correction_weights(
                tokens.old_logprobs,
                tokens.rollout_logprobs,
                tokens.mask,
                tokens.lengths,
                mode=own.correction,
                minimum=own.correction_min,
                maximum=own.correction_max,
            )
        if own.off_policy_max_kl is None:
            return weight
        near = on_policy_mask(
            tokens.advantages,
            tokens.logprobs,
            tokens.rollout_logprobs,
            tokens.mask,
            tokens.lengths,
            max_kl=own.off_policy_max_kl,
        )
        return keep(weight, near)
