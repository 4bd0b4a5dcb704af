"""Folders with the configuration of released models and nothing else: their shapes as published."""

from pathlib import Path
from typing import Any

from transformers import Qwen2_5_VLConfig

_TEXT: dict[str, dict[str, Any]] = {
    "7B": {
        "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
        "intermediate_size": 18944, "vocab_size": 152_064, "tie_word_embeddings": False,
    },
    "3B": {
        "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
        "intermediate_size": 11008, "vocab_size": 151_936, "tie_word_embeddings": True,
    },
}  # fmt: skip
_VISION = {
    "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14,
    "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
}  # fmt: skip


def write_qwen2_5_vl_config(folder: Path, size: str = "7B") -> Path:
    """Of Qwen2.5-VL in a released size."""
    text = _TEXT[size]
    vision = {**_VISION, "out_hidden_size": text["hidden_size"]}
    tied = text["tie_word_embeddings"]
    Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=tied).save_pretrained(folder)
    return folder


def write_cluster(file: Path, *, gpu: str | None = "H100", nodes: int = 1, gpus: int = 8) -> Path:
    """A description of machines alike."""
    told = [f'gpu = "{gpu}"\n'] if gpu else []
    rows = [f'[[nodes]]\nname = "{i}"\ncpus = 64\ngpus = {gpus}\ngpu_memory_gib = 80\n' for i in range(nodes)]
    file.write_text("".join([*told, *rows]))
    return file
