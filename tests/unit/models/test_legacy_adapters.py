"""Checkpoints whose code comes with them: their parameters have a place and their prompts a form."""

from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from workers.models.adapters import ADAPTERS

_QWEN_VL = {
    "language": (
        "transformer.wte.weight",
        "transformer.h.0.ln_1.weight",
        "transformer.h.0.attn.c_attn.bias",
        "transformer.h.31.attn.c_proj.weight",
        "transformer.h.31.mlp.w1.weight",
        "transformer.ln_f.weight",
        "lm_head.weight",
    ),
    "vision": (
        "transformer.visual.positional_embedding",
        "transformer.visual.conv1.weight",
        "transformer.visual.ln_pre.weight",
        "transformer.visual.transformer.resblocks.0.attn.in_proj.weight",
        "transformer.visual.transformer.resblocks.47.mlp.c_fc.bias",
        "transformer.visual.ln_post.weight",
        "transformer.visual.proj",
    ),
    "bridge": (
        "transformer.visual.attn_pool.query",
        "transformer.visual.attn_pool.kv_proj.weight",
        "transformer.visual.attn_pool.attn.in_proj_weight",
        "transformer.visual.attn_pool.ln_q.bias",
    ),
}
_XCOMPOSER2 = {
    "language": (
        "model.tok_embeddings.weight",
        "model.layers.0.attention.wqkv.weight",
        "model.layers.31.feed_forward.w2.weight",
        "model.layers.31.ffn_norm.weight",
        "model.norm.weight",
        "output.weight",
    ),
    "vision": (
        "vit.vision_tower.vision_model.embeddings.class_embedding",
        "vit.vision_tower.vision_model.encoder.layers.0.self_attn.k_proj.weight",
    ),
    "bridge": (
        "vision_proj.0.weight",
        "vision_proj.2.bias",
        "model.layers.0.attention.wqkv.Plora_A.weight",
        "model.layers.31.feed_forward.w3.Plora_B.weight",
    ),
}
_MESSAGES = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    {"role": "user", "content": [{"type": "image", "image": "b.png"}, {"type": "text", "text": "And this?"}]},
]
_QWEN_PROMPT = """<|im_start|>system
You are a helpful assistant.<|im_end|>
<|im_start|>user
Picture 1: <img>a.png</img>
What is it?<|im_end|>
<|im_start|>assistant
A cat.<|im_end|>
<|im_start|>user
Picture 2: <img>b.png</img>
And this?<|im_end|>
<|im_start|>assistant
"""
_XCOMPOSER2_PROMPT = """<s>[UNUSED_TOKEN_146]user
<ImageHere>What is it?[UNUSED_TOKEN_145]
[UNUSED_TOKEN_146]assistant
A cat.[UNUSED_TOKEN_145]
[UNUSED_TOKEN_146]user
<ImageHere>And this?[UNUSED_TOKEN_145]
[UNUSED_TOKEN_146]assistant
"""


@pytest.mark.parametrize(("model_type", "names"), [("qwen", _QWEN_VL), ("internlmxcomposer2", _XCOMPOSER2)])
def test_parameters_belong_to_the_part_that_a_freeze_names(model_type: str, names: dict[str, tuple[str, ...]]) -> None:
    adapter = ADAPTERS[model_type]
    found = {name: adapter.module_of(name) for part in names.values() for name in part}
    assert found == {name: part for part, members in names.items() for name in members}
    assert {adapter.checkpoint_name(name) for name in found} == set(found)


@pytest.mark.parametrize(("model_type", "prompt"), [("qwen", _QWEN_PROMPT), ("internlmxcomposer2", _XCOMPOSER2_PROMPT)])
def test_a_conversation_is_written_as_the_model_learned_it(model_type: str, prompt: str) -> None:
    assert _rendered(model_type, _MESSAGES) == prompt


def test_a_system_line_replaces_the_usual_one() -> None:
    messages = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, *_MESSAGES[:1]]
    wanted = _QWEN_PROMPT.split("\nWhat")[0].replace("You are a helpful assistant.", "Be brief.")
    assert _rendered("qwen", messages).startswith(wanted)
    assert _rendered("internlmxcomposer2", messages).startswith(
        "<s>[UNUSED_TOKEN_146]system\nBe brief.[UNUSED_TOKEN_145]\n[UNUSED_TOKEN_146]user\n"
    )


def _rendered(model_type: str, messages: list[Any]) -> str:
    (text,), _ = render_jinja_template(
        conversations=[messages], chat_template=ADAPTERS[model_type].chat_template, add_generation_prompt=True
    )
    return text
