"""On-policy distillation: the policy samples, and every token earns by how much likelier the teacher finds it.

The advantage of a token is −w (log π − log π_teacher), less the mean of all tokens: nothing is discounted, as a token
answers for itself alone. The gap is that of the weights an update begins with, so a token that has come to the teacher
is not pushed further, and no clip is needed. A task's reward, less the mean of the prompt's samples, may be added to
it. Agarwal et al. 2024, GKD, eq. 4 and 5 with on-policy data, https://arxiv.org/abs/2306.13649; as a reward: Thinking
Machines 2025, "On-policy distillation".
"""

from typing import TYPE_CHECKING, Any

from pydantic import Field

from algorithms.algorithm import Needs
from algorithms.policy_gradient import UNGUARDED, PolicyGradient
from algorithms.settings import GivenPath, Section

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.policy_losses import PolicyLoss
    from algorithms.policy_objective import PolicyTokens


class DistillSection(Section):
    """Distillation."""

    teacher_path: GivenPath | None = None
    """Folder of the teacher: a model with the policy's tokenizer, of whatever size."""
    weight: float = Field(default=1.0, gt=0.0)
    """What a nat of the gap to the teacher costs."""
    reward_weight: float = Field(default=0.0, ge=0.0)
    """What the task's reward counts beside it; 0 asks for none."""


class Distill(PolicyGradient):
    """Its teacher is its reference, and no other KL is charged.

    No samples are compared, so there are as many prompts as samples: more pictures a step.
    """

    sections = {**PolicyGradient.sections, "distill": DistillSection}
    defaults = {
        **UNGUARDED,
        "algorithm.aggregation": "token-mean",
        "algorithm.clip_low": 1.0,
        "algorithm.clip_high": 4.0,
        "rollout.prompts_per_step": 256,
        "rollout.samples_per_prompt": 1,
    }
    unclipped = True

    @property
    def _own(self) -> DistillSection:
        own = self.settings["distill"]
        assert isinstance(own, DistillSection)
        return own

    @property
    def needs(self) -> Needs:
        """A teacher; rewards where they count."""
        own = self._own
        return Needs(data=("prompts",), reference=True, teacher=own.teacher_path, rewards=own.reward_weight > 0)

    @property
    def weighing(self) -> None:
        """None: its advantage is the gap to the teacher, which no weight brings back to the weights that sampled."""
        return None

    def check(self, config: Any) -> None:
        """Refuse a run without a teacher, and a second KL."""
        super().check(config)
        if self._own.teacher_path is None:
            raise ValueError(f"distill.teacher_path is not set, but algo = {self.name!r} needs a teacher")
        if self.section.kl_coef or self.section.kl_estimator != "k1":
            raise ValueError(
                f"algorithm.kl_coef must be 0 and algorithm.kl_estimator 'k1' for algo = {self.name!r}, whose "
                "advantage is the gap to its teacher"
            )
        if self._own.reward_weight and config.rollout.samples_per_prompt < 2:
            raise ValueError(
                f"distill.reward_weight = {self._own.reward_weight:g} needs rollout.samples_per_prompt of at least 2, "
                "whose mean the reward is compared with"
            )

    def advantages(self, scores: "Tensor", prompts: "Tensor", kl: "Tensor", mask: "Tensor") -> "tuple[Tensor, float]":
        """−w (log π − log π_teacher) less its mean, and the weighted reward less the mean of its prompt's samples."""
        from algorithms.maths.advantages import group_advantages, on_tokens
        from algorithms.maths.masking import keep, masked_mean

        own = self._own
        task = own.reward_weight * group_advantages(scores, prompts, baseline="mean")
        return on_tokens(task, mask) - own.weight * keep(kl - masked_mean(kl, mask), mask), 0.0

    def policy_loss(self, log_ratio: "Tensor", tokens: "PolicyTokens") -> "PolicyLoss":
        """−sg[min(ρ, 1 + clip_high) (Â − w log ρ)] log π: what the weights have moved since counts in the gap too."""
        from algorithms.maths.masking import keep
        from algorithms.maths.policy_losses import cispo_loss_map

        moved = keep(log_ratio, tokens.mask).detach()
        return cispo_loss_map(
            log_ratio,
            tokens.logprobs,
            tokens.advantages - self._own.weight * moved,
            tokens.mask,
            clip_low=self.section.clip_low,
            clip_high=self.section.clip_high,
        )
