"""Decoding many completions at once says what decoding each says."""

from pathlib import Path

import numpy as np
import pytest

from orchestrator.tasks.digits_model import build_digits_model
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.mark.parametrize("cleans_up", [False, True])
def test_texts_are_those_of_each_row(tmp_path: Path, *, cleans_up: bool) -> None:
    encoder = PromptEncoder(build_digits_model(tmp_path, seed=0))
    encoder.tokenizer.clean_up_tokenization_spaces = cleans_up
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, len(encoder.tokenizer), length).astype(np.int32) for length in (0, 1, 7, 50)]
    assert encoder.decode_all(rows) == [encoder.decode(row) for row in rows]
    assert encoder.decode_all([]) == []
