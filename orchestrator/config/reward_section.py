"""What a run's configuration says of its rewards."""

from typing import Literal

from pydantic import Field

from algorithms.settings import Count, Seconds, Section, Share, Text


class CritiqueSection(Section):
    """A critique reward model as a source of rewards and margins."""

    path: Text | None = None
    """Its folder: what a run of critique_rm left; none = mm_dpo trains one first."""
    weight: float = Field(default=0.0, ge=0.0)
    """Weight of its reward in the reward of an online algorithm."""
    num_workers: Count = 1
    """Workers that write critiques and read rewards off them."""
    max_new_tokens: Count = 1024
    """Longest critique, tokens; one that is cut gives no reward."""
    cache_path: Text | None = None
    """File of the critiques and rewards that are known, which runs can share; none = in the run folder."""


class RewardSection(Section):
    """Where scores come from."""

    critique: CritiqueSection = CritiqueSection()
    functions: tuple[Text, ...] = Field(default=(), strict=False)
    """Functions that are the reward: FILE.py:NAME, or format, exact, number, math, choice, count, iou, point, length,
    overlong; each with what it counts and its own options, as in "number?weight=0.5&tolerance=0.01"; none = the rules
    of reward.scoring."""
    function_workers: Count = 4
    """Processes that run them."""
    function_timeout_s: Seconds = 10.0
    """Longest time of one call of a function, seconds."""
    function_memory_gib: float = Field(default=4.0, gt=0.0)
    """Memory that one of these processes may take, GiB."""
    url: Text | None = None
    """Address of a running reward service, ours or one that answers OpenRLHF's POST .../get_reward; none = the run
    starts its own."""
    token_file: Text | None = None
    """File holding the bearer token that service asks for."""
    judge: Literal["rules", "openai"] = "rules"
    """Judge of consistency: fixed rules, or a model behind an OpenAI-compatible endpoint."""
    judge_url: Text | None = None
    """Address of that endpoint."""
    judge_model: Text | None = None
    """Name of the model there."""
    judge_key_file: Text | None = None
    """File holding that endpoint's API key."""
    scoring: Literal["strict", "compat"] = "strict"
    """Rules of the reward service for format, accuracy and reading its judge: ours, or the R1-Reward release's."""
    min_coverage: Share = 0.9
    """The run stops when a smaller share of a step's samples was scored."""
    max_unknown: Share | None = None
    """The run stops when a judge gave no verdict on a larger share of a step's samples that it was asked about; none =
    0.5, but no bound for the rules, to which a reasoning that names no response is no fault of theirs."""
    timeout_s: Seconds = 60.0
    """Longest wait for one scoring request, seconds."""
    max_outage_s: Seconds = 180.0
    """Longest time a step waits for a reward service or judge that is down, seconds."""
    cache_path: Text | None = None
    """Verdict cache file; none = in the run folder."""
