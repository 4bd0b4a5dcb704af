"""How long the prompts and answers of one step are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One prompt with its answers, in tokens."""

    prompt: int
    """With what stands for its images."""
    image: int
    """Part of it that stands for images, taken to be one image."""
    answers: tuple[int, ...]


Lengths = tuple[Asked, ...]
"""Of one step, prompt after prompt."""


def longest_lengths(config: TrainConfig, *, image: int) -> Lengths:
    """Every prompt and answer as long as the options allow: a sample fits a micro-batch, or a run would refuse it."""
    rollout = config.rollout
    fits = config.policy.tokens_per_microbatch - rollout.max_new_tokens
    prompt = max(1, min(config.data.max_prompt_tokens, fits))
    answers = (rollout.max_new_tokens,) * rollout.samples_per_prompt
    return (Asked(prompt=prompt, image=min(image, prompt), answers=answers),) * rollout.prompts_per_step


def drawn_lengths(config: TrainConfig, *, prompt: int, image: int, answers: Sequence[int]) -> Lengths:
    """Prompts of one length, and answers as they come."""
    rollout = config.rollout
    each = rollout.samples_per_prompt
    groups = (tuple(answers[i * each : (i + 1) * each]) for i in range(rollout.prompts_per_step))
    return tuple(Asked(prompt=prompt, image=image, answers=group) for group in groups)


def log_normal(num: int, *, mean: float, longest: int, seed: int = 0) -> list[int]:
    """Lengths whose logarithms are normal, with a given mean and a given longest of so many; in a random order.

    The longest of n is taken to stand at the quantile 1 - 1/(n + 1), which with the mean fixes both parameters. They
    are the distribution's own quantiles and no draws, so that the mean does not depend on luck.

    Args:
        mean: Tokens.
        longest: Tokens; none is longer.
    Raises:
        RefusedInput: no log-normal has so long a longest beside such a mean, or the mean is above the longest.
    """
    if not 0 < mean <= longest:
        raise RefusedInput(f"mean answer = {mean:g} tokens is not above 0 and at most the longest, {longest}")
    if num == 1 or mean == longest:
        return [longest if mean == longest else round(mean)] * num
    at_most = NormalDist().inv_cdf(1 - 1 / (num + 1))
    square = at_most**2 - 2 * math.log(longest / mean)
    if square < 0:
        raise RefusedInput(
            f"longest answer = {longest} tokens is too far from the mean, {mean:g}, for a log-normal of {num}: at most "
            f"{mean * math.exp(at_most**2 / 2):.0f}"
        )
    sigma = at_most - math.sqrt(square)
    middle = math.log(mean) - sigma**2 / 2
    normal = NormalDist(middle, sigma)
    drawn = [max(1, min(longest, round(math.exp(normal.inv_cdf((i + 0.5) / num))))) for i in range(num)]
    return np.random.default_rng(seed).permutation(drawn).tolist()
