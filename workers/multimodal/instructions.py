"""Prompts as a Q-Former reads them: no turns, and once more in tokens of its own vocabulary."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from workers.multimodal.word_tokenizer import word_tokenizer


def plain_text(messages: Iterable[dict[str, Any]]) -> str:
    """The texts of a conversation, one below the other: these models know an instruction, no roles."""
    return "\n".join(text for text in texts(messages) if text)


def texts(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The texts of a conversation in their order."""
    for message in messages:
        yield from (part["text"] for part in _parts(message["content"]) if part["type"] == "text")


def with_texts(messages: Iterable[dict[str, Any]], change: Callable[[str], str]) -> list[dict[str, Any]]:
    """The conversation with its every text changed."""

    def part(old: dict[str, Any]) -> dict[str, Any]:
        return {**old, "text": change(old["text"])} if old["type"] == "text" else old

    return [
        {**m, "content": change(m["content"]) if isinstance(m["content"], str) else [part(p) for p in m["content"]]}
        for m in messages
    ]


def num_images(messages: Iterable[dict[str, Any]]) -> int:
    """Images of a conversation."""
    return sum(part["type"] == "image" for message in messages for part in _parts(message["content"]))


def qformer_inputs(processor: Any, config: Any, prompts: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """What the Q-Former reads beside each image, cut to its longest: padded, with the mask that hides the padding.

    Args:
        processor: The model's processor, with both tokenizers.
        config: The model's configuration.
        prompts: For each image the ids of the prompt it stands in.
    """
    longest = config.qformer_config.max_position_embeddings
    words = word_tokenizer(processor.qformer_tokenizer)
    read = [
        words.words(
            processor.tokenizer.decode(ids, skip_special_tokens=True), add_special_tokens=True, max_length=longest
        )
        for ids in prompts
    ]
    encoded = processor.qformer_tokenizer.pad(
        {"input_ids": read},
        padding_side="right",  # its positions count from the left
        return_tensors="pt",
    )
    return {f"qformer_{name}": encoded[name] for name in ("input_ids", "attention_mask")}


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
