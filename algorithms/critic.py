"""The value model of PPO: its settings, what it learns from, and what its workers minimise.

rollouts + values ──► GAE ──► advantages: the policy's; returns: the critic's ──► one update each, in turn
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from algorithms.algorithm import CriticModel, Loss, ScalarHead, Scores
from algorithms.figures import Figure, Mean
from algorithms.records import TokenSample
from algorithms.settings import Count, GivenPath, Section, Share, Times
from algorithms.tokens import of_actions

if TYPE_CHECKING:
    import numpy as np

FIGURES = (
    Figure("critic/loss", "half the squared gap of value and return, mean over the step's updates", "Critic's loss"),
    Figure(
        "critic/explained_variance",
        "1 − Var(return − value) / Var(return) over the step's action tokens, of the values before its updates: 1 is a "
        "perfect critic, 0 one that says the same everywhere; missing where the returns do not vary",
        "Explained variance of the returns",
        "explained",
    ),
    Figure("critic/value_mean", "mean value over the step's action tokens", "Values and returns", "value"),
    Figure("critic/return_mean", "mean of the returns that the critic learns", "Values and returns", "return"),
    Figure("critic/clip_frac", "share of the action tokens whose value the clip of its loss bounded"),
    Figure("critic/grad_norm", "global norm before clipping"),
    Figure("critic/lr", "learning rate, mean over the step's updates"),
)
LOSS, EXPLAINED, VALUE, RETURN, CLIP = (figure.name for figure in FIGURES[:5])


class CriticSection(Section):
    """The value model of PPO."""

    init: Literal["policy", "reward", "random"] = "policy"
    """Its weights to begin with: the policy's model; a scalar reward model, that of critic.path or else of
    reward.scalar_path; or fresh ones, by run.seed, where model.freeze does not keep the policy's."""
    path: GivenPath | None = None
    """Folder of a scalar reward model, for critic.init = "reward"; none = reward.scalar_path. It may hold an adapter
    alone, which is learned on: model.lora_rank is then its rank."""
    head: Literal["zero", "reward_head"] = "zero"
    """Its head to begin with: zeros, or the reward model's."""
    lr: float | None = Field(default=None, gt=0.0)
    """Its peak learning rate; none = optimizer.lr."""
    schedule: Literal["constant", "linear", "cosine"] | None = None
    """Its learning rate's; none = optimizer.schedule."""
    epochs: Count = 1
    """Times that it goes through the samples of a step, which the policy has a number of its own for."""
    warmup_steps: Times = 0
    """Steps at the beginning at which the critic alone learns: until it knows what the policy earns, its advantages are
    noise."""
    clip: float | None = Field(default=0.2, gt=0.0)
    """A value moves about this far from what it was at the start of the step, in units of the reward; none = freely."""
    gae_lambda: Share = 0.95
    """GAE's lambda: 1 trusts returns alone, 0 the next value alone."""
    whiten: bool = True
    """Whether advantages are standardised over all tokens of the step."""
    reward_scale: float = Field(default=1.0, gt=0.0)
    """What rewards are multiplied by before the critic sees them."""

    def check(self, config: Any) -> None:
        """Refuse a beginning that contradicts itself."""
        if self.init == "reward" and self.path is None and config.reward.scalar_path is None:
            raise ValueError("critic.init = 'reward' needs critic.path or reward.scalar_path, a scalar reward model")
        for name, value, idle in (("path", self.path, None), ("head", self.head, "zero")):
            if self.init != "reward" and value != idle:
                raise ValueError(f"critic.{name} = {value!r} needs critic.init = 'reward'; it is {self.init!r}")
        if self.init == "random" and config.model.lora_rank is not None:
            raise ValueError(
                f"critic.init = 'random' must be without model.lora_rank = {config.model.lora_rank}, which would leave "
                "fresh weights as they are"
            )

    @property
    def model(self) -> CriticModel:
        """What its workers begin from."""
        return CriticModel(
            init=self.init,
            path=self.path,
            head=ScalarHead(bias=True),
            keeps_head=self.head == "reward_head",
            lr=self.lr,
            schedule=self.schedule,
            objective=ValueObjective(self.clip),
            epochs=self.epochs,
            warmup_steps=self.warmup_steps,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueSample(TokenSample):
    """A sampled sequence, with what the critic is to say of it."""

    returns: "np.ndarray"
    """float32 ``[T]``."""
    old_values: "np.ndarray"
    """float32 ``[T]``, of the weights at the start of the step."""


@dataclass(frozen=True, slots=True)
class ValueObjective:
    """The weighted sum of clipped squared gaps; weights count over the whole batch, as the policy's do."""

    clip: float | None

    def __call__(self, scores: Scores, samples: Sequence[ValueSample]) -> Loss:
        """The losses of a micro-batch."""
        import torch

        from algorithms.maths.aggregation import weighted
        from algorithms.maths.value_losses import clipped_value_loss_map

        values = torch.cat(list(scores.values))[None]
        weights = of_actions(samples, "loss_weight", values)
        mask = weights > 0
        found = clipped_value_loss_map(
            values,
            of_actions(samples, "old_values", values),
            of_actions(samples, "returns", values),
            mask,
            clip=self.clip,
        )
        per_sample = weighted(found.loss, weights)[0].split([len(piece) for piece in scores.values])
        hits = Mean(float(found.clip_hit.sum()), int(mask.sum()))
        return Loss(torch.stack([part.sum() for part in per_sample]), {CLIP: hits})
