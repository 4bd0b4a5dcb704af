"""A checkpoint that says what it is told to, whatever it is asked: real weights, so that every engine can load it.

Its layers add nothing, so that the last state of a token is its embedding alone, and its head leads from each token of
the words to the next. Where several sayings begin with the same token, or with the first, each is as likely.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from tests.tiny_models import write_released_qwen2_5_vl
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_SURE = 30.0
"""Logits by which a token that follows is above all others."""


def write_scripted_model(folder: Path, *sayings: str) -> Path:
    """A Qwen2.5-VL that answers every question with one of the sayings, the first of equal ones without sampling.

    Args:
        sayings: Their tokens differ wherever what follows them does.
    Raises:
        ValueError: a token is followed by one thing here and another there, where only one of them is first.
    """
    write_released_qwen2_5_vl(folder)
    encoder = PromptEncoder(folder)
    asked = Prompt(uid="q", messages=({"role": "user", "content": [{"type": "text", "text": "?"}]},), media=())
    begins, follows = encoder.encode(asked).prompt_ids[-1], dict[int, list[int]]()
    for text in sayings:
        ids = list(encoder.encode_target(text))
        if len(set(ids)) < len(ids) or begins in ids:
            raise ValueError(f"{text!r} has a token twice")
        for token, following in zip([begins, *ids], ids, strict=False):
            known = follows.setdefault(token, [])
            known += [following] * (following not in known)
    config: Any = AutoConfig.from_pretrained(folder)
    config.text_config.tie_word_embeddings = config.tie_word_embeddings = False
    model: Any = AutoModelForImageTextToText.from_pretrained(folder, config=config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "language_model" in name and name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.zero_()
        embeddings, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        head.zero_()
        # One direction for each token of the words, and none of them for any other token.
        tokens = sorted({begins, *follows, *(one for some in follows.values() for one in some)})
        if len(tokens) > embeddings.shape[1]:
            raise ValueError(f"{len(tokens)} different tokens are more than the {embeddings.shape[1]} dimensions")
        for direction, token in enumerate(tokens):
            embeddings[token] = torch.eye(embeddings.shape[1])[direction]
        scale = _SURE / embeddings.shape[1] ** 0.5
        for token, some in follows.items():
            for following in some:
                head[following] += scale * embeddings[token]
    model.save_pretrained(folder)
    return folder
