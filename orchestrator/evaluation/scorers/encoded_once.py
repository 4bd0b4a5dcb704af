"""Prompts are encoded once, though they are looked at before engines are started and again when they are asked.

What was encoded lies in a file without a name: a benchmark of any length takes no memory.
"""

import tempfile
import weakref

import numpy as np

from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import EncodedPrompt, Prompt


class EncodedOnce:
    """An encoder that remembers prompts by their uid."""

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lasts as long as this
        self._known: dict[str, tuple[int, int, int]] = {}
        weakref.finalize(self, self._file.close)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See ``PromptEncoder``; the media are the prompt's own."""
        if prompt.uid not in self._known:
            encoded = self._encoder.encode(prompt)
            self._keep(encoded)
            return encoded
        start, num_given, num_seen = self._known[prompt.uid]
        self._file.seek(start)
        ids = np.frombuffer(self._file.read(4 * (num_given + num_seen)), np.int32).tolist()
        return EncodedPrompt(
            uid=prompt.uid,
            engine_prompt_ids=tuple(ids[:num_given]),
            prompt_ids=tuple(ids[num_given:]),
            media=prompt.media,
        )

    def _keep(self, encoded: EncodedPrompt) -> None:
        start = self._file.seek(0, 2)
        self._file.write(np.array((*encoded.engine_prompt_ids, *encoded.prompt_ids), np.int32).tobytes())
        self._known[encoded.uid] = start, len(encoded.engine_prompt_ids), len(encoded.prompt_ids)
