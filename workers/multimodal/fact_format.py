"""How a fact-augmented reward model is asked what a response is worth: one spelling for who trains it and who asks it.

    [prompt + media] [response] [end of turn, the request with the facts, header of the next turn] [opening words]
                                                                                             score read here ▲

The facts stand behind the response, in a turn of their own: all responses of an instruction share its prompt and its
images. Only the reward model is told them, never the policy. Source: LLaVA-RLHF, section 3.3 of
https://arxiv.org/abs/2309.14525; the words are ours, and the released weights expect their own.
"""

import hashlib
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithms.fact_rm import PLACE
from algorithms.records import Sequence
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


def fact_prompt(template: str, facts: Seq[str], *, uid: str, seed: int = 0) -> str:
    """The request with the facts, a line each, in an order that depends on sample and seed alone.

    Args:
        template: Has ``{facts}`` once.
        uid: Of the sample.
    Raises:
        ValueError: there is no fact, an empty one, or no single place for them.
    """
    if template.count(PLACE) != 1:
        raise ValueError(f"the request has {template.count(PLACE)} places {PLACE} for the facts, expected 1")
    if not facts or not all(fact.strip() for fact in facts):
        raise ValueError(f"sample {uid!r} has {len(facts)} facts, expected some, each a text")
    # By digest: every version of every library makes the same order of it.
    keys = [hashlib.sha256(f"{seed}\0{uid}\0{number}".encode()).digest() for number in range(len(facts))]
    lines = [f"- {' '.join(fact.split())}" for _, fact in sorted(zip(keys, facts, strict=True))]
    before, _, behind = template.partition(PLACE)
    return before + "\n".join(lines) + behind


def rm_input(
    conversation: Seq[dict[str, Any]], response: str, template: str, facts: Seq[str], *, uid: str, seed: int = 0
) -> tuple[dict[str, Any], ...]:
    """The turns that a reward model reads, up to the opening words of its own.

    Args:
        conversation: Chat turns of the prompt, its last the user's.
    Raises:
        ValueError: see ``fact_prompt``.
    """
    asked = fact_prompt(template, facts, uid=uid, seed=seed)
    return (*conversation, _turn("assistant", response), _turn("user", asked))


@dataclass(frozen=True, slots=True)
class Told:
    """A response with what the model is told behind it."""

    sequence: Sequence
    """Its last token is where the head reads the score."""
    start: int
    """Where in its ids the words behind the response begin."""


class FactFormat:
    """Spells what is scored with a model's own chat template."""

    def __init__(self, encoder: PromptEncoder, *, template: str, opening: str, seed: int = 0) -> None:
        """
        Args:
            template, seed: see ``fact_prompt``.
            opening: Of at least one token.
        Raises:
            ValueError: the opening words are no token.
        """
        self._encoder, self._template, self._seed = encoder, template, seed
        self._opening = encoder.encode_text(opening)
        if not self._opening:
            raise ValueError(f"the opening words {opening!r} are no token, and the score is read at the last of them")

    def scored(self, prompt: Prompt, response: str, facts: Seq[str], *, sample_index: int) -> Told:
        """What the model reads.

        Raises:
            UnusablePrompt: the model cannot be asked the prompt.
            ValueError: see ``fact_prompt``, or the chat template cannot go on behind a response.
        """
        asked = fact_prompt(self._template, facts, uid=prompt.uid, seed=self._seed)
        question = CritiqueFormat(self._encoder, asked).ask(prompt, response)
        ids = (*question.prompt.prompt_ids, *question.asked, *self._opening)
        sequence = Sequence(
            uid=prompt.uid,
            sample_index=sample_index,
            input_ids=np.asarray(ids, dtype=np.int64),
            prompt_len=len(question.prompt.prompt_ids),
            media=question.prompt.media,
        )
        return Told(sequence, sequence.prompt_len + len(self._encoder.encode_text(response)))


def _turn(role: str, words: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": words}]}


def fact_format(encoder: PromptEncoder, request: str | None, opening: str | None) -> FactFormat | None:
    """How a reward model is told facts that was trained with these; None where it is told none.

    Raises:
        ValueError: the opening words are no token.
    """
    if request is None or opening is None:
        return None
    return FactFormat(encoder, template=request, opening=opening)
