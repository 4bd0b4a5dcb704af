"""A frozen scalar reward model as the reward: what it says of each sample, read by its own processor.

texts ──► its own ids (equal samples of a prompt once) ──► workers ──► a number each ──► the part ``scalar``

Policy and reward model need have nothing in common but the pictures' files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from algorithms.figures import Tallies
from algorithms.records import Sequence as TokenSequence
from orchestrator.config.judges import SCALAR, UNFINISHED
from orchestrator.data.facts import META
from orchestrator.rewards.reward import Reward, failed_reward, with_parts
from workers.multimodal.fact_format import FactFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt, UnusablePrompt


class RewardWorkers(Protocol):
    """Workers of the role ``scalar_reward``, wherever they are."""

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float) -> list[Any]:
        """To find the ``rewards`` of each sequence, in the order given."""
        ...


class ScalarJudge:
    """Says what a response is worth; a number that is not finite, or none, is a failed reward."""

    def __init__(
        self,
        workers: RewardWorkers,
        encoder: PromptEncoder,
        *,
        weight: float,
        max_tokens: int | None,
        deadline_s: float,
        cut: float | None = None,
        facts: FactFormat | None = None,
    ) -> None:
        """
        Args:
            facts: How it is told the facts of a prompt; None where it reads the response alone.
            max_tokens: Positions of the model; a longer sample is not asked about. None bounds nothing.
            cut: see ``of_cut``.
        """
        self._workers, self._encoder, self._facts, self._cut = workers, encoder, facts, cut
        self._weight, self._max_tokens, self._deadline_s = weight, max_tokens, deadline_s

    def added(
        self, rewards: Sequence[Reward], prompts: Sequence[Prompt], texts: Sequence[str]
    ) -> tuple[list[Reward], Tallies]:
        """Rewards with the weighted numbers added; see ``SampleJudge``."""
        told = self.told(prompts, texts)
        return [self._joint(reward, one) for reward, one in zip(rewards, told, strict=True)], {}

    def fault(self, prompts: Sequence[Prompt]) -> str | None:
        """Nothing can be wrong before there are samples: its folder has been looked at, and the facts of the rows."""
        return None

    def told(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[float | str]:
        """The model's own number for each sample, or why there is none; it may be one that is not finite."""
        asked: dict[tuple[str, str], TokenSequence] = {}
        found: dict[tuple[str, str], float | str] = {}
        for prompt, text in zip(prompts, texts, strict=True):
            key = prompt.uid, text
            if key in asked or key in found:
                continue
            made = self._sequence(prompt, text, index=len(asked))
            if isinstance(made, str):
                found[key] = made
            else:
                asked[key] = made
        numbers = self._workers.each("rewards", list(asked.values()), deadline_s=self._deadline_s) if asked else []
        found |= dict(zip(asked, numbers, strict=True))
        return [found[prompt.uid, text] for prompt, text in zip(prompts, texts, strict=True)]

    def _sequence(self, prompt: Prompt, text: str, *, index: int) -> TokenSequence | str:
        try:
            read = self._read(prompt, text, index=index)
        except UnusablePrompt as error:
            return f"it cannot be read: {error.reason}"
        except ValueError as error:
            return f"it cannot be read: {error}"
        length = len(read.input_ids)
        if self._max_tokens is not None and length > self._max_tokens:
            return f"it has {length} tokens, more than the {self._max_tokens} that the reward model reads"
        return read

    def _read(self, prompt: Prompt, text: str, *, index: int) -> TokenSequence:
        """
        Raises:
            ValueError: the model cannot be asked the prompt, or be told its facts.
        """
        if self._facts is not None:
            return self._facts.scored(prompt, text, prompt.meta.get(META, ()), sample_index=index).sequence
        encoded = self._encoder.encode(prompt)
        return TokenSequence(
            uid=prompt.uid,
            sample_index=index,
            input_ids=np.array((*encoded.prompt_ids, *self._encoder.encode_target(text)), np.int64),
            prompt_len=len(encoded.prompt_ids),
            media=encoded.media,
        )

    def _joint(self, reward: Reward, told: float | str) -> Reward:
        if reward.value is None:
            return reward
        told = of_cut(told, reward.parts, self._cut)
        if isinstance(told, str) or not math.isfinite(told):
            why = told if isinstance(told, str) else f"its reward is {told}"
            return failed_reward(f"{SCALAR}: {why}", parts=reward.parts)
        return with_parts(reward, {SCALAR: told}, {SCALAR: self._weight})


def of_cut(told: float | str, parts: Mapping[str, float | None], cut: float | None) -> float | str:
    """What the model said, or ``cut`` in its place of a response that ``unfinished`` says was cut.

    Args:
        parts: Of the reward so far.
        cut: None replaces nothing.
    Source: LLaVA-RLHF, rl_trainer.py:577-589
    """
    return cut if cut is not None and parts.get(UNFINISHED) else told
