"""Processed images do not pile up: what a step has not used is gone when it ends."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from algorithms.records import MediaRef, Sequence
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_model import build_digits_model
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Sequence]]:
    root = tmp_path_factory.mktemp("digits")
    data, model = build_digits_data(root / "data", seed=0), build_digits_model(root / "model", seed=0)
    placeholder = PromptEncoder(model).image_token_id
    files = sorted((data.train.parent / "images").glob("*.png"))[:3]
    media = [
        MediaRef(sha256=hashlib.sha256(file.read_bytes()).hexdigest(), path=str(file), width=56, height=56)
        for file in files
    ]
    ids = np.array([placeholder] * 4 + [8])
    return model, [Sequence(uid=m.sha256, sample_index=0, input_ids=ids, prompt_len=4, media=(m,)) for m in media]


def test_what_a_step_did_not_use_is_forgotten_and_what_it_used_is_processed_once(
    sequences: tuple[Path, list[Sequence]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (first, second, third) = sequences
    collate = Collator(model, dtype=torch.float32, share_prompts=False)
    processed: list[object] = []
    process = collate._process
    monkeypatch.setattr(collate, "_process", lambda image, **how: processed.append(image) or process(image, **how))
    collate([first, second])
    collate([first, second])
    assert len(processed) == 2
    collate.forget_untouched()
    collate([second, third])
    collate.forget_untouched()
    assert len(collate._cache) == 2
    one_image = 16 * 1176 * 4 + 3 * 8  # patches of float32, and the grid in int64
    assert collate._cache.num_bytes == 2 * one_image
    collate([second])
    assert len(processed) == 3
