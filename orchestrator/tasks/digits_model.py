"""A Qwen2.5-VL small enough to learn digits on a laptop, from random weights, with its own tokenizer and processor."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from orchestrator.run.folder import write_atomic
from orchestrator.tasks.digits import QUESTION, SIDE, WORDS

_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_RESPONSE_WORDS = "<think> </think> <answer> </answer> the image shows response 1 2 , . so user assistant"
_TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} "
    "{% if m.content is string %} {{ m.content }} {% else %}"
    "{% for c in m.content %}{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %} {{ c.text }} {% endif %}{% endfor %}{% endif %}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
_HIDDEN, _LAYERS = 128, 4
_HEAD_DIM = 32
"""vLLM has no kernel for narrower heads on a CPU."""
_VISION_WIDTH, _VISION_DEPTH = 64, 2
_INIT_STD = 0.06
"""Weights this wide read digits in 25 steps instead of 60; 0.02 suits models a hundred times wider."""
_VERSION = 3


def build_digits_model(
    folder: Path, *, seed: int, words: str = "", hidden: int = _HIDDEN, layers: int = _LAYERS
) -> Path:
    """Write the model folder with random weights drawn from ``seed``; does nothing when it is already there.

    Args:
        words: What it must be able to read and say beyond the vocabulary of the embedded task.
        hidden, layers: Width, a multiple of 32, and depth of its language model.
    """
    mark = folder / "raylign_digits.json"
    made_of: dict[str, Any] = {"model": "digits", "version": _VERSION, "seed": seed} | (
        {"words": words} if words else {}
    )
    if (hidden, layers) != (_HIDDEN, _LAYERS):
        made_of |= {"hidden": hidden, "layers": layers}
    content = json.dumps(made_of)
    if mark.is_file() and mark.read_text() == content:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(words)
    _processor(tokenizer).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(_config(tokenizer, hidden, layers))
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    pad = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad)
    model.save_pretrained(folder)
    write_atomic(mark, content)
    return folder


def _tokenizer(more: str) -> PreTrainedTokenizerFast:
    """One token a word: the vocabulary is closed, and decoding gives the spaced text back exactly."""
    words = dict.fromkeys((*_SPECIAL, "<unk>", *_RESPONSE_WORDS.split(), *QUESTION.split(), *WORDS, *more.split()))
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        additional_special_tokens=[t for t in _SPECIAL if t not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )


def _processor(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLProcessor:
    size = {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(size=size),
        tokenizer=tokenizer,
        video_processor=Qwen2VLVideoProcessor(size=size),
        chat_template=_TEMPLATE,
    )


def _config(tokenizer: PreTrainedTokenizerFast, hidden: int, layers: int) -> Qwen2_5_VLConfig:
    def token(text: str) -> int:
        return tokenizer.get_vocab()[text]

    head_dim, heads = _HEAD_DIM, hidden // _HEAD_DIM
    return Qwen2_5_VLConfig(
        initializer_range=_INIT_STD,  # type: ignore[call-arg]
        text_config={
            "initializer_range": _INIT_STD,
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 512,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [head_dim // 8, 3 * head_dim // 16, 3 * head_dim // 16],
            },
            "bos_token_id": token("<|im_start|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
        },
        vision_config={
            "initializer_range": _INIT_STD,
            "depth": _VISION_DEPTH,
            "hidden_size": _VISION_WIDTH,
            "intermediate_size": 2 * _VISION_WIDTH,
            "num_heads": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "window_size": 56,
            "out_hidden_size": hidden,
            "fullatt_block_indexes": [_VISION_DEPTH - 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
