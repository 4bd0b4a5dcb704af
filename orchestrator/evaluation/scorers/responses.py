"""What reward models are asked about an item: its responses, each by itself, and what becomes of their rewards.

Invariant: a response without a reward has NaN and the prediction says why; no number stands in for it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.evaluation.benchmarks.prompts import answer_prompt
from orchestrator.evaluation.predictions import Prediction, digest_of
from orchestrator.evaluation.scorers.scorer import why_unusable
from workers.types import Prompt


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What a reward model says of one response."""

    reward: float
    """NaN where there is none."""
    text: str = ""
    """What it wrote before."""
    why: str = ""
    """Why there is none."""


def unusable_rows(items: Sequence[Item], read: Callable[[Prompt], object]) -> list[tuple[int, str]]:
    """Rows that a reward model of texts cannot be asked about, each with the reason.

    Args:
        read: Spells a prompt; raises ``ValueError`` where the model cannot be asked it.
    """
    found = []
    for item in items:
        if not item.responses:
            found.append((item.row, "it has no responses apart from its question, which shows both to a judge"))
            continue
        if any(part["type"] != "text" for response in item.responses for part in response):
            found.append((item.row, "its responses hold images, and a reward model reads responses of text alone"))
            continue
        try:
            read(answer_prompt(item))
        except ValueError as error:
            found.append((item.row, why_unusable(error)))
    return found


def responses_of(asked: Sequence[Asked]) -> tuple[list[Prompt], list[str]]:
    """A prompt and a text for each response of each item, in their order.

    Rows that ask the same about the same images share a prompt, so that it is read once.
    """
    prompts, texts = list[Prompt](), list[str]()
    for one in asked:
        prompt = one.prompt
        named = replace(prompt, uid=digest_of(prompt.messages, [ref.sha256 for ref in prompt.media])[:16])
        for response in one.item.responses:
            prompts.append(named)
            texts.append("".join(part["text"] for part in response))
    return prompts, texts


def rewarded(asked: Sequence[Asked], said: Iterable[Rewarded]) -> list[Prediction]:
    """A prediction for each item.

    Args:
        said: One a response, as ``responses_of`` has them.
    """
    remaining, found = iter(said), list[Prediction]()
    for one in asked:
        own = [next(remaining) for _ in one.item.responses]
        found.append(
            one.prediction(
                0,
                rewards=tuple(r.reward if math.isfinite(r.reward) else math.nan for r in own),
                text="\n\n".join(f"{number}: {r.text}" for number, r in enumerate(own, start=1) if r.text),
                finish_reason="; ".join(f"{number}: {r.why}" for number, r in enumerate(own, start=1) if r.why),
            )
        )
    return found
