"""The models of the races against TRL: the digits model's kind, in any size, with its tokenizer and processor."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor, Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessor

from orchestrator.tasks.digits_model import build_digits_model


@dataclass(frozen=True)
class ModelShape:
    """How large the model is and what it sees."""

    side: int
    """Edge of the images, pixels."""
    hidden: int
    layers: int
    vocab: int
    """Tokens that the head can choose from; the tokenizer knows 37, the others are decoded to nothing."""
    init_std: float = 0.02
    """0.02: the next token is nearly uniform, so a sampled answer ends after as many tokens as the vocabulary has."""


def build_race_model(root: Path, shape: ModelShape) -> Path:
    """Write a model of that shape, with random weights, into ``root/model``."""
    small = build_digits_model(root / "small", seed=0)
    processor: Any = AutoProcessor.from_pretrained(small)
    size = {"shortest_edge": shape.side**2, "longest_edge": shape.side**2}
    processor.image_processor = Qwen2VLImageProcessor(size=size)
    processor.save_pretrained(root / "model")
    config: Any = AutoConfig.from_pretrained(small)
    text = config.text_config
    text.hidden_size, text.num_hidden_layers = shape.hidden, shape.layers
    text.intermediate_size, text.num_attention_heads = 3 * shape.hidden, shape.hidden // 32
    text.num_key_value_heads = text.num_attention_heads // 2
    text.layer_types = ["full_attention"] * shape.layers
    text.max_position_embeddings, text.vocab_size = 1024, shape.vocab
    config.vision_config.out_hidden_size = shape.hidden
    for part in (config, text, config.vision_config):
        part.initializer_range = shape.init_std
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    model.save_pretrained(root / "model")
    return root / "model"
