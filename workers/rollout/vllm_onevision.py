"""LLaVA-OneVision in vLLM as its own processor prepares it: of several images in a prompt, none is cut into tiles.

vLLM 0.32 hands over a flat list, which that processor takes for prompts of one image each, and counts accordingly.
Its model needs no change: it takes an image of a single tile as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers import BatchFeature
from vllm.model_executor.models.llava_onevision import (
    LlavaOnevisionDummyInputsBuilder,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionMultiModalProcessor,
    LlavaOnevisionProcessingInfo,
)
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import PromptReplacement, PromptUpdate

_SEVERAL = "raylign_several_images"
"""Option of one request; being one, it also tells an image alone from the same beside others in vLLM's caches."""


class UntiledProcessor(LlavaOnevisionMultiModalProcessor):
    """vLLM's processor, with the rule for several images."""

    def _cached_apply_hf_processor(self, inputs: Any, timing_ctx: Any) -> Any:
        # Here the whole prompt is seen; further down only the images that no cache holds.
        if inputs.mm_data_items.get_all_counts().get("image", 0) > 1:
            inputs = replace(inputs, hf_processor_mm_kwargs={**inputs.hf_processor_mm_kwargs, _SEVERAL: True})
        return super()._cached_apply_hf_processor(inputs, timing_ctx)

    def _apply_hf_processor_main(self, mm_items: Any, hf_kwargs: Mapping[str, object]) -> BatchFeature:
        options = {key: value for key, value in hf_kwargs.items() if key != _SEVERAL}
        if _SEVERAL not in hf_kwargs or not mm_items.get_all_counts().get("image", 0):
            return super()._apply_hf_processor_main(mm_items, options)
        hf_data, options, passthrough = self._get_hf_mm_inputs(mm_items, options)
        images: Any = hf_data["images"]
        # One more, of any picture, makes several of one; both are of one size afterwards.
        nested = {"images": [[*images, images[0]]], "text": f"{hf_data['text']}{self._image_token}"}
        processed = self.info.ctx.call_hf_processor(self.info.get_hf_processor(**options), nested, options)
        kept = {key: processed[key][: len(images)] for key in ("pixel_values", "image_sizes")}
        return self._finalize_hf_mm_data(hf_data, options, passthrough, BatchFeature(kept))

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, object], out_mm_kwargs: Any
    ) -> Sequence[PromptUpdate]:
        updates = super()._get_prompt_updates(mm_items, hf_processor_mm_kwargs, out_mm_kwargs)
        if _SEVERAL not in hf_processor_mm_kwargs:
            return updates
        token = self.info.get_hf_config().image_token_index  # type: ignore[attr-defined]
        processor = self.info.get_hf_processor()
        count = processor.replace_image_token({"batch_num_images": [2]}, 0).count(processor.image_token)
        others = [update for update in updates if update.modality != "image"]
        return [PromptReplacement(modality="image", target=[token], replacement=[token] * count), *others]

    @property
    def _image_token(self) -> str:
        return self.info.get_hf_processor().image_token


def register() -> None:
    """Let vLLM use it in this process, where prompts are prepared."""
    if getattr(LlavaOnevisionForConditionalGeneration, "_processor_factory").processor is UntiledProcessor:  # noqa: B009
        return
    del LlavaOnevisionForConditionalGeneration._processor_factory  # replaced knowingly: no warning is needed
    MULTIMODAL_REGISTRY.register_processor(
        UntiledProcessor, info=LlavaOnevisionProcessingInfo, dummy_inputs=LlavaOnevisionDummyInputsBuilder
    )(LlavaOnevisionForConditionalGeneration)
