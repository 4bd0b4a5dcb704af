"""The optimizer's settings; its learning rate is a pure function of the step, so a resume needs no scheduler state."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Linear warm-up, then constant, cosine or linear decay to a floor.

    Source: cosine with a floor of 0.1 and 3 % warm-up is R1-Reward's setting.
    """

    peak_lr: float
    kind: Literal["constant", "cosine", "linear"]
    total_steps: int
    warmup_frac: float
    min_lr_frac: float

    def lr(self, step: int) -> float:
        """Learning rate of optimizer step ``step`` (0-based)."""
        warmup = math.ceil(self.warmup_frac * self.total_steps)
        if step < warmup:
            return self.peak_lr * (step + 1) / warmup
        if self.kind == "constant":
            return self.peak_lr
        progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
        decay = 0.5 * (1.0 + math.cos(math.pi * progress)) if self.kind == "cosine" else 1.0 - progress
        return self.peak_lr * (self.min_lr_frac + (1.0 - self.min_lr_frac) * decay)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSpec:
    """AdamW and how it is sharded."""

    zero_stage: int
    betas: tuple[float, float]
    weight_decay: float
    max_grad_norm: float
    """Global gradient norm is clipped to this."""
    offload_optimizer: bool
    grad_dtype: Literal["auto", "float32"] = "auto"
    """Of sums over micro-batches; see ``sums_in_float32``."""
    schedule: Schedule

    @property
    def sums_in_float32(self) -> bool:
        """Whether bfloat16 gradients add up in float32: DeepSpeed always does from stage 2 on, and with offloading."""
        return self.zero_stage >= 2 or self.offload_optimizer or self.grad_dtype == "float32"
