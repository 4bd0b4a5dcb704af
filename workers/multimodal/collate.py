"""Sequences and their images to the tensors of one forward.

    a row            [prompt + media][y_1][y_2]..[y_K]   responses to one prompt share it, if the batch shares prompts
    branch           0 on the prompt, k on y_k, -1 on padding
    offset           index of a token within its branch

The image processor runs once per unique image of a step: its outputs are kept by content hash, bounded in bytes.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

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
    """What ``PolicyModule.forward`` takes, plus the counts to cut its results apart."""

    input_ids: Tensor
    """int64 ``[B, T]``, right-padded."""
    branch: Tensor
    """int64 ``[B, T]``."""
    offset: Tensor
    """int64 ``[B, T]``."""
    predictors: Tensor
    """int64 ``[N]``: for every action token, sequence after sequence, where in ``[B * T]`` the token before it is."""
    targets: Tensor
    """int64 ``[N]``: the action tokens."""
    mm_inputs: dict[str, Tensor]
    counts: tuple[int, ...]
    """Action tokens of each sequence, in the order they were given."""

    @property
    def attention_mask(self) -> Tensor:
        """bool ``[B, T]``, True on real tokens."""
        return self.branch >= 0

    @property
    def shares_prompts(self) -> bool:
        """Some row holds more than one response."""
        return bool((self.branch > 1).any())

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)}
        return replace(self, mm_inputs={k: v.to(device) for k, v in self.mm_inputs.items()}, **moved)

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Cut ``[N]`` values of action tokens into one piece a sequence."""
        return values.split(self.counts)


class Collator:
    """Builds batches for one model; owns the cache of image features."""

    def __init__(
        self, model_path: str | Path, *, dtype: torch.dtype, share_prompts: bool, trust_remote_code: bool = False
    ) -> None:
        """
        Args:
            share_prompts: Put the sequences of one prompt into one row.
        """
        processor = AutoProcessor.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self._image_processor = processor.image_processor
        self._image_token_id: int = config.image_token_id
        self._adapter: ModelAdapter = adapter_for(config.model_type)
        self._dtype, self._share_prompts = dtype, share_prompts
        self._cache = StepCache[dict[str, Tensor]](_FEATURE_CACHE_BYTES, num_bytes=_num_bytes)
        self._blank = self._process(_BLANK_IMAGE)

    @property
    def blank_mm_inputs(self) -> dict[str, Tensor]:
        """Model inputs of one blank image, for the vision keepalive of text-only batches."""
        return self._blank

    def __call__(self, sequences: Seq[Sequence]) -> Batch:
        """Lay sequences out in rows and put the images' features side by side, in row order.

        Raises:
            ValueError: a sequence has media without placeholders, placeholders without media, or sampled one.
        """
        for sequence in sequences:
            self._check_placeholders(sequence)
        rows = _rows(sequences, share_prompts=self._share_prompts)
        width = max(len(row.input_ids) for row in rows)
        input_ids = _padded([row.input_ids for row in rows], width, 0)
        predictors: list[np.ndarray] = [np.empty(0, np.int64)] * len(sequences)
        for number, row in enumerate(rows):
            for member, at in zip(row.members, row.predictors, strict=True):
                predictors[member] = number * width + at
        return Batch(
            input_ids=input_ids,
            branch=_padded([row.branch for row in rows], width, -1),
            offset=_padded([row.offset for row in rows], width, 0),
            predictors=torch.from_numpy(np.concatenate(predictors)),
            targets=torch.from_numpy(np.concatenate([s.input_ids[s.prompt_len :] for s in sequences])),
            mm_inputs=self._mm_inputs([sequences[row.members[0]] for row in rows], input_ids),
            counts=tuple(len(s.input_ids) - s.prompt_len for s in sequences),
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


def as_slots(sequences: Seq[Sequence], values: Seq[Tensor]) -> list[np.ndarray]:
    """Values of action tokens as one float32 ``[T]`` array a sequence, slot t speaking of token t; zero elsewhere."""
    slots = []
    for sequence, piece in zip(sequences, values, strict=True):
        row = np.zeros(len(sequence.input_ids), dtype=np.float32)
        row[sequence.prompt_len :] = piece.float().cpu().numpy()
        slots.append(row)
    return slots


@dataclass(frozen=True, slots=True)
class _Row:
    """One row before padding, and which sequences it holds."""

    members: list[int]
    input_ids: np.ndarray
    branch: np.ndarray
    offset: np.ndarray
    predictors: list[np.ndarray]
    """For each member the positions in the row that predict its action tokens."""


def _rows(sequences: Seq[Sequence], *, share_prompts: bool) -> list[_Row]:
    groups: dict[object, list[int]] = {}
    for index, s in enumerate(sequences):
        key = (s.uid, s.input_ids[: s.prompt_len].tobytes()) if share_prompts else index
        groups.setdefault(key, []).append(index)
    return [_row(members, [sequences[i] for i in members]) for members in groups.values()]


def _row(members: list[int], sequences: list[Sequence]) -> _Row:
    prompt_len = sequences[0].prompt_len
    lengths = [prompt_len, *(len(s.input_ids) - prompt_len for s in sequences)]
    starts = np.cumsum([0, *lengths])
    offset = np.concatenate([np.arange(n) for n in lengths])
    return _Row(
        members=members,
        input_ids=np.concatenate([sequences[0].input_ids[:prompt_len], *(s.input_ids[prompt_len:] for s in sequences)]),
        branch=np.repeat(np.arange(len(lengths)), lengths),
        offset=offset,
        # The first token of a response is predicted by the prompt's last.
        predictors=[
            np.concatenate([[prompt_len - 1], np.arange(start, start + n - 1)])[:n].astype(np.int64)
            for start, n in zip(starts[1:], lengths[1:], strict=False)
        ],
    )


def _padded(rows: Seq[np.ndarray], width: int, value: int) -> Tensor:
    out = torch.full((len(rows), width), value, dtype=torch.long)
    for index, row in enumerate(rows):
        out[index, : len(row)] = torch.from_numpy(np.array(row))
    return out


def _num_bytes(features: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in features.values())
