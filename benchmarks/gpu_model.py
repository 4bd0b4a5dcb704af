"""Models of Qwen2.5-VL's shapes with random weights, made on the device: no download, and no file of weights."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

CONTROL_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<|endoftext|>")
_VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "3b": {
        "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "vocab_size": 151936,
    },
    "7b": {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064,
    },
    "small": {
        "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 2048,
    },
}  # fmt: skip


class RandomWeights:
    """Stands where the loader reads weights, and draws the same ones every time."""

    def __init__(self, config: Qwen2_5_VLConfig, device: torch.device) -> None:
        self._config, self._device = config, device

    def from_pretrained(self, path: Path, *, dtype: torch.dtype, attn_implementation: str, **unused: Any) -> Any:
        """A model in ``dtype`` of weights drawn in bfloat16, and what transformers would say of its file."""
        torch.manual_seed(0)
        with self._device:
            model: Any = AutoModelForImageTextToText.from_config(
                self._config, dtype=torch.bfloat16, attn_implementation=attn_implementation
            )
        return model.to(dtype), {"missing_keys": []}


def write_folder(folder: Path, shape: str, *, side: int) -> Qwen2_5_VLConfig:
    """Configuration and processor of a Qwen2.5-VL of this shape, with a tokenizer that knows its control tokens."""
    numbers = {token: number for number, token in enumerate(CONTROL_TOKENS)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(numbers, unk_token=CONTROL_TOKENS[-1])),
        pad_token=CONTROL_TOKENS[-1], eos_token=CONTROL_TOKENS[-1], unk_token=CONTROL_TOKENS[-1],
        additional_special_tokens=list(CONTROL_TOKENS[:-1]),
    )  # fmt: skip
    size = {"shortest_edge": 56 * 56, "longest_edge": max(side * side, 56 * 56)}
    Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template="",
    ).save_pretrained(folder)
    text = SHAPES[shape]
    head = text["hidden_size"] // text["num_attention_heads"]
    sections = [head // 8, 3 * head // 16, 3 * head // 16]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": sections}
    vision = _VISION if shape != "small" else {"depth": 4, "hidden_size": 128, "intermediate_size": 256, "num_heads": 4}
    ids: dict[str, Any] = {name: numbers[f"<|{token}|>"] for name, token in (
        ("image_token_id", "image_pad"), ("video_token_id", "video_pad"), ("vision_start_token_id", "vision_start"),
        ("vision_end_token_id", "vision_end"),
    )}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text
        | {"rope_parameters": rope, "max_position_embeddings": 32768, "pad_token_id": numbers[CONTROL_TOKENS[-1]]},
        vision_config=vision | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=shape == "3b",
        **ids,
    )
    config.save_pretrained(folder)
    return config
