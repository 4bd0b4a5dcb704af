"""The sections of learning from preferences. The docstring under a field is its help on the command line."""

from typing import Literal

from pydantic import Field

from algorithms.settings import Count, Section, Share, Text


class PreferenceSection(Section):
    """Offline learning from preferences."""

    beta: float = Field(default=0.1, gt=0.0)
    """How far the policy may move from the reference: larger is nearer, 1/nats."""
    label_smoothing: float = Field(default=0.0, ge=0.0, le=0.5)
    """Probability that a pair's labels are swapped; for dpo and ddpo."""
    score_margin: float = Field(default=0.0, ge=-1.0)
    """Least difference of scores that makes a pair; -1 = only the pairs with an instruction's largest difference."""
    ipo_reduction: Literal["mean", "sum"] = "mean"
    """Whether ipo compares log-probs per token or of whole responses."""
    ddpo_mode: Literal["paper", "rlhf_v_recipe", "vl_rlhf"] = "paper"
    """Which weights ddpo gives to the tokens in which the responses of a pair differ."""
    desirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of desirable responses in kto."""
    undesirable_weight: float = Field(default=1.0, gt=0.0)
    """Weight of undesirable responses in kto."""


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


class ReferenceSection(Section):
    """The frozen model behind the KL penalty and behind preferences; it exists only where one of them asks for it."""

    mode: Literal["worker", "precomputed", "lora_off"] = "worker"
    """For preferences: workers that answer at every step, log-probs of all data computed before the first step, or
    the policy itself without its adapter."""
    num_ranks: Count = 1
    """Reference workers."""
    path: Text | None = None
    """Folder of precomputed log-probs, which runs can share; none = in the run folder."""
