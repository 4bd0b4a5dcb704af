"""How long a text may get is what the model's own configuration says, rotary scaling included."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from workers.models.needs import max_positions, told_positions

_LINEAR = {"rope_type": "linear", "factor": 4.0}
_LEGACY = {"type": "dynamic", "factor": 2.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
_MROPE = {"type": "mrope", "mrope_section": [16, 24, 24]}


@pytest.mark.parametrize(
    ("config", "most", "told"),
    [
        # Qwen2.5-VL's released configuration is flat; the language model's part is found all the same.
        ({"model_type": "qwen2_5_vl", "max_position_embeddings": 128000, "rope_scaling": _MROPE}, 128000, "= 128000"),
        ({"model_type": "llava", "text_config": {"model_type": "llama"}}, 2048, "= 2048"),
        (
            {"model_type": "llava_next", "text_config": {"model_type": "mistral", "sliding_window": 64}},
            131072,
            "= 131072",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": _LINEAR},
            },
            16384,
            "= 4096 x 4 of its rope scaling",
        ),
        (
            {
                "model_type": "llava",
                "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": _LEGACY},
            },
            8192,
            "= 4096 x 2 of its rope scaling",
        ),
        # YaRN's longer length stands in max_position_embeddings already.
        (
            {"model_type": "llava_onevision", "text_config": {"model_type": "qwen2", "rope_scaling": _YARN}},
            32768,
            "= 32768",
        ),
    ],
)
def test_positions_are_counted_as_an_engine_counts_them(
    config: dict[str, Any], most: int, told: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    read = AutoConfig.from_pretrained(tmp_path)
    assert max_positions(read) == most
    assert told_positions(read) == f"max_position_embeddings {told}"
