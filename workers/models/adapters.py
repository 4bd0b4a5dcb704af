"""One record per architecture: which parameters belong to which module, and what its names are on disk.

Everything else about a model (placeholder counts, positions, attention) is asked of the model's own
processor and forward, so a new architecture is a new record here and a test, not a subclass.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from workers.models.vision_tower import VisionTower

MODULES = ("vision", "bridge", "language")

ImageFacts = Callable[[Any, int, int], dict[str, Any]]
"""What a processor notes of an image of some height and width before it writes the image into a prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAdapter:
    """What the trainer must know about one architecture.

    Patterns are regular expressions matched at the start of the trainer's parameter names.
    """

    model_type: str
    vision: str
    """Parameters of the vision tower."""
    bridge: str
    """Parameters between the tower and the language model (projector, merger)."""
    tower: VisionTower | None = None
    """None where nobody looked: then it runs in every forward, also where it is frozen."""
    token_types: str | None = None
    """The forward's input that tells the tokens of images from those of a text, where it has one."""
    shares_prompts: bool
    """True where responses can share the row of their prompt: the forward takes a mask and positions as they are."""
    checkpoint_names: tuple[tuple[str, str], ...]
    """``(pattern, replacement)`` applied in order to get the released checkpoints' names, which vLLM expects too."""
    experts: Literal["apart", "transposed"] | None = None
    """How the releases hold the experts of a layer, which transformers stacks: each by itself, or the same stacks with
    their last two axes exchanged."""
    image_facts: ImageFacts | None = None
    """Given where the processor writes more than placeholders for an image: its ``replace_image_token`` asks for it."""
    one_row_of_tiles: bool = False
    """True where the tiles of all images are one list, and not one list an image."""
    bounds_pixels: bool = False
    """True where the processor resizes by a number of pixels, and not to tiles of a fixed size."""
    tiles_alone: bool = False
    """True where the processor cuts an image into tiles only if it is the only one of its prompt."""
    qformer: bool = False
    """True where a Q-Former reads the image together with the prompt's text, in tokens of its own vocabulary."""
    text_models: tuple[str, ...] = ()
    """The language models it may have, by ``model_type``; empty: any."""
    vllm: bool = True
    """True where vLLM serves it."""
    vllm_score: str | None = None
    """What vLLM calls the scalar head of a reward model of this family; None where it was not seen to give scores."""
    lora: bool = True
    """True where peft puts adapters on the layers it is told, and on no others."""
    remote_code: bool = False
    """True where transformers has no such model: its code comes with the checkpoint."""
    turn_end: str | None = None
    """The token that ends a turn, where it is not the one with which the tokenizer ends a text."""
    chat_template: str | None = None
    """How a conversation is written, in Jinja, for checkpoints that do not say it themselves."""

    def module_of(self, name: str) -> str:
        """Return which of ``MODULES`` the trainer's parameter ``name`` belongs to."""
        if re.match(self.bridge, name):
            return "bridge"
        if re.match(self.vision, name):
            return "vision"
        return "language"

    def checkpoint_name(self, name: str) -> str:
        """Translate a trainer parameter name into the name used on disk and by the engine."""
        for pattern, replacement in self.checkpoint_names:
            name = re.sub(pattern, replacement, name)
        return name

    def released(self, name: str, tensor: Any) -> Iterator[tuple[str, Any]]:
        """A tensor of the trainer as the released checkpoints hold it: names, with views of ``tensor``."""
        name, stacked = self.checkpoint_name(name), _STACKED.fullmatch(name)
        if self.experts is None or stacked is None:
            yield name, tensor
        elif self.experts == "transposed":
            yield name, tensor.transpose(1, 2)
        else:
            for index, expert in enumerate(tensor):
                parts = stacked["parts"].split("_")[:-1]  # gate and up, or down
                for part, weight in zip(parts, expert.chunk(len(parts)), strict=True):
                    yield f"{stacked['place']}.{index}.{part}_proj.weight", weight


_STACKED = re.compile(r"(?P<place>.*\.experts)\.(?P<parts>gate_up_proj|down_proj)")


def _patches(processor: Any, height: int, width: int) -> dict[str, Any]:
    return {"num_patches": [processor.image_processor.get_number_of_image_patches(height, width, _defaults(processor))]}


def _rows_and_columns(processor: Any, height: int, width: int) -> dict[str, Any]:
    _, rows, columns = processor.image_processor.get_number_of_image_patches(height, width, _defaults(processor))
    return {"rows": [[rows]], "cols": [[columns]]}


def _soft_tokens(processor: Any, height: int, width: int) -> dict[str, Any]:
    counts = processor._get_num_multimodal_tokens(image_sizes=[(height, width)])["num_image_tokens"]
    return {"num_soft_tokens_per_image": counts}


def _defaults(processor: Any) -> dict[str, Any]:
    return getattr(processor.valid_processor_kwargs, "_defaults", {}).get("images_kwargs", {})


_LLAVA_HEAD_NAMES = (
    (r"^model\.multi_modal_projector\.", "multi_modal_projector."),
    (r"^model\.image_newline$", "image_newline"),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)
_QWEN_NAMES = ((r"^model\.visual\.", "visual."), (r"^model\.language_model\.", "model."))
# transformers dropped one level of the CLIP and SigLIP towers' names; vLLM and the released files keep it.
_LLAVA_NAMES = (
    (r"^model\.vision_tower\.(?!vision_model\.)", "vision_tower.vision_model."),
    (r"^model\.vision_tower\.vision_model\.", "vision_tower.vision_model."),
    *_LLAVA_HEAD_NAMES,
)

QWEN2_5_VL = ModelAdapter(
    model_type="qwen2_5_vl",
    vision=r"model\.visual\.(?!merger\.)",
    bridge=r"model\.visual\.merger\.",
    tower=VisionTower("model.visual", ("pooler_output",), ("merger",)),
    token_types="mm_token_type_ids",
    shares_prompts=True,
    checkpoint_names=_QWEN_NAMES,
    bounds_pixels=True,
    vllm_score="language_model.score",
)
QWEN2_VL = replace(QWEN2_5_VL, model_type="qwen2_vl")
# Its releases have the names that transformers uses.
QWEN3_VL = replace(
    QWEN2_5_VL,
    model_type="qwen3_vl",
    vision=r"model\.visual\.(?!merger\.|deepstack_merger_list\.)",
    bridge=r"model\.visual\.(merger|deepstack_merger_list)\.",
    tower=VisionTower("model.visual", ("pooler_output", "deepstack_features"), ("merger", "deepstack_merger_list")),
    checkpoint_names=(),
    vllm_score="score",
)
QWEN3_VL_MOE = replace(QWEN3_VL, model_type="qwen3_vl_moe", experts="transposed")
# A layer of linear attention keeps a state, which a response would have to take over from its prompt. vLLM on a CPU has
# such layers in bfloat16 alone.
QWEN3_5 = replace(
    QWEN2_5_VL, model_type="qwen3_5", checkpoint_names=(), shares_prompts=False, vllm=False, vllm_score=None
)
# Its bound on pixels counts the two frames of which it makes a patch.
GLM4V = replace(QWEN2_5_VL, model_type="glm4v", checkpoint_names=(), bounds_pixels=False, turn_end="<|user|>")
# Asked for adapters on gate and up projections, peft 0.21 takes the experts for those, and forgets where they were.
GLM4V_MOE = replace(GLM4V, model_type="glm4v_moe", experts="apart", lora=False)
LLAVA = ModelAdapter(
    model_type="llava",
    vision=r"model\.vision_tower\.",
    bridge=r"model\.multi_modal_projector\.",
    tower=VisionTower("model.vision_tower", ("hidden_states",)),
    shares_prompts=True,
    checkpoint_names=_LLAVA_NAMES,
    vllm_score="language_model.score",
)
LLAVA_NEXT = replace(LLAVA, model_type="llava_next", bridge=r"model\.(multi_modal_projector\.|image_newline$)")
LLAVA_ONEVISION = replace(LLAVA_NEXT, model_type="llava_onevision", tiles_alone=True)
# It reads the last of the hidden states by the other name.
INTERNVL = replace(
    LLAVA,
    model_type="internvl",
    tower=VisionTower("model.vision_tower", ("last_hidden_state", "hidden_states")),
    checkpoint_names=((r"^model\.vision_tower\.", "vision_tower."), *_LLAVA_HEAD_NAMES),
    image_facts=_patches,
)
IDEFICS3 = ModelAdapter(
    model_type="idefics3",
    vision=r"model\.vision_model\.",
    bridge=r"model\.connector\.",
    tower=VisionTower("model.vision_model"),
    shares_prompts=True,
    checkpoint_names=(),
    image_facts=_rows_and_columns,
    one_row_of_tiles=True,
    vllm_score="score",
    turn_end="<end_of_utterance>",
)
SMOLVLM = replace(IDEFICS3, model_type="smolvlm")
# The tokens of an image see each other, and most layers see a window only. vLLM on a CPU attends causally all the same.
GEMMA3 = replace(
    LLAVA,
    model_type="gemma3",
    tower=VisionTower("model.vision_tower"),
    token_types="token_type_ids",
    shares_prompts=False,
    image_facts=lambda processor, height, width: {"num_crops": [0]},
    vllm=False,
    vllm_score=None,
    turn_end="<end_of_turn>",
)
# Of its kinds the larger ones attend as Gemma 3 does.
GEMMA4 = ModelAdapter(
    model_type="gemma4",
    vision=r"model\.(vision|audio)_tower\.",
    bridge=r"model\.embed_(vision|audio)\.",
    tower=VisionTower("model.vision_tower"),
    token_types="mm_token_type_ids",
    shares_prompts=False,
    checkpoint_names=(),
    image_facts=_soft_tokens,
    vllm=False,
    turn_end="<turn|>",
)
INSTRUCTBLIP = ModelAdapter(
    model_type="instructblip",
    vision=r"vision_model\.",
    bridge=r"(qformer\.|language_projection\.|query_tokens$)",
    tower=VisionTower("vision_model"),
    shares_prompts=True,
    checkpoint_names=(),
    qformer=True,
    text_models=("llama",),
    vllm=False,
)

# Legacy: code that came with the checkpoints, for a transformers of 2023. Never run here; tests know their parameter
# names and their prompts, nothing more.
QWEN_VL = ModelAdapter(
    model_type="qwen",
    vision=r"transformer\.visual\.(?!attn_pool\.)",
    bridge=r"transformer\.visual\.attn_pool\.",
    shares_prompts=False,
    checkpoint_names=(),
    vllm=False,
    remote_code=True,
    # An image is the path of a file, which the model opens; ``image`` holds it.
    chat_template=(
        "{%- set seen = namespace(images=0) -%}"
        "{%- if messages[0].role != 'system' -%}<|im_start|>system\nYou are a helpful assistant.<|im_end|>{%- endif -%}"
        "{%- for m in messages -%}{{ '' if loop.first and m.role == 'system' else '\n' }}"
        "{{ '<|im_start|>' ~ m.role ~ '\n' }}"
        "{%- for c in m.content -%}{%- if c.type == 'image' -%}{%- set seen.images = seen.images + 1 -%}"
        "{{ 'Picture ' ~ seen.images ~ ': <img>' ~ c.image ~ '</img>\n' }}"
        "{%- else -%}{{ c.text }}{%- endif -%}{%- endfor -%}<|im_end|>{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '\n<|im_start|>assistant\n' }}{%- endif -%}"
    ),
)
INTERNLM_XCOMPOSER2 = ModelAdapter(
    model_type="internlmxcomposer2",
    vision=r"vit\.",
    # Low-rank weights beside every linear of the language model, which only image tokens pass through.
    bridge=r"(vision_proj\.|.*\.Plora_[AB]\.)",
    shares_prompts=False,
    checkpoint_names=(),
    vllm=False,
    remote_code=True,
    chat_template=(
        "<s>{%- for m in messages -%}{{ '[UNUSED_TOKEN_146]' ~ m.role ~ '\n' }}"
        "{%- for c in m.content -%}{{ '<ImageHere>' if c.type == 'image' else c.text }}{%- endfor -%}"
        "{{ '[UNUSED_TOKEN_145]\n' }}{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '[UNUSED_TOKEN_146]assistant\n' }}{%- endif -%}"
    ),
)

_NATIVE = (
    QWEN2_5_VL, QWEN2_VL, QWEN3_VL, QWEN3_VL_MOE, QWEN3_5, LLAVA, LLAVA_NEXT, LLAVA_ONEVISION, INTERNVL, IDEFICS3,
    SMOLVLM, GEMMA3, GEMMA4, GLM4V, GLM4V_MOE, INSTRUCTBLIP,
)  # fmt: skip
_LEGACY = (QWEN_VL, INTERNLM_XCOMPOSER2)
ADAPTERS: dict[str, ModelAdapter] = {a.model_type: a for a in (*_NATIVE, *_LEGACY)}


def adapter_for(model_type: str) -> ModelAdapter:
    """Return the adapter of ``model_type``.

    Raises:
        ValueError: the architecture has no adapter; the message lists those that do.
    """
    if model_type not in ADAPTERS:
        raise ValueError(f"model_type {model_type!r} is not supported; supported: {', '.join(sorted(ADAPTERS))}")
    return ADAPTERS[model_type]


def check_freeze(modules: Iterable[str]) -> frozenset[str]:
    """Validate a freeze list against ``MODULES``.

    Raises:
        ValueError: an unknown module name.
    """
    unknown = sorted(set(modules) - set(MODULES))
    if unknown:
        raise ValueError(f"freeze names unknown modules {unknown}; known: {', '.join(MODULES)}")
    return frozenset(modules)
