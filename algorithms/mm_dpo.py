"""MM-DPO: DPO in which a reward model's margin says how much a pair counts, and chosen responses are imitated.

Source: MM-RLHF, section 4.2, https://arxiv.org/abs/2502.10391
"""

from typing import Literal

from pydantic import Field

from algorithms.algorithm import Needs
from algorithms.critique_rm import CritiqueRm
from algorithms.preference import Preference
from algorithms.settings import Count, Section


class MmDpoSection(Section):
    """DPO in which a reward model's margin says how much a pair counts (MM-DPO)."""

    beta_mode: Literal["margin", "precomputed_factor", "fixed", "batch_implicit"] = "margin"
    """Where a pair's beta comes from: its margin under the critique reward model, a factor that came with the data,
    nowhere (preference.beta), or one draw a batch from the policy's own log-ratios, as released."""
    margin_weight: float = Field(default=0.5, ge=0.0)
    """w: beta rises from preference.beta to (1 + w) times that."""
    margin_steepness: float = Field(default=0.5, gt=0.0)
    """k: how fast it rises with the margin."""
    negative_margin: Literal["clamp", "drop", "flag"] = "clamp"
    """Pairs whose rejected response has the greater reward: margin 0, left out, or margin 0 and named in the log."""
    sft_weight: float = Field(default=0.25, ge=0.0)
    """Weight of the chosen responses' cross-entropy."""
    sft_mean: Literal["token", "response"] = "token"
    """Mean of that cross-entropy over the step's chosen tokens, or over chosen responses of their means."""
    sft_once: bool = False
    """Count a response once, not once for each pair in which it is chosen."""
    critique_rm_steps: Count | None = None
    """Steps for which the critique reward model is trained where reward.critique.path names none; none = run.steps."""
    critique_rm_lr: float | None = Field(default=None, gt=0.0)
    """Its peak learning rate; none = optimizer.lr."""


class MmDpo(Preference):
    """The preference optimisation of MM-RLHF; it trains a critique reward model first where it is given none."""

    sections = {**CritiqueRm.sections, "mm_dpo": MmDpoSection}
    profiles = {
        "mmrlhf_paper": CritiqueRm.profiles["mmrlhf_paper"],
        "mmrlhf_released": {
            **CritiqueRm.profiles["mmrlhf_released"],
            # The loss that its trainer computes.
            "mm_dpo.beta_mode": "batch_implicit",
            "mm_dpo.margin_weight": 0.1,
            "mm_dpo.sft_weight": 0.25,
            "mm_dpo.sft_mean": "token",
        },
    }

    @property
    def mm_dpo(self) -> MmDpoSection:
        """Its own settings."""
        section = self.settings["mm_dpo"]
        assert isinstance(section, MmDpoSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs, each with a beta of its own; margins where these make it."""
        return Needs(
            data=("preferences",),
            responses="pairs",
            reference=True,
            pair_betas=True,
            margins=self.mm_dpo.beta_mode == "margin",
        )
