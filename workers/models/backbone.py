"""Everything of a vision-language model but its head, whatever the architecture calls it; and its sampling."""

from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from workers.models.adapters import adapter_for


def hidden_states(model: Any, mm_inputs: dict[str, Tensor], **text_inputs: Any) -> Tensor:
    """The states ``[B, T, D]`` from which the model's output embeddings make logits.

    Args:
        model: An image-text-to-text model of transformers.
        mm_inputs: Images as the model's forward takes them; empty where there are none.
        text_inputs: Ids, mask and positions.
    """
    if not adapter_for(model.config.model_type).qformer:
        return model.model(use_cache=False, **text_inputs, **mm_inputs).last_hidden_state
    # It has no body without a head. The parts are not called one by one: a sharding engine gathers parameters, here
    # the query tokens, when the forward of the module that owns them begins.
    options = {"use_cache": False, "output_hidden_states": True, "logits_to_keep": 1}
    if not mm_inputs:
        return model.language_model(**text_inputs, **options).hidden_states[-1]
    return model(**text_inputs, **mm_inputs, **options).language_model_outputs.hidden_states[-1]


def forget_generation_settings(model: Any) -> None:
    """Leave nothing of what the model's folder says about sampling: ``generate`` would take what it is not told."""
    vars(model).pop("generate", None)  # code of the folder, where that may run, in the place of transformers' own
    for module in model.modules():
        if isinstance(getattr(module, "generation_config", None), GenerationConfig):
            module.generation_config = GenerationConfig()


def generate(model: Any, mm_inputs: dict[str, Tensor], **options: Any) -> Any:
    """transformers' ``generate``, for prompts with and without images."""
    if adapter_for(model.config.model_type).qformer and not mm_inputs:
        return model.language_model.generate(**options)
    return model.generate(**mm_inputs, **options)
