"""Text and image sizes to token ids, in both spellings, without touching a pixel."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoProcessor

from workers.types import EncodedPrompt, Prompt

_VISION_TOKEN_FIELDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


class PromptEncoder:
    """Turns prompts into ids with the model's own chat template, tokenizer and placeholder arithmetic."""

    def __init__(self, model_path: str | Path, *, trust_remote_code: bool = False) -> None:
        self.processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self.config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self.tokenizer = self.processor.tokenizer
        self.image_token_id: int = self.config.image_token_id

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids that stand for media in a prompt; sampling must never produce one."""
        # Attributes, not the dictionary: LLaVA keeps image_token_id under another key there.
        ids = {getattr(self.config, field, None) for field in _VISION_TOKEN_FIELDS}
        return tuple(sorted(i for i in ids if isinstance(i, int)))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn."""
        return (int(self.tokenizer.eos_token_id),)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Encode one prompt.

        Raises:
            ValueError: the template produced another number of placeholders than the prompt has images.
        """
        text = self.processor.apply_chat_template(list(prompt.messages), add_generation_prompt=True, tokenize=False)
        engine_ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        found = engine_ids.count(self.image_token_id)
        if found != len(prompt.media):
            raise ValueError(
                f"prompt {prompt.uid}: {len(prompt.media)} images but {found} image placeholders in its text"
            )
        counts = self._placeholder_counts([(m.height, m.width) for m in prompt.media])
        return EncodedPrompt(
            uid=prompt.uid,
            engine_prompt_ids=tuple(engine_ids),
            prompt_ids=tuple(expand_placeholders(engine_ids, self.image_token_id, counts)),
            media=prompt.media,
        )

    def encode_target(self, target: str) -> tuple[int, ...]:
        """Encode a demonstration, closed by the end-of-turn token."""
        return (*self.tokenizer(target, add_special_tokens=False)["input_ids"], *self.eos_token_ids)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Decode a completion without its special tokens."""
        return self.tokenizer.decode(np.asarray(ids), skip_special_tokens=True)

    def _placeholder_counts(self, sizes: list[tuple[int, int]]) -> list[int]:
        if not sizes:
            return []
        return list(self.processor._get_num_multimodal_tokens(image_sizes=sizes)["num_image_tokens"])


def expand_placeholders(ids: Sequence[int], placeholder: int, counts: Sequence[int]) -> list[int]:
    """Replace the i-th placeholder in ``ids`` by ``counts[i]`` copies of itself.

    Raises:
        ValueError: the number of placeholders and of counts differ.
    """
    if list(ids).count(placeholder) != len(counts):
        raise ValueError(f"{list(ids).count(placeholder)} placeholders but {len(counts)} counts")
    remaining = iter(counts)
    expanded: list[int] = []
    for token in ids:
        expanded.extend([token] * next(remaining) if token == placeholder else [token])
    return expanded
