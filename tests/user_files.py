"""What a user brings: a LLaVA-1.5 folder and a preference file, made with transformers and Pillow alone."""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_images
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from tests.released_tokenizers import LLAVA_TEMPLATE, llama_tokenizer

_SIDE, _PATCH = 56, 14
# Releases of LLaVA-1.5 carry these names; transformers itself now writes others, which no engine loads.
_RELEASED = (
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)


def write_llava(folder: Path) -> Path:
    """A LLaVA-1.5 of 64 channels with random weights, laid out as its releases are."""
    folder.mkdir()
    tokenizer = llama_tokenizer("<image>")
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": _SIDE}, crop_size={"height": _SIDE, "width": _SIDE}),
        tokenizer=tokenizer,
        patch_size=_PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)
    config = _config(tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config)
    config.architectures = ["LlavaForConditionalGeneration"]
    config.save_pretrained(folder)
    save_file({_released(n): t.contiguous() for n, t in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def write_preferences(folder: Path) -> Path:
    """Twelve rows of the R1-Reward format about crops of two photographs; one shows two images, one a video."""
    folder.mkdir()
    crops = []
    for number, photo in enumerate(load_sample_images().images):
        for part in range(6):
            crop = Image.fromarray(photo).crop((100 * part, 60, 100 * part + 90, 140))
            crops.append((f"photo{number}_{part}.jpg", number))
            crop.save(folder / crops[-1][0])
    frames = folder / "clip"
    frames.mkdir()
    for index in range(4):
        Image.fromarray(load_sample_images().images[1]).crop((40 * index, 0, 40 * index + 80, 80)).save(
            frames / f"{index:03d}.png"
        )
    rows = [_row([{"type": "image", "image": name}], number) for name, number in crops]
    rows[3] = _row([{"type": "image", "image": crops[3][0]}, {"type": "image", "image": crops[4][0]}], 0)
    rows[7] = _row([{"type": "video", "video": "clip"}], 1)
    (folder / "preferences.json").write_text(json.dumps(rows, indent=1))
    return folder / "preferences.json"


def _row(media: list[dict[str, str]], subject: int) -> dict[str, object]:
    content = [*media, {"type": "text", "text": "What is it? Response 1: a temple. Response 2: a flower."}]
    return {
        "message": json.dumps([{"role": "user", "content": content}]),
        "question": "What is it?",
        "answer": [f"<answer>{1 + subject}</answer>"],
        "response": f"<think>It is plain to see.</think><answer>{1 + subject}</answer>",
    }


def _config(tokenizer: LlamaTokenizer) -> LlavaConfig:
    ids = tokenizer.get_vocab()
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=_SIDE,
            patch_size=_PATCH,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            bos_token_id=ids["<s>"],
            eos_token_id=ids["</s>"],
            pad_token_id=ids["<pad>"],
        ),
        image_token_index=ids["<image>"],
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=(_SIDE // _PATCH) ** 2,
    )


def _released(name: str) -> str:
    for ours, theirs in _RELEASED:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name
