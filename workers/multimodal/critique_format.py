"""How a critique of a response is asked for: one spelling for who trains a critique reward model and who asks it.

    [prompt + media] [response] [end of turn, the request, header of the next turn] [critique, end of turn]
                                                                                     ▲ written      ▲ reward read

The conversation goes on behind the response, so that all responses of an instruction share its prompt and its images,
for the trainer's packed rows as for the engine's prefix cache. The released code of MM-RLHF puts question and response
into one user turn instead, response last.
"""

from dataclasses import dataclass

import numpy as np

from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import EncodedPrompt, Prompt, Sequence

_RESPONSE = "@@response@@"
"""Stands for the response while the template is rendered."""


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
            ValueError: the chat template cannot go on behind a response.
        """
        tokenizer = self._encoder.tokenizer
        asked = (
            *tokenizer(response, add_special_tokens=False)["input_ids"],
            *tokenizer(self._behind_response(prompt), add_special_tokens=False)["input_ids"],
        )
        return CritiqueQuestion(prompt=self._encoder.encode(prompt), asked=asked)

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

    def _behind_response(self, prompt: Prompt) -> str:
        turns = [
            *prompt.messages,
            {"role": "assistant", "content": [{"type": "text", "text": _RESPONSE}]},
            {"role": "user", "content": [{"type": "text", "text": self.request}]},
        ]
        before, found, behind = self._encoder.render(turns).partition(_RESPONSE)
        if not found or before.rstrip() != self._encoder.render(list(prompt.messages)).rstrip():
            raise ValueError(f"prompt {prompt.uid}: the model's chat template cannot go on behind a response")
        return behind
