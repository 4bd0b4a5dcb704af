"""Text and image sizes to token ids, in both spellings, without touching a pixel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoConfig

from workers.models.adapters import adapter_for
from workers.multimodal.fitting import Fitting
from workers.multimodal.instructions import num_images, plain_text
from workers.multimodal.placeholders import expand_placeholders
from workers.multimodal.processor import load_processor
from workers.types import EncodedPrompt, Prompt

_VISION_TOKEN_FIELDS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


class PromptEncoder:
    """Turns prompts into ids with the model's own chat template, tokenizer and placeholder arithmetic."""

    def __init__(
        self, model_path: str | Path, *, max_pixels: int | None = None, trust_remote_code: bool = False
    ) -> None:
        """
        Args:
            max_pixels: see ``load_processor``.
        """
        self.processor = load_processor(model_path, max_pixels=max_pixels, trust_remote_code=trust_remote_code)
        self.config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self.tokenizer = self.processor.tokenizer
        self.image_token_id: int = self.config.image_token_id
        self._adapter = adapter_for(self.config.model_type)
        self._fitting = Fitting(self.processor, self.config)

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids that stand for media in a prompt; sampling must never produce one."""
        # Attributes, not the dictionary: LLaVA keeps image_token_id under another key there.
        ids = {getattr(self.config, field, None) for field in _VISION_TOKEN_FIELDS}
        if self._adapter.framed_images:
            ids |= {self.processor.start_image_token_id, self.processor.end_image_token_id}
        return tuple(sorted(i for i in ids if isinstance(i, int)))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn."""
        return (int(self.tokenizer.eos_token_id),)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Encode one prompt.

        Raises:
            UnfitImageError: the processor cannot take an image of that size.
            ValueError: the template produced another number of placeholders than the prompt has images.
        """
        engine_ids = self._engine_ids(prompt)
        found = engine_ids.count(self.image_token_id)
        if found != len(prompt.media):
            raise ValueError(
                f"prompt {prompt.uid}: {len(prompt.media)} images but {found} image placeholders in its text"
            )
        expansions = self._fitting.expansions([(m.height, m.width) for m in prompt.media])
        return EncodedPrompt(
            uid=prompt.uid,
            engine_prompt_ids=tuple(engine_ids),
            prompt_ids=tuple(expand_placeholders(engine_ids, self.image_token_id, expansions)),
            media=prompt.media,
        )

    def encode_target(self, target: str) -> tuple[int, ...]:
        """Encode a demonstration, closed by the end-of-turn token."""
        return (*self.encode_text(target), *self.eos_token_ids)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode what somebody wrote: characters that spell a special token stay characters.

        Otherwise a response could end its own turn, or hold a placeholder that no image belongs to.
        """
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Decode a completion without its special tokens."""
        return self.tokenizer.decode(np.asarray(ids), skip_special_tokens=True)

    def _engine_ids(self, prompt: Prompt) -> list[int]:
        messages = list(prompt.messages)
        if self._adapter.qformer:
            # What their processor, which takes no template, makes of one: images before the token that begins a text.
            text_ids = self.tokenizer(plain_text(messages))["input_ids"]
            return [self.image_token_id] * num_images(messages) + text_ids
        return self.tokenizer(self.render(messages), add_special_tokens=False)["input_ids"]

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The turns as text, up to where the model is to go on.

        Raises:
            ValueError: the model knows no turns.
        """
        if self._adapter.qformer:
            raise ValueError(f"{self._adapter.model_type} has no chat template: it answers one question and no more")
        template = self._adapter.chat_template if self.processor.chat_template is None else None
        return self.processor.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=False
        )
