"""From sequences and their media to the tensors of one forward; an image is processed once a step."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoConfig

from algorithms.records import MediaRef, Sequence
from workers.models.adapters import ModelAdapter, adapter_for
from workers.models.loading import ModelSpec
from workers.multimodal.instructions import qformer_inputs
from workers.multimodal.media import load_image
from workers.multimodal.packing import Segments, pack
from workers.multimodal.processor import image_expansions, load_processor
from workers.multimodal.step_cache import StepCache

_FEATURE_CACHE_BYTES = 1 << 30
_TILED_NDIM = 5
"""``[images, tiles, channels, height, width]``."""
_PER_PROMPT = "batch_num_images"
"""The input that says how many images each prompt has."""
_BLANK_IMAGE = Image.new("RGB", (56, 56))
_BLANK_REF = MediaRef(sha256="blank", path="", width=_BLANK_IMAGE.width, height=_BLANK_IMAGE.height)


class ImageRows(NamedTuple):
    """One image among those of a batch."""

    key: str
    """The same for the same pixels, whatever is beside them."""
    rows: int
    """Patches or tiles that it takes of the vision tower's input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What ``PolicyModule.forward`` takes, plus the counts to cut its results apart."""

    input_ids: Tensor
    """int64 ``[B, T]``, right-padded; packed, ``[1, T]``."""
    attention_mask: Tensor
    """bool ``[B, T]``, True on real tokens."""
    segments: Segments | None
    """Where prompts and responses are in a packed row; None where every sequence has a row of its own."""
    predictors: Tensor
    """int64 ``[N]``: for every action token, sequence after sequence, where in ``[B * T]`` the token before it is."""
    targets: Tensor
    """int64 ``[N]``: the action tokens."""
    ends: Tensor
    """int64 ``[S]``: where in ``[B * T]`` the last token of each sequence is."""
    mm_inputs: dict[str, Tensor]
    counts: tuple[int, ...]
    """Action tokens of each sequence, in the order they were given."""
    images: tuple[ImageRows, ...] = ()
    """What ``mm_inputs`` is made of, image after image."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {name: value.to(device) for name, value in moved.items() if isinstance(value, Tensor)}
        segments = self.segments.to(device) if self.segments is not None else None
        mm_inputs = {k: v.to(device) for k, v in self.mm_inputs.items()}
        return replace(self, segments=segments, mm_inputs=mm_inputs, **moved)

    def split(self, values: Tensor) -> tuple[Tensor, ...]:
        """Cut ``[N]`` values of action tokens into one piece a sequence."""
        return values.split(self.counts)


class Collator:
    """Builds batches for one model; owns the cache of image features."""

    def __init__(
        self,
        model_path: str | Path,
        *,
        dtype: torch.dtype,
        share_prompts: bool,
        always_an_image: bool = False,
        max_pixels: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """
        Args:
            share_prompts: Pack, with the prompt of several sequences once.
            always_an_image: Give a batch without one a blank image, in a prompt that nobody responds to; then there
                may be a batch of no sequences.
            max_pixels: see ``load_processor``.
        """
        processor = load_processor(model_path, max_pixels=max_pixels, trust_remote_code=trust_remote_code)
        config = AutoConfig.from_pretrained(model_path, trust_remote_code=trust_remote_code)
        self._processor, self._config = processor, config
        # What the processor asks for beyond its image processor's own configuration, such as cutting into patches.
        self._image_options = getattr(processor.valid_processor_kwargs, "_defaults", {}).get("images_kwargs", {})
        self._image_token_id: int = config.image_token_id
        self._adapter: ModelAdapter = adapter_for(config.model_type)
        self._dtype, self._share_prompts, self._max_pixels = dtype, share_prompts, max_pixels
        self._cache = StepCache[dict[str, Tensor]](_FEATURE_CACHE_BYTES, num_bytes=_num_bytes)
        self._blank = self._process(_BLANK_IMAGE, tiled=True)
        (blank_tokens,) = image_expansions(processor, config, [_BLANK_IMAGE.size])
        ids = np.append(blank_tokens, 0)
        self._unanswered = (
            Sequence(uid="blank", sample_index=0, input_ids=ids, prompt_len=len(ids), media=(_BLANK_REF,))
            if always_an_image
            else None
        )

    @classmethod
    def of(cls, spec: ModelSpec, *, share_prompts: bool | None = None, always_an_image: bool = False) -> Self:
        """The one for a role's model; with ``share_prompts`` other than the model's own where it is given."""
        return cls(
            spec.path,
            dtype=spec.torch_dtype,
            share_prompts=spec.share_prompts if share_prompts is None else share_prompts,
            always_an_image=always_an_image,
            max_pixels=spec.max_pixels,
            trust_remote_code=spec.trust_remote_code,
        )

    def __call__(self, sequences: Seq[Sequence]) -> Batch:
        """Lay sequences out and put the images' features side by side, in the same order.

        Raises:
            ValueError: a sequence has media without placeholders, placeholders without media, or sampled one.
        """
        for sequence in sequences:
            self._check_placeholders(sequence)
        if self._unanswered is not None and not any(s.media for s in sequences):
            sequences = [*sequences, self._unanswered]
        build = self._packed if self._share_prompts else self._padded
        return build(sequences)

    def _packed(self, sequences: Seq[Sequence]) -> Batch:
        packed = pack(sequences)
        input_ids = torch.from_numpy(packed.input_ids).long()[None]
        return Batch(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids, dtype=torch.bool),
            segments=packed.segments,
            predictors=torch.from_numpy(np.concatenate(packed.predictors)),
            **self._media([sequences[i] for i in packed.owners], input_ids),
            **_actions(sequences, packed.ends),
        )

    def _padded(self, sequences: Seq[Sequence]) -> Batch:
        width = max(len(s.input_ids) for s in sequences)
        input_ids = torch.zeros(len(sequences), width, dtype=torch.long)
        attention_mask = torch.zeros_like(input_ids, dtype=torch.bool)
        for row, sequence in enumerate(sequences):
            input_ids[row, : len(sequence.input_ids)] = torch.from_numpy(np.array(sequence.input_ids))
            attention_mask[row, : len(sequence.input_ids)] = True
        at = [row * width + np.arange(s.prompt_len - 1, len(s.input_ids) - 1) for row, s in enumerate(sequences)]
        return Batch(
            input_ids=input_ids,
            attention_mask=attention_mask,
            segments=None,
            predictors=torch.from_numpy(np.concatenate(at)),
            **self._media(sequences, input_ids),
            **_actions(sequences, [row * width + len(s.input_ids) - 1 for row, s in enumerate(sequences)]),
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

    def _media(self, sequences: Seq[Sequence], input_ids: Tensor) -> dict[str, Any]:
        asked = [(ref, not self._adapter.tiles_alone or len(s.media) == 1) for s in sequences for ref in s.media]
        features = [self._features(ref, tiled=tiled) for ref, tiled in asked]
        if not features:
            return {"mm_inputs": {}}
        join = partial(torch.cat, dim=1) if self._adapter.one_row_of_tiles else _joined
        merged = {key: join([f[key] for f in features]) for key in features[0]}
        if self._adapter.tiles_alone:
            merged[_PER_PROMPT] = torch.tensor([len(s.media) for s in sequences if s.media])
        if self._adapter.token_types is not None:
            merged[self._adapter.token_types] = (input_ids == self._image_token_id).int()
        if self._adapter.qformer:
            prompts = [s.input_ids[: s.prompt_len] for s in sequences for _ in s.media]
            merged |= qformer_inputs(self._processor, self._config, prompts)
        images = [
            # Another bound on pixels makes other pixels of a file, for another role that shares what is kept of it.
            ImageRows(f"{_key(ref, tiled=tiled)} {self._max_pixels}", _num_rows(f["pixel_values"]))
            for (ref, tiled), f in zip(asked, features, strict=True)
        ]
        return {"mm_inputs": merged, "images": tuple(images)}

    def forget_untouched(self) -> None:
        """Drop the images that no batch has used since the last call."""
        self._cache.forget_untouched()

    def _features(self, ref: MediaRef, *, tiled: bool) -> dict[str, Tensor]:
        if ref is _BLANK_REF:
            return self._blank
        return self._cache.get(_key(ref, tiled=tiled), lambda: self._process(load_image(ref), tiled=tiled))

    def _process(self, image: Image.Image, *, tiled: bool) -> dict[str, Tensor]:
        processor = self._processor.image_processor
        # Nested as a prompt of several images: what is beside this one is cut off again.
        images = [image] if tiled else [[image, _BLANK_IMAGE]]
        out = processor(images=images, return_tensors="pt", **self._image_options)
        # It also tells its processor how many patches there are, which no forward takes.
        unused = {_PER_PROMPT, *self._processor.unused_input_names}
        taken = {key: out[key] for key in out if key in processor.model_input_names and key not in unused}
        if not tiled:
            taken = {key: value[:1] for key, value in taken.items()}
        return {key: value.to(self._dtype) if value.is_floating_point() else value for key, value in taken.items()}


def as_slots(sequences: Seq[Sequence], values: Seq[Tensor]) -> list[np.ndarray]:
    """Values of action tokens as one float32 ``[T]`` array a sequence, slot t speaking of token t; zero elsewhere."""
    slots = []
    for sequence, piece in zip(sequences, values, strict=True):
        row = np.zeros(len(sequence.input_ids), dtype=np.float32)
        row[sequence.prompt_len :] = piece.float().cpu().numpy()
        slots.append(row)
    return slots


def _actions(sequences: Seq[Sequence], ends: Seq[int]) -> dict[str, Any]:
    asked = [i for i, s in enumerate(sequences) if s.media != (_BLANK_REF,)]
    return {
        "targets": torch.from_numpy(np.concatenate([s.input_ids[s.prompt_len :] for s in sequences])).long(),
        "ends": torch.tensor([ends[i] for i in asked], dtype=torch.long),
        "counts": tuple(len(sequences[i].input_ids) - sequences[i].prompt_len for i in asked),
    }


def _joined(tensors: list[Tensor]) -> Tensor:
    """One image after the other; images of fewer tiles are filled up with zeros, which models cut off by size."""
    if tensors[0].ndim != _TILED_NDIM:
        return torch.cat(tensors, dim=0)
    most = max(t.shape[1] for t in tensors)
    filling = [0] * (2 * (_TILED_NDIM - 2))
    return torch.cat([torch.nn.functional.pad(t, [*filling, 0, most - t.shape[1]]) for t in tensors], dim=0)


def _key(ref: MediaRef, *, tiled: bool) -> str:
    return ref.sha256 if tiled else f"{ref.sha256} beside others"


def _num_rows(pixel_values: Tensor) -> int:
    """Rows of a tower's input that one image takes; tiles may lie one axis further in."""
    return pixel_values.shape[1 if pixel_values.ndim == _TILED_NDIM else 0]


def _num_bytes(features: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in features.values())
