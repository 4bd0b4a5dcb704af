"""What a weight sync is proven with: prompts that go where no training went."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from workers.types import EncodedPrompt

PROBE_TOKENS = 3
"""Tokens that an engine samples and the trainer scores."""
_PROBE_TAIL = 8
PROBE_LENGTH = _PROBE_TAIL + PROBE_TOKENS
"""Tokens by which a probe is longer than its prompt."""


def off_course(prompt: EncodedPrompt, media_ids: Sequence[int], policy_version: int) -> EncodedPrompt:
    """The prompt followed by words of its own in an order that nobody has learnt to go on from.

    Where a model is certain of what it says, any weights that say the same have the same log-probs.
    """
    words = [i for i in prompt.engine_prompt_ids if i not in media_ids]
    tail = tuple(np.random.Generator(np.random.Philox(policy_version)).choice(words, _PROBE_TAIL).tolist())
    return replace(prompt, engine_prompt_ids=prompt.engine_prompt_ids + tail, prompt_ids=prompt.prompt_ids + tail)
