"""What the KL to the reference costs, from step to step: the same, or as much as keeps the KL near a target.

A controller is frozen: ``after`` gives the next one, so that a step that is taken again begins from the same cost. Its
``state`` is plain JSON, whose floats are exact, and ``resumed`` goes on from it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

_LARGEST_ERROR = 0.2
"""Relative distance from the target that one update answers to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedKl:
    """The same cost throughout."""

    coef: float
    """Reward units per nat."""

    def __post_init__(self) -> None:
        _check_coef(self.coef)

    def after(self, kl: float, *, num_rollouts: int) -> "FixedKl":
        """The controller behind a step."""
        return self

    def state(self) -> dict[str, float]:
        """Nothing changes."""
        return {}

    def resumed(self, state: Mapping[str, float]) -> "FixedKl":
        """The controller as it was saved.

        Raises:
            ValueError: the state is that of another kind.
        """
        if state:
            raise ValueError(f"state {sorted(state)} is of a KL cost that adapts, this one is fixed")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveKl:
    """A cost that grows where the KL is above the target and shrinks where it is below.

    coef ← coef · (1 + e n / horizon), e = KL / target − 1 clamped to ±0.2, n the rollouts of the step.

    Source: Ziegler et al. 2019, section 2.2, https://arxiv.org/abs/1909.08593
    """

    coef: float
    """Reward units per nat, to begin with."""
    target: float
    """Nats of a response, above 0."""
    horizon: float
    """Rollouts in which the cost may change by a fifth of itself; above 0."""

    def __post_init__(self) -> None:
        _check_coef(self.coef)
        for name in ("target", "horizon"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise ValueError(f"{name} = {value} must be positive and finite")

    def after(self, kl: float, *, num_rollouts: int) -> "AdaptiveKl":
        """The controller behind a step.

        Args:
            kl: Mean over the step's responses of the KL to the reference, nats of a whole response.
        Raises:
            ValueError: the KL is not finite, or one step has more rollouts than could turn the cost negative.
        """
        if not math.isfinite(kl):
            raise ValueError(f"kl = {kl} must be finite")
        if not 0 <= num_rollouts * _LARGEST_ERROR < self.horizon:
            raise ValueError(f"num_rollouts = {num_rollouts} must be below horizon / 0.2 = {self.horizon / 0.2:g}")
        error = min(max(kl / self.target - 1.0, -_LARGEST_ERROR), _LARGEST_ERROR)
        return replace(self, coef=self.coef * (1.0 + error * num_rollouts / self.horizon))

    def state(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"coef": self.coef}

    def resumed(self, state: Mapping[str, float]) -> "AdaptiveKl":
        """The controller as it was saved; target and horizon are settings.

        Raises:
            ValueError: the state is that of another kind, or its cost is none.
        """
        if set(state) != {"coef"}:
            raise ValueError(f"state {sorted(state)} is of a fixed KL cost, this one adapts")
        return replace(self, coef=state["coef"])


KlController = FixedKl | AdaptiveKl


def _check_coef(coef: float) -> None:
    if not 0.0 <= coef < math.inf:
        raise ValueError(f"coef = {coef} must be finite and not negative")
