"""Prompts as a Q-Former reads them: no turns, and once more in tokens of its own vocabulary."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def plain_text(messages: Iterable[dict[str, Any]]) -> str:
    """The texts of a conversation, one below the other: these models know an instruction, no roles."""
    return "\n".join(
        part["text"]
        for message in messages
        for part in _parts(message["content"])
        if part["type"] == "text" and part["text"]
    )


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
    encoded = processor.qformer_tokenizer(
        [processor.tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts],
        padding=True,
        padding_side="right",  # its positions count from the left
        truncation=True,
        max_length=config.qformer_config.max_position_embeddings,
        return_tensors="pt",
    )
    return {f"qformer_{name}": encoded[name] for name in ("input_ids", "attention_mask")}


def _parts(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content
