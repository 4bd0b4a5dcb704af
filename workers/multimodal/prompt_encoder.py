"""Text and image sizes to token ids, in both spellings, without touching a pixel."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import TemplateError
from transformers import AutoConfig

from workers.models.adapters import adapter_for
from workers.models.folder import template_by_name
from workers.multimodal.instructions import num_images, plain_text, texts, with_texts
from workers.multimodal.processor import Fitting, expand_placeholders, image_expansions, image_text, load_processor
from workers.multimodal.text_table import TextTable, table_of
from workers.multimodal.word_tokenizer import Masks, WordTokenizer
from workers.types import EncodedPrompt, Prompt, UnusablePrompt

_VISION_TOKEN_FIELDS = (
    "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id",
    "image_start_token_id", "image_end_token_id", "video_start_token_id", "video_end_token_id",
)  # fmt: skip
_LARGE = (4096, 4096)
"""Height and width of an image that needs every token a processor has for the parts of one."""
_TEMPLATE_ERRORS = (
    TemplateError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError,
)  # fmt: skip
"""What the expressions of a template may raise, besides what it raises on purpose."""
_SHOWN_CHARS = 50
_PARTS_AS_CODE = re.compile(r"""\{["']type["']: """)


class TemplateRefusal(ValueError):
    """Why a chat template does not take some turns."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """Turns as text, up to where the model is to go on."""

    text: str
    """What its words spell is masked."""
    masks: Masks


def _check_words(messages: Iterable[dict[str, Any]], rendered: str) -> None:
    """Stop at a template that leaves out what the user or the system says, such as every part but the first.

    Of the assistant's earlier turns templates leave out the reasoning on purpose. White space is theirs.
    """
    written, end = _joined(rendered), 0
    for number, message in enumerate(messages, start=1):
        for text in texts([message] if message["role"] != "assistant" else []):
            words = _joined(text)
            # From where the last ones end: from the beginning each time, thousands of parts would take hours. Only of a
            # turn that the template moves, such as the system's, the words are sought from the beginning.
            at = written.find(words, end)
            at = written.find(words) if at < 0 else at
            if at < 0:
                start = " ".join(text.split())[:_SHOWN_CHARS]
                raise TemplateRefusal(f"the chat template leaves out words of turn {number}, {start!r}")
            end = at + len(words)


def _joined(text: str) -> str:
    return "".join(text.split())


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
        self._adapter = adapter_for(self.config.model_type)
        spells = self._adapter.image_facts is not None
        self.image_token_id: int = (self.processor if spells else self.config).image_token_id
        """Stands for an image in the ids that an engine is given."""
        self._words = WordTokenizer(self.tokenizer, self.vision_token_ids)
        self._fitting = Fitting(self.processor, self.config)

    @cached_property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids that stand for media in a prompt; sampling must never produce one."""
        # Attributes, not the dictionary: LLaVA keeps image_token_id under another key there.
        ids = {getattr(self.config, field, None) for field in _VISION_TOKEN_FIELDS}
        if self._adapter.image_facts is not None:
            (of_large,) = image_expansions(self.processor, self.config, [_LARGE])
            added = self.tokenizer.added_tokens_decoder
            ids |= {self.image_token_id, *(i for i in of_large if i in added and added[i].special)}
        return tuple(sorted(i for i in ids if isinstance(i, int)))

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn."""
        return (int(self.tokenizer.get_added_vocab().get(self._adapter.turn_end, self.tokenizer.eos_token_id)),)

    @property
    def pad_token_id(self) -> int:
        """What fills a row up; the end of a turn where the tokenizer has nothing for it."""
        own = self.tokenizer.pad_token_id
        return self.eos_token_ids[0] if own is None else int(own)

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """Encode one prompt.

        Raises:
            UnusablePrompt: the chat template does not take its turns, or wrote another number of placeholders than it
                has images.
            UnfitImageError: the processor cannot take an image of that size.
        """
        try:
            rendered = None if self._adapter.qformer else self.rendered(prompt.messages)
            engine_ids = self._instruction_ids(prompt.messages) if rendered is None else self.ids(rendered)
        except ValueError as error:
            raise UnusablePrompt(prompt.uid, str(error)) from error
        found = engine_ids.count(self.image_token_id)
        if found != len(prompt.media):
            reason = f"the chat template gives its {len(prompt.media)} images {found} placeholders"
            raise UnusablePrompt(prompt.uid, reason)
        sizes = [(m.height, m.width) for m in prompt.media]
        if rendered is not None and self._adapter.image_facts is not None:
            prompt_ids = self.ids(self._with_images(rendered, sizes))
        else:
            prompt_ids = expand_placeholders(engine_ids, self.image_token_id, self._fitting.expansions(sizes))
        return EncodedPrompt(
            uid=prompt.uid,
            engine_prompt_ids=tuple(engine_ids),
            prompt_ids=tuple(prompt_ids),
            media=prompt.media,
        )

    def encode_target(self, target: str) -> tuple[int, ...]:
        """Encode a demonstration, closed by the end-of-turn token."""
        return (*self.encode_text(target), *self.eos_token_ids)

    def encode_text(self, text: str) -> tuple[int, ...]:
        """Encode what somebody wrote: characters that spell a control token stay characters.

        Otherwise a response could end its own turn, or hold a placeholder that no image belongs to.
        """
        return tuple(self._words.words(text))

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Decode a completion without its special tokens."""
        return self.tokenizer.decode(np.asarray(ids), skip_special_tokens=True)

    def decode_all(self, rows: Sequence[np.ndarray]) -> list[str]:
        """The same of many; while it lasts, other threads go on."""
        if self.tokenizer.clean_up_tokenization_spaces or not self.tokenizer.is_fast:
            return [self.decode(row) for row in rows]
        if self._table is not None:
            return self._table.texts(rows)
        return self.tokenizer.backend_tokenizer.decode_batch([row.tolist() for row in rows], skip_special_tokens=True)

    @cached_property
    def _table(self) -> TextTable | None:
        return table_of(self.tokenizer.backend_tokenizer)

    def rendered(self, messages: Iterable[dict[str, Any]]) -> Rendered:
        """The turns as text, in which what their words spell is masked.

        Raises:
            ValueError: the model knows no turns, or its chat template does not take these or leaves out some words.
        """
        turns = list(messages)
        masks = self._words.masks(texts(turns))
        masked = with_texts(turns, lambda text: self._words.masked(text, masks)) if masks.openings else turns
        rendered = Rendered(self.render(masked), masks)
        _check_words(turns, masks.lifted(rendered.text))
        return rendered

    def ids(self, rendered: Rendered) -> list[int]:
        """What the model's processor makes of turns, one placeholder an image."""
        # As transformers decides it: what the tokenizer adds to a text is added unless the template has written it.
        bos = self.tokenizer.bos_token
        begun = bos is not None and rendered.text.startswith(bos)
        return self._words.ids(rendered.text, rendered.masks, add_special_tokens=not begun)

    def ids_behind(self, rendered: Rendered) -> list[int]:
        """The same for the end of some turns: nothing is added to it."""
        return self._words.ids(rendered.text, rendered.masks)

    def render(self, messages: list[dict[str, Any]]) -> str:
        """The turns as text, up to where the model is to go on.

        Raises:
            ValueError: the model knows no turns, or its chat template does not take these.
        """
        template = self._chat_template()
        try:
            text = self.processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=True, tokenize=False
            )
        except _TEMPLATE_ERRORS as error:
            raise TemplateRefusal(f"the chat template does not take its turns: {error}") from error
        if _PARTS_AS_CODE.search(text) and not any(map(_PARTS_AS_CODE.search, texts(messages))):
            raise TemplateRefusal("the chat template knows texts alone: it writes the parts of a turn as code")
        return text

    def _instruction_ids(self, messages: Sequence[dict[str, Any]]) -> list[int]:
        # What a processor that takes no template makes of one: images before the token that begins a text.
        text_ids = self._words.words(plain_text(messages), add_special_tokens=True)
        return [self.image_token_id] * num_images(messages) + text_ids

    def _with_images(self, rendered: Rendered, sizes: Sequence[tuple[int, int]]) -> Rendered:
        """The turns with what the processor writes for each image, which may join the words beside it."""
        self._fitting.check(sizes)
        spelled = [image_text(self.processor, self.config, size) for size in sizes]
        before, *behind = rendered.text.split(self.processor.image_token)
        whole = before + "".join(map("".join, zip(spelled, behind, strict=True)))
        return Rendered(whole, rendered.masks)

    def _chat_template(self) -> str:
        """The processor's before the tokenizer's, and of several that have names, the default one."""
        if self._adapter.qformer:
            raise ValueError(f"{self._adapter.model_type} has no chat template: it answers one question and no more")
        known = (self.processor.chat_template, self.tokenizer.chat_template, self._adapter.chat_template)
        template = template_by_name(next((t for t in known if t), None))
        if template is None:
            raise ValueError("the model has no chat template")
        return template
