"""How a critique of a response is asked for: one spelling for who trains a critique reward model and who asks it.

    [prompt + media] [response] [end of turn, the request, header of the next turn] [critique, end of turn]
                                                                                     ▲ written      ▲ reward read

The conversation goes on behind the response, so that all responses of an instruction share its prompt and its images,
for the trainer's packed rows as for the engine's prefix cache. The released code of MM-RLHF puts question and response
into one user turn instead, response last.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np

from algorithms.records import Sequence
from workers.multimodal.prompt_encoder import PromptEncoder, Rendered, TemplateRefusal
from workers.types import EncodedPrompt, Prompt

_RESPONSE = "@@response@@"
"""Stands for the response while the template is rendered."""
_REFUSAL = "its chat template cannot go on behind a response with the request for a critique"


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueQuestion:
    """A prompt, a response to it, and the request for a critique, in token ids."""

    prompt: EncodedPrompt
    asked: tuple[int, ...]
    """Behind the prompt, up to where the critique begins."""

    @property
    def critique_start(self) -> int:
        """Tokens before the critique, as a model's forward sees them."""
        return len(self.prompt.prompt_ids) + len(self.asked)


class CritiqueFormat:
    """Spells questions with a model's own chat template."""

    def __init__(self, encoder: PromptEncoder, request: str) -> None:
        """
        Args:
            request: What the model is asked once it has read the response.
        """
        self.request = request
        self._encoder = encoder

    def ask(self, prompt: Prompt, response: str) -> CritiqueQuestion:
        """The ids of a question.

        Raises:
            UnusablePrompt: the model cannot be asked the prompt.
            ValueError: the chat template cannot go on behind a response.
        """
        encoded = self._encoder.encode(prompt)
        asked = (
            *self._encoder.encode_text(response),
            *self._encoder.ids_behind(self.behind_response(prompt.messages)),
        )
        return CritiqueQuestion(prompt=encoded, asked=asked)

    def answered(self, question: CritiqueQuestion, sample_index: int, critique: tuple[int, ...]) -> Sequence:
        """A question with its critique, closed by the end of turn, where the reward is read."""
        ids = (*question.prompt.prompt_ids, *question.asked, *critique)
        return Sequence(
            uid=question.prompt.uid,
            sample_index=sample_index,
            input_ids=np.asarray(ids, dtype=np.int64),
            prompt_len=len(question.prompt.prompt_ids),
            media=question.prompt.media,
        )

    def behind_response(self, messages: Seq[dict[str, Any]]) -> Rendered:
        """What stands between a response to these turns and its critique.

        Raises:
            ValueError: the chat template cannot go on behind a response, or changes what came before it.
        """
        turns = [
            *messages,
            {"role": "assistant", "content": [{"type": "text", "text": _RESPONSE}]},
            {"role": "user", "content": [{"type": "text", "text": self.request}]},
        ]
        asked = self._encoder.rendered(messages)
        try:
            whole = self._encoder.rendered(turns)
        except TemplateRefusal as error:
            raise ValueError(f"{_REFUSAL}: {error.__cause__ or error}") from error
        # The last one: a prompt may hold the same characters.
        before, found, behind = whole.text.rpartition(_RESPONSE)
        if not found or whole.masks.lifted(before).rstrip() != asked.masks.lifted(asked.text).rstrip():
            raise ValueError(_REFUSAL)
        return Rendered(behind, whole.masks)
