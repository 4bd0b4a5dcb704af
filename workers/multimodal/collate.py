"""Sequences and their images to the padded tensors of one forward.

The image processor runs once per unique image of a step: its outputs are kept by content hash, bounded in bytes.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoProcessor

from workers.models.adapters import ModelAdapter, adapter_for
from workers.multimodal.media import load_image
from workers.multimodal.step_cache import StepCache
from workers.types import MediaRef, Sequence

_FEATURE_CACHE_BYTES = 1 << 30
_BLANK_IMAGE = Image.new("RGB", (56, 56))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What ``PolicyModule.forward`` takes, plus the row lengths to cut its results apart."""

    input_ids: Tensor
    """int64 ``[B, T]``, right-padded."""
    attention_mask: Tensor
    """bool ``[B, T]``, True on real tokens."""
    action_mask: Tensor
    """bool ``[B, T]``, True on tokens the policy sampled."""
    mm_inputs: dict[str, Tensor]
    lengths: tuple[int, ...]


class Collator:
    """Builds batches for one model; owns the cache of image features."""

    def __init__(self, model_path: str | Path, *, dtype: torch.dtype, trust_remote_code: bool = False) -> None:
        processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self._image_processor = processor.image_processor
        self._image_token_id: int = config.image_token_id
        self._adapter: ModelAdapter = adapter_for(config.model_type)
        self._dtype = dtype
        self._cache = StepCache[dict[str, Tensor]](_FEATURE_CACHE_BYTES, num_bytes=_num_bytes)
        self._blank = self._process(_BLANK_IMAGE)

    @property
    def blank_mm_inputs(self) -> dict[str, Tensor]:
        """Model inputs of one blank image, for the vision keepalive of text-only batches."""
        return self._blank

    def __call__(self, sequences: Seq[Sequence]) -> Batch:
        """Pad sequences on the right and put their images' features side by side, in row order.

        Raises:
            ValueError: a sequence has media without placeholders, placeholders without media, or sampled one.
        """
        for sequence in sequences:
            self._check_placeholders(sequence)
        rows, width = len(sequences), max(len(s.input_ids) for s in sequences)
        input_ids = torch.zeros(rows, width, dtype=torch.long)
        attention_mask = torch.zeros(rows, width, dtype=torch.bool)
        action_mask = torch.zeros(rows, width, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            length = len(sequence.input_ids)
            input_ids[row, :length] = torch.from_numpy(np.array(sequence.input_ids))
            attention_mask[row, :length] = True
            action_mask[row, sequence.prompt_len : length] = True
        return Batch(
            input_ids=input_ids,
            attention_mask=attention_mask,
            action_mask=action_mask,
            mm_inputs=self._mm_inputs(sequences, input_ids),
            lengths=tuple(len(s.input_ids) for s in sequences),
        )

    def _check_placeholders(self, sequence: Sequence) -> None:
        # The model itself compares totals over the batch; only here can a missing image be told from a spare one.
        is_placeholder = np.asarray(sequence.input_ids) == self._image_token_id
        in_prompt = int(is_placeholder[: sequence.prompt_len].sum())
        sampled = int(is_placeholder[sequence.prompt_len :].sum())
        if sampled or bool(in_prompt) != bool(sequence.media):
            raise ValueError(
                f"sequence {sequence.uid}/{sequence.sample_index}: {len(sequence.media)} images, "
                f"{in_prompt} placeholder tokens in its prompt and {sampled} in its completion"
            )

    def _mm_inputs(self, sequences: Seq[Sequence], input_ids: Tensor) -> dict[str, Tensor]:
        features = [self._features(ref) for s in sequences for ref in s.media]
        if not features:
            return {}
        merged = {key: torch.cat([f[key] for f in features], dim=0) for key in features[0]}
        if self._adapter.needs_token_types:
            merged["mm_token_type_ids"] = (input_ids == self._image_token_id).int()
        return merged

    def forget_untouched(self) -> None:
        """Drop the images that no batch has used since the last call."""
        self._cache.forget_untouched()

    def _features(self, ref: MediaRef) -> dict[str, Tensor]:
        return self._cache.get(ref.sha256, lambda: self._process(load_image(ref)))

    def _process(self, image: Image.Image) -> dict[str, Tensor]:
        out = self._image_processor(images=[image], return_tensors="pt")
        return {key: value.to(self._dtype) if value.is_floating_point() else value for key, value in out.items()}


def _num_bytes(features: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in features.values())
