"""What an image's placeholder in a text becomes: the tokens that a model's forward fills with features."""

from collections.abc import Sequence
from typing import Any

from workers.models.adapters import adapter_for


def image_expansions(processor: Any, config: Any, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The ids that stand for each image of one prompt, without touching a pixel.

    Args:
        processor: The model's processor.
        config: The model's configuration.
        sizes: Height and width of every image of the prompt: some processors treat one alone otherwise than several.
    """
    if not sizes:
        return []
    adapter, token = adapter_for(config.model_type), config.image_token_id
    if adapter.qformer:
        return [[token] * config.num_query_tokens for _ in sizes]
    if adapter.tiles_alone and len(sizes) > 1:
        counts = [_untiled(processor, len(sizes))] * len(sizes)
    else:
        counts = processor._get_num_multimodal_tokens(image_sizes=list(sizes))["num_image_tokens"]
    if not adapter.framed_images:
        return [[token] * count for count in counts]
    start, end = processor.start_image_token_id, processor.end_image_token_id
    return [[start, *[token] * (count - 2), end] for count in counts]


def _untiled(processor: Any, num_images: int) -> int:
    # What _get_num_multimodal_tokens does not know; the call itself does, and asks no size for it.
    return processor.replace_image_token({"batch_num_images": [num_images]}, 0).count(processor.image_token)


def expand_placeholders(ids: Sequence[int], placeholder: int, expansions: Sequence[Sequence[int]]) -> list[int]:
    """Replace the i-th placeholder in ``ids`` by ``expansions[i]``.

    Raises:
        ValueError: the number of placeholders and of expansions differ.
    """
    if list(ids).count(placeholder) != len(expansions):
        raise ValueError(f"{list(ids).count(placeholder)} placeholders but {len(expansions)} images")
    remaining = iter(expansions)
    expanded: list[int] = []
    for token in ids:
        expanded.extend(next(remaining) if token == placeholder else [token])
    return expanded
