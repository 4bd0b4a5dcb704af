"""What a run's configuration says of its rewards."""

from typing import Any, Literal

from pydantic import Field

from algorithms.settings import Count, GiB, GivenPath, Seconds, Section, Share, Text, Workers
from orchestrator.config.judges import (
    JUDGES,
    PAIR_REQUEST,
    PAIRWISE,
    RUBRIC,
    RUBRIC_REQUEST,
    SCALAR,
    Criterion,
    check_judges,
    criteria_of,
    function_weight,
)


class CritiqueSection(Section):
    """A critique reward model as a source of rewards and margins."""

    path: GivenPath | None = None
    """Its folder: what a run of critique_rm left; none = mm_dpo trains one first."""
    weight: float = Field(default=0.0, ge=0.0)
    """Weight of its reward in the reward of an online algorithm."""
    num_workers: Workers = 1
    """Workers that write critiques and read rewards off them."""
    max_new_tokens: Count = 1024
    """Longest critique, tokens; one that is cut gives no reward."""
    cache_path: GivenPath | None = None
    """File of the critiques and rewards that are known, which runs can share; none = in the run folder."""


class RewardSection(Section):
    """Where scores come from."""

    critique: CritiqueSection = CritiqueSection()
    functions: tuple[Text, ...] = Field(default=(), strict=False)
    """Functions that are the reward: FILE.py:NAME, or format, exact, number, math, choice, count, iou, point, length,
    overlong, pairwise, judge, scalar; each with what it counts and its own options, as in
    "number?weight=0.5&tolerance=0.01"; none = the rules of reward.scoring."""
    function_workers: Workers = 4
    """Processes that run them."""
    function_timeout_s: Seconds = 10.0
    """Longest time of one call of a function, seconds."""
    function_memory_gib: GiB = 4.0
    """Memory that one of these processes may take, GiB."""
    url: Text | None = None
    """Address of a running reward service, ours or one that answers OpenRLHF's POST .../get_reward; none = the run
    starts its own."""
    token_file: GivenPath | None = None
    """File holding the bearer token that service asks for."""
    judge: Literal["rules", "openai"] = "rules"
    """Judge of consistency: fixed rules, or a model behind an OpenAI-compatible endpoint."""
    judge_path: GivenPath | None = None
    """Folder of a generative judge, as sft or stable_reinforce leave one: it is asked for "pairwise" and "judge" of
    reward.functions, on workers of this run; none = the endpoint at reward.judge_url is."""
    scalar_path: GivenPath | None = None
    """Folder of a scalar reward model or its adapter, as scalar_rm leaves one: it is asked for "scalar" of
    reward.functions, or by mm_dpo for margins and answers, on workers of this run, and may be of another family than
    the policy; none = none."""
    scalar_cut: float | None = None
    """What "scalar" is for a response that was cut before its end of turn, whatever the model thinks of it; needs
    "unfinished" in reward.functions; none = what the model thinks."""
    scalar_workers: Workers = 1
    """Workers of reward.scalar_path."""
    judge_request: Text = PAIR_REQUEST
    """What is asked for "pairwise" below the prompt's images: {question}, {first} and {second} stand for the prompt's
    words and two responses."""
    judge_rubric: Text = RUBRIC_REQUEST
    """What is asked for "judge" below the prompt's images: {question}, {response}, {label} and {criteria} stand for the
    prompt's words, the response, the row's answer and the criteria; without an <answer> in it, the form of the verdict
    is told below."""
    judge_criteria: tuple[Text, ...] = Field(default=(), strict=False)
    """What "judge" gives a number for, each a part of the reward: "correct?weight=2: Is it right?", with words in a
    file; none = one number."""
    judge_scale: tuple[float, float] = Field(default=(0.0, 10.0), strict=False)
    """Lowest and highest number that "judge" may give; the part is 0 at the one and 1 at the other."""
    judge_images: Literal["own", "shuffled", "none"] = "own"
    """What those judges are shown: the prompt's images, another prompt's (a control, from which nothing should be
    learned), or none, for a model that takes none."""
    judge_workers: Workers = 1
    """Workers of reward.judge_path."""
    judge_max_new_tokens: Count = 1024
    """Longest verdict, tokens."""
    max_pairs: Count = 16
    """Most pairs of a prompt's samples that are compared, each in both orders; of more, a seeded ring is."""
    judge_url: Text | None = None
    """Address of an OpenAI-compatible endpoint: of reward.judge, and of "pairwise" and "judge" without
    reward.judge_path."""
    judge_model: Text | None = None
    """Name of the model there."""
    judge_key_file: GivenPath | None = None
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
    cache_path: GivenPath | None = None
    """Verdict cache file; none = in the run folder."""

    @property
    def pairwise_weight(self) -> float | None:
        """What the win rates of the samples of a prompt count; None where ``functions`` has no ``pairwise``."""
        return function_weight(self.functions, PAIRWISE)

    @property
    def rubric_weight(self) -> float | None:
        """What the judge's numbers count; None where ``functions`` has no ``judge``."""
        return function_weight(self.functions, RUBRIC)

    @property
    def scalar_weight(self) -> float | None:
        """What a scalar reward model's number counts; None where ``functions`` has no ``scalar``."""
        return function_weight(self.functions, SCALAR)

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """What those numbers are of; none is one for the whole."""
        return criteria_of(self.judge_criteria)

    @property
    def served(self) -> tuple[str, ...]:
        """Those of ``functions`` that the reward service runs."""
        return tuple(text for text in self.functions if text.partition("?")[0] not in JUDGES)

    def check(self, config: Any) -> None:
        """Refuse a judgement that nobody could make, and a judge whom nobody asks.

        Raises:
            ValueError: naming the option.
        """
        if self.served and self.url is not None:
            raise ValueError(
                f"reward.functions has {self.served[0]!r}, which the run's own service would run, but reward.url is "
                "set: start that service with --functions"
            )
        fields = type(self).model_fields
        names = ("judge_rubric", "judge_criteria", "judge_scale")
        unasked = [f"reward.{name}" for name in names if getattr(self, name) != fields[name].default]
        weighs = config.needs.pair_betas
        if weighs and self.scalar_path is not None and self.critique.path is not None:
            raise ValueError(
                "reward.critique.path and reward.scalar_path both say which reward model measures margins: leave one "
                "of them out"
            )
        check_judges(self, samples=config.rollout.samples_per_prompt, unasked=unasked, scores_pairs=weighs)
