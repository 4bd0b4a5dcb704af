"""What a run's configuration says of its rewards."""

import math
from typing import Any, Literal
from urllib.parse import parse_qsl

from pydantic import Field

from algorithms.settings import Count, Seconds, Section, Share, Text

_PAIRWISE = "pairwise"
"""Compared by workers of the run, not by the service."""
_REQUEST = """Compare two answers to a question about the image.

Question: {question}

Response 1: {first}

Response 2: {second}

Look at the image and reason within <think> and </think> which response is more correct and helpful. Then write the \
number of the better one, 1 or 2, within <answer> and </answer>."""


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
    overlong, pairwise; each with what it counts and its own options, as in "number?weight=0.5&tolerance=0.01"; none =
    the rules of reward.scoring."""
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
    judge_path: Text | None = None
    """Folder of a generative judge, as sft or stable_reinforce leave one: it compares the samples of a prompt for
    "pairwise" in reward.functions, on workers of this run; none = none."""
    judge_request: Text = _REQUEST
    """What that judge is asked below the prompt's images: {question}, {first} and {second} stand for the prompt's words
    and two responses."""
    judge_images: Literal["own", "shuffled"] = "own"
    """The prompt's images, or another prompt's: a control, from which nothing should be learned."""
    judge_workers: Count = 1
    """Its workers."""
    judge_max_new_tokens: Count = 1024
    """Longest verdict, tokens."""
    max_pairs: Count = 16
    """Most pairs of a prompt's samples that are compared, each in both orders; of more, a seeded ring is."""
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

    @property
    def pairwise_weight(self) -> float | None:
        """What the win rates of the samples of a prompt count; None where ``functions`` has no ``pairwise``."""
        for text in self.functions:
            name, _, options = text.partition("?")
            if name == _PAIRWISE:
                return _weight(options)
        return None

    @property
    def served(self) -> tuple[str, ...]:
        """Those of ``functions`` that the reward service runs."""
        return tuple(text for text in self.functions if text.partition("?")[0] != _PAIRWISE)

    def check(self, config: Any) -> None:
        """Refuse a comparison that nobody could make, and a judge whom nobody asks.

        Raises:
            ValueError: naming the option.
        """
        weight, samples = self.pairwise_weight, config.rollout.samples_per_prompt
        if self.served and self.url is not None:
            raise ValueError(
                f"reward.functions has {self.served[0]!r}, which the run's own service would run, but reward.url is "
                "set: start that service with --functions"
            )
        if len(self.functions) > len(self.served) + 1:
            raise ValueError('reward.functions has "pairwise" twice')
        if weight is None and self.judge_path is not None:
            raise ValueError('reward.judge_path is set, but reward.functions has no "pairwise" that would ask it')
        if weight is None:
            return
        if self.judge_path is None:
            raise ValueError('reward.functions has "pairwise", which needs reward.judge_path')
        if samples < 2:
            raise ValueError(
                f'reward.functions has "pairwise", which needs rollout.samples_per_prompt of at least 2, not {samples}'
            )
        if missing := [name for name in ("{first}", "{second}") if name not in self.judge_request]:
            raise ValueError(f"reward.judge_request holds no {missing[0]}")


def _weight(options: str) -> float:
    given = dict(parse_qsl(options, keep_blank_values=True))
    try:
        weight = float(given.get("weight", "1"))
    except ValueError:
        weight = math.nan
    if set(given) - {"weight"} or not math.isfinite(weight):
        raise ValueError(f"reward.functions: {_PAIRWISE}?{options} should say a weight alone, a number")
    return weight
