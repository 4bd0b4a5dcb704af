"""One tiny random checkpoint per architecture, laid out as its releases are: configuration, processor, weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BlipImageProcessor,
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4VideoProcessor,
    Glm4vConfig,
    Glm4vImageProcessor,
    Glm4vMoeConfig,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InstructBlipConfig,
    InstructBlipProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2VLConfig,
    Qwen2VLProcessor,
    Qwen3_5Config,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from orchestrator.tasks.digits_model import build_digits_model
from tests.released_tokenizers import (
    GEMMA3_TEMPLATE,
    GEMMA4_TEMPLATE,
    GLM_TEMPLATE,
    IDEFICS3_TEMPLATE,
    INTERNVL_TEMPLATE,
    LLAVA_NEXT_TEMPLATE,
    LLAVA_ONEVISION_TEMPLATE,
    QWEN3_TEMPLATE,
    QWEN_TEMPLATE,
    gemma_tokenizer,
    glm_tokenizer,
    idefics3_tokenizer,
    llama_tokenizer,
    qwen_tokenizer_like,
    released_qwen_tokenizer,
)
from tests.user_files import write_llava
from workers.models.adapters import adapter_for
from workers.models.loading import released_tensors

_SIDE, _PATCH = 56, 14
_EXPERT = 40
"""Width of an expert, which vLLM pads on a CPU."""
_QFORMER_WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "which", "?", "one", "two")


def write_qwen2_5_vl(folder: Path, tokenizer: Any = None) -> Path:
    """The digits model with a tokenizer and a template like the released ones."""
    base, processor, text, media = _qwen(folder, tokenizer or qwen_tokenizer_like())
    Qwen2_5_VLProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        video_processor=processor.video_processor,
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(folder)
    vision = base.vision_config.to_dict()
    return _write(folder, Qwen2_5_VLConfig(text_config=text, vision_config=vision, **media))


def write_released_qwen2_5_vl(folder: Path) -> Path:
    """The same with the vocabulary of the releases."""
    return write_qwen2_5_vl(folder, released_qwen_tokenizer())


def write_qwen2_vl(folder: Path) -> Path:
    """Like Qwen2.5-VL, with the older vision tower."""
    _, processor, text, media = _qwen(folder, qwen_tokenizer_like())
    Qwen2VLProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        video_processor=processor.video_processor,
        chat_template=QWEN_TEMPLATE,
    ).save_pretrained(folder)
    vision = {"depth": 2, "embed_dim": 64, "hidden_size": text["hidden_size"], "num_heads": 4, "mlp_ratio": 2}
    return _write(folder, Qwen2VLConfig(text_config=text, vision_config=vision, **media))


def write_qwen3_vl(folder: Path) -> Path:
    """Features of several vision layers enter several layers of the language model."""
    _, processor, text, media = _qwen(folder, qwen_tokenizer_like())
    image_processor = processor.image_processor
    image_processor.patch_size = 16
    Qwen3VLProcessor(
        image_processor=image_processor,
        tokenizer=processor.tokenizer,
        video_processor=Qwen3VLVideoProcessor(),
        chat_template=QWEN3_TEMPLATE,
    ).save_pretrained(folder)
    vision = {
        "depth": 3,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_heads": 4,
        "out_hidden_size": text["hidden_size"],
        "deepstack_visual_indexes": [0, 1],
        "num_position_embeddings": 64,
    }
    rope = text["rope_parameters"] | {"mrope_interleaved": True}
    text |= {"rope_parameters": rope, "head_dim": text["hidden_size"] // text["num_attention_heads"]}
    return _write(folder, Qwen3VLConfig(text_config=text, vision_config=vision, **media))


def write_qwen3_vl_moe(folder: Path) -> Path:
    """Qwen3-VL with four experts a layer, laid out as transformers reads and does not write them."""
    config = AutoConfig.from_pretrained(write_qwen3_vl(folder))
    text = {name: value for name, value in config.text_config.to_dict().items() if name != "model_type"}
    # No stack of experts is square: transformers tells its own layout from the releases' by the shape.
    text |= {"hidden_size": 96, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
    text["moe_intermediate_size"] = _EXPERT
    vision = {name: value for name, value in config.vision_config.to_dict().items() if name != "model_type"}
    vision["out_hidden_size"] = 96
    media = {name: getattr(config, name) for name in _QWEN_MEDIA}
    made = Qwen3VLMoeConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **media)
    model = _random(made)
    _routed(model)
    _save(folder, model)
    weights = released_tensors(model, adapter_for("qwen3_vl_moe"))
    save_file({name: tensor.clone().contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def write_qwen3_5(folder: Path) -> Path:
    """Qwen3.5: a layer of gated delta rule and one of attention."""
    config = AutoConfig.from_pretrained(write_qwen3_vl(folder))
    old = config.text_config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    text = {name: getattr(old, name) for name in (*names, "bos_token_id", "eos_token_id", "pad_token_id")}
    text |= {
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "full_attention"],
        "max_position_embeddings": old.max_position_embeddings,
        "head_dim": 64,
        "linear_key_head_dim": 64,
        "linear_value_head_dim": 64,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25,
            "mrope_section": [4, 2, 2], "mrope_interleaved": True,
        },
    }  # fmt: skip
    vision = {
        k: v for k, v in config.vision_config.to_dict().items() if k not in ("model_type", "deepstack_visual_indexes")
    }
    media = {name: getattr(config, name) for name in _QWEN_MEDIA}
    return _write(folder, Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=True, **media))


def write_glm4v(folder: Path) -> Path:
    """GLM-4.1V and GLM-4.6V-Flash."""
    tokenizer = glm_tokenizer()
    _glm_processor(Glm4vProcessor, Glm4vImageProcessor, Glm4vVideoProcessor, tokenizer).save_pretrained(folder)
    return _write(folder, Glm4vConfig(**_glm_config(tokenizer)))


def write_glm4v_moe(folder: Path) -> Path:
    """GLM-4.5V and GLM-4.6V: a dense layer, then one of experts, of which one answers every token."""
    tokenizer = glm_tokenizer()
    _glm_processor(Glm46VProcessor, Glm46VImageProcessor, Glm46VVideoProcessor, tokenizer).save_pretrained(folder)
    settings = _glm_config(tokenizer)
    settings["text_config"] |= {
        "moe_intermediate_size": _EXPERT,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 32,
        "use_qk_norm": False,
    }
    model = _random(Glm4vMoeConfig(**settings))
    _routed(model)
    return _save(folder, model)


def write_gemma3(folder: Path) -> Path:
    """Gemma 3: a layer that sees 16 tokens back and one that sees all."""
    media = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer: Any = gemma_tokenizer(media, "<start_of_turn>", "<end_of_turn>")
    Gemma3Processor(
        image_processor=Gemma3ImageProcessor(size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        image_seq_length=4,
        chat_template=GEMMA3_TEMPLATE,
    ).save_pretrained(folder)
    text = _tower(64) | {
        "num_key_value_heads": 1,
        "head_dim": 32,
        "query_pre_attn_scalar": 32,
        "max_position_embeddings": 2048,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    }
    config = Gemma3Config(
        text_config=text | _ids(tokenizer),
        vision_config={"image_size": _SIDE, "patch_size": _PATCH} | _tower(64),
        mm_tokens_per_image=4,
        boi_token_index=tokenizer.boi_token_id,
        eoi_token_index=tokenizer.eoi_token_id,
        image_token_index=tokenizer.image_token_id,
    )
    model = _random(config)
    bridge = model.model.multi_modal_projector.mm_input_projection_weight
    torch.nn.init.normal_(bridge, std=0.2, generator=torch.Generator().manual_seed(0))
    return _save(folder, model)


def write_gemma4(folder: Path) -> Path:
    """Gemma 4 without ears: tokens that see each other in an image, embeddings of every layer's own, capped logits."""
    ends = {"boi_token": "<|image>", "eoi_token": "<image|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    tokenizer: Any = gemma_tokenizer(
        {**ends, "image_token": "<|image|>", "audio_token": "<|audio|>"}, "<|turn>", "<turn|>", "<|video|>"
    )
    Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(max_soft_tokens=70, patch_size=_PATCH),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(),
        chat_template=GEMMA4_TEMPLATE,
    ).save_pretrained(folder)
    text = _tower(64) | {
        "num_key_value_heads": 1,
        "head_dim": 32,
        "global_head_dim": 64,
        "max_position_embeddings": 2048,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "full_attention"],
        "use_bidirectional_attention": "vision",
        "final_logit_softcapping": 3.0,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": len(tokenizer),
    }
    vision = {"patch_size": _PATCH, "position_embedding_size": 256, "num_key_value_heads": 2, "head_dim": 32}
    vision |= {"default_output_length": 70}
    config = Gemma4Config(
        text_config=text | _ids(tokenizer),
        vision_config=vision | _tower(64),
        boi_token_id=tokenizer.boi_token_id,
        eoi_token_id=tokenizer.eoi_token_id,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video|>"),
        audio_token_id=tokenizer.audio_token_id,
        boa_token_id=tokenizer.boa_token_id,
        eoa_token_index=tokenizer.eoa_token_id,
    )
    return _write(folder, config)


def write_llava_next(folder: Path) -> Path:
    """LLaVA-1.6: an image is its thumbnail and tiles of it."""
    base, processor = _llava(folder)
    grid = [[_SIDE, 2 * _SIDE], [2 * _SIDE, _SIDE], [2 * _SIDE, 2 * _SIDE]]
    LlavaNextProcessor(
        image_processor=LlavaNextImageProcessor(
            size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}, image_grid_pinpoints=grid
        ),
        **{
            **_llava_parts(processor),
            "tokenizer": llama_tokenizer("<image>", legacy=True),
            "chat_template": LLAVA_NEXT_TEMPLATE,
        },
    ).save_pretrained(folder)
    config = LlavaNextConfig(image_grid_pinpoints=grid, **_llava_config(base))
    return _write(folder, config)


def write_llava_onevision(folder: Path) -> Path:
    """LLaVA-OneVision: SigLIP, Qwen2, tiles without a class token."""
    base, processor = _llava(folder)
    # vLLM starts with a video, which nobody sends.
    tokenizer = qwen_tokenizer_like("<image>", "<video>")
    grid = [[_SIDE, 2 * _SIDE], [2 * _SIDE, _SIDE], [2 * _SIDE, 2 * _SIDE]]
    parts: dict[str, Any] = _llava_parts(processor) | {
        "tokenizer": tokenizer,
        "chat_template": LLAVA_ONEVISION_TEMPLATE,
        "num_image_tokens": (_SIDE // _PATCH) ** 2,
        "vision_feature_select_strategy": "full",
    }
    del parts["patch_size"], parts["num_additional_image_tokens"]
    LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessor(size={"height": _SIDE, "width": _SIDE}, image_grid_pinpoints=grid),
        video_processor=LlavaOnevisionVideoProcessor(),
        **parts,
    ).save_pretrained(folder)
    settings = _llava_config(base)
    settings["vision_config"] = settings["vision_config"] | {"model_type": "siglip_vision_model"}
    settings |= {"vision_feature_layer": -1, "vision_feature_select_strategy": "full"}
    settings["text_config"] = settings["text_config"] | {"model_type": "qwen2"} | _ids(tokenizer)
    settings["image_token_index"] = tokenizer.convert_tokens_to_ids("<image>")
    settings["video_token_index"] = tokenizer.convert_tokens_to_ids("<video>")
    return _write(folder, LlavaOnevisionConfig(image_grid_pinpoints=grid, **settings))


def write_internvl(folder: Path) -> Path:
    """InternVL3: an image is cut into patches of 28 pixels and becomes 4 tokens each, between a start and an end."""
    base, _ = _llava(folder)
    names = {
        "context_image_token": "<IMG_CONTEXT>",
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "video_token": "<video>",
    }
    tokenizer = qwen_tokenizer_like(named=names)
    InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": _SIDE // 2, "width": _SIDE // 2}, max_patches=4),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=4,
        chat_template=INTERNVL_TEMPLATE,
    ).save_pretrained(folder)
    vision = {"image_size": [_SIDE // 2] * 2, "patch_size": [_PATCH // 2] * 2} | _tower(64)
    text = base.text_config.to_dict() | {
        "model_type": "qwen2",
        "tie_word_embeddings": True,
        **_ids(tokenizer),
    }
    image_token_id = tokenizer.get_vocab()["<IMG_CONTEXT>"]
    return _write(
        folder,
        InternVLConfig(vision_config=vision, text_config=text, image_token_id=image_token_id, image_seq_length=4),
    )


def write_idefics3(folder: Path) -> Path:
    """Idefics3: tiles row by row, each behind a token for its place, then the whole image."""
    tokenizer = idefics3_tokenizer(bos="<|begin_of_text|>", adds_bos=True)
    Idefics3Processor(
        image_processor=Idefics3ImageProcessor(**_TILED),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template=IDEFICS3_TEMPLATE.replace("BEGIN", "bos_token"),
    ).save_pretrained(folder)
    return _write(folder, Idefics3Config(**_idefics3_config(tokenizer)))


def write_smolvlm(folder: Path) -> Path:
    """SmolVLM: the same with a tokenizer that adds nothing."""
    tokenizer = idefics3_tokenizer(bos="<|im_start|>", adds_bos=False)
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(**_TILED),
        tokenizer=tokenizer,
        video_processor=SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=IDEFICS3_TEMPLATE.replace("BEGIN", "'<|im_start|>'"),
    ).save_pretrained(folder)
    return _write(folder, SmolVLMConfig(**_idefics3_config(tokenizer)))


def write_instructblip(folder: Path) -> Path:
    """InstructBLIP with a Llama: a Q-Former reads image and prompt, the latter in a vocabulary of its own."""
    base, processor = _llava(folder)
    letters = Tokenizer(WordLevel({word: i for i, word in enumerate(_QFORMER_WORDS)}, unk_token="[UNK]"))
    letters.pre_tokenizer = WhitespaceSplit()  # type: ignore[assignment]
    letters.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    queries = 5
    InstructBlipProcessor(
        image_processor=BlipImageProcessor(size={"height": _SIDE, "width": _SIDE}),
        tokenizer=processor.tokenizer,
        qformer_tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=letters, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
        ),
        num_query_tokens=queries,
    ).save_pretrained(folder)
    vision = {"image_size": _SIDE, "patch_size": _PATCH, "initializer_range": 0.02}
    qformer = {"vocab_size": len(_QFORMER_WORDS), "max_position_embeddings": 8}
    config = InstructBlipConfig(
        vision_config=vision | _tower(64),
        qformer_config=qformer | _tower(32),
        text_config=base.text_config.to_dict(),
        num_query_tokens=queries,
        image_token_index=base.image_token_id,
    )
    model = _random(config)
    torch.nn.init.normal_(model.query_tokens, std=0.5, generator=torch.Generator().manual_seed(0))
    return _save(folder, model)


TINY_MODELS: dict[str, Callable[[Path], Path]] = {
    "qwen2_5_vl": write_qwen2_5_vl,
    "qwen2_vl": write_qwen2_vl,
    "qwen3_vl": write_qwen3_vl,
    "qwen3_vl_moe": write_qwen3_vl_moe,
    "qwen3_5": write_qwen3_5,
    "llava": write_llava,
    "llava_next": write_llava_next,
    "llava_onevision": write_llava_onevision,
    "internvl": write_internvl,
    "idefics3": write_idefics3,
    "smolvlm": write_smolvlm,
    "gemma3": write_gemma3,
    "gemma4": write_gemma4,
    "glm4v": write_glm4v,
    "glm4v_moe": write_glm4v_moe,
    "instructblip": write_instructblip,
}
"""By ``model_type``."""


def _qwen(folder: Path, tokenizer: Any) -> tuple[Any, Any, dict[str, Any], dict[str, Any]]:
    """Configuration, processor and language model of the digits model, made for this tokenizer; its media tokens."""
    source = build_digits_model(folder.with_name(f"{folder.name}-base"), seed=0)
    processor: Any = AutoProcessor.from_pretrained(source)
    processor.tokenizer = tokenizer
    config: Any = AutoConfig.from_pretrained(source)
    names = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "rope_parameters",
    )  # fmt: skip
    text = {name: getattr(config.text_config, name) for name in names} | _ids(tokenizer) | {"tie_word_embeddings": True}
    tokens = ("image_pad", "video_pad", "vision_start", "vision_end")
    kinds = ("image", "video", "vision_start", "vision_end")
    return (
        config,
        processor,
        text,
        {
            f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
            for kind, token in zip(kinds, tokens, strict=True)
        },
    )


def _ids(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


_QWEN_MEDIA = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


def _routed(model: Any) -> None:
    """Experts that differ, and routers that are of an opinion: transformers makes routers of zeros."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name.endswith((".gate.weight", ".e_score_correction_bias")) or ".experts." in name:
            torch.nn.init.normal_(tensor, std=0.2, generator=generator)


def _glm_processor(processor: Any, images: Any, videos: Any, tokenizer: Any) -> Any:
    return processor(
        image_processor=images(size={"shortest_edge": 2 * _SIDE * _SIDE, "longest_edge": 4 * _SIDE * _SIDE}),
        tokenizer=tokenizer,
        video_processor=videos(),
        chat_template=GLM_TEMPLATE,
    )


def _glm_config(tokenizer: Any) -> dict[str, Any]:
    text = {
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5, "mrope_section": [2, 3, 3],
        },
    }  # fmt: skip
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 96, "out_hidden_size": 64}
    media = {
        "image_token_id": "<|image|>",
        "video_token_id": "<|video|>",
        "image_start_token_id": "<|begin_of_image|>",
        "image_end_token_id": "<|end_of_image|>",
        "video_start_token_id": "<|begin_of_video|>",
        "video_end_token_id": "<|end_of_video|>",
    }
    return {
        "text_config": _tower(64) | _ids(tokenizer) | text,
        "vision_config": vision | {"image_size": _SIDE, "patch_size": _PATCH},
        "tie_word_embeddings": False,
        **{name: tokenizer.convert_tokens_to_ids(token) for name, token in media.items()},
    }


_TILED: dict[str, Any] = {
    "size": {"longest_edge": 2 * _SIDE},
    "max_image_size": {"longest_edge": _SIDE},
    "do_image_splitting": True,
}
"""At most two rows of two tiles."""


def _idefics3_config(tokenizer: Any) -> dict[str, Any]:
    vision = {"image_size": _SIDE, "patch_size": _PATCH} | _tower(64)
    text = {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 2048} | _tower(64)
    return {
        "vision_config": vision,
        "text_config": text | _ids(tokenizer),
        "scale_factor": 2,
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False,
    }


def _llava(folder: Path) -> tuple[Any, Any]:
    source = write_llava(folder.with_name(f"{folder.name}-base"))
    model: Any = AutoModelForImageTextToText.from_pretrained(source)
    return model.config, AutoProcessor.from_pretrained(source)


def _llava_parts(processor: Any) -> dict[str, Any]:
    return {
        "tokenizer": processor.tokenizer,
        "chat_template": processor.chat_template,
        "patch_size": _PATCH,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
    }


def _llava_config(base: Any) -> dict[str, Any]:
    return {
        "vision_config": base.vision_config.to_dict(),
        "text_config": base.text_config.to_dict(),
        "image_token_index": base.image_token_id,
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
    }


def _tower(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }


def _write(folder: Path, config: Any) -> Path:
    return _save(folder, _random(config))


def _random(config: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForImageTextToText.from_config(config)


def _save(folder: Path, model: Any) -> Path:
    model.generation_config.eos_token_id = model.config.get_text_config().eos_token_id
    model.save_pretrained(folder)
    return folder
