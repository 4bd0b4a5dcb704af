"""A critique reward model (MM-RLHF): it says in words what is good and bad about a response, then gives a reward.

Source: MM-RLHF, section 3.2, https://arxiv.org/abs/2502.10391
"""

from typing import Literal

from pydantic import Field

from algorithms.algorithm import Needs, ScalarHead
from algorithms.preference import Preference, PreferenceSection
from algorithms.settings import Section, Share, Text


class CritiqueRmSection(Section):
    """A reward model that first says in words what is good and bad about a response (MM-RLHF)."""

    request: Text = (
        "Evaluate the response above. Is it correct, clear and complete? Say what is good and what is bad about it."
    )
    """What the model is asked once it has read a response; its answer is the critique."""
    head: Literal["linear", "mlp"] = "linear"
    """Scalar head: linear as in the paper, or two layers with tanh as released."""
    score_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the comparisons, pairs and ties together."""
    tie_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the squared difference of responses that tie."""
    centering: float = Field(default=0.01, ge=0.0)
    """Weight of the squared sum of a pair's rewards, which keeps them around 0."""
    critique_weight: float = Field(default=1.0, ge=0.0)
    """Weight of the critiques' cross-entropy, each response's counted once."""
    scheduled_sampling: Share = 0.0
    """Share of the steps that read rewards off critiques which the model wrote itself; above 0 there are engines."""


class CritiqueRm(Preference):
    """The critique reward model of MM-RLHF."""

    sections = {
        "preference": PreferenceSection,
        "critique_rm": CritiqueRmSection,
    }
    profiles = {
        # Section 5.1 and table 8 of https://arxiv.org/abs/2502.10391, which are the sections' own.
        "mmrlhf_paper": {},
        # scripts/train of https://github.com/yfzhang114/MM-RLHF
        "mmrlhf_released": {
            "critique_rm.head": "mlp",
            # It adds the means over both sides of the pairs, where ours is one mean over responses.
            "critique_rm.critique_weight": 2.0,
            "optimizer.lr": 1e-6,
            "optimizer.warmup_frac": 0.1,
            "optimizer.min_lr_frac": 0.0,
        },
    }

    @property
    def critique(self) -> CritiqueRmSection:
        """Its own settings."""
        section = self.settings["critique_rm"]
        assert isinstance(section, CritiqueRmSection)
        return section

    @property
    def needs(self) -> Needs:
        """Pairs and ties with people's critiques, and a head that gives rewards beside the one that writes."""
        return Needs(
            data=("preferences",),
            responses="pairs",
            head=ScalarHead(kind=self.critique.head, keeps_language=True, request=self.critique.request),
            critiques=True,
            generated_critiques=self.critique.scheduled_sampling,
        )
