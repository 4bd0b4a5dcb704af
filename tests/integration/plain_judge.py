"""What anybody would write to use an exported policy, without a line of this project: transformers, or vLLM.

``python plain_judge.py {transformers,vllm} MODEL_FOLDER DATA_FILE MAX_NEW_TOKENS`` prints one completion a row.
"""

import json
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor


def conversations(file: Path) -> list[tuple[list[dict], Image.Image]]:
    """Messages and image of every row."""
    found = []
    for line in file.read_text().splitlines():
        messages = json.loads(json.loads(line)["message"])
        (name,) = [part["image"] for part in messages[0]["content"] if part["type"] == "image"]
        found.append((messages, Image.open(file.parent / name).convert("RGB")))
    return found


def with_transformers(folder: str, file: Path, max_new_tokens: int) -> list[str]:
    """Greedy completions, one prompt at a time."""
    processor = AutoProcessor.from_pretrained(folder)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    texts = []
    for messages, image in conversations(file):
        prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[prompt], images=[image], return_tensors="pt")
        output = model.generate(**inputs, do_sample=False, max_new_tokens=max_new_tokens)
        texts.append(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
    return texts


def with_vllm(folder: str, file: Path, max_new_tokens: int) -> list[str]:
    """Greedy completions of all prompts together."""
    from vllm import LLM, SamplingParams

    processor = AutoProcessor.from_pretrained(folder)
    prompts: list[Any] = [
        {
            "prompt": processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False),
            "multi_modal_data": {"image": image},
        }
        for messages, image in conversations(file)
    ]
    llm = LLM(model=folder, dtype="float32", max_model_len=256, enforce_eager=True)
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=max_new_tokens))
    return [output.outputs[0].text for output in outputs]


if __name__ == "__main__":
    engine = {"transformers": with_transformers, "vllm": with_vllm}[sys.argv[1]]
    for text in engine(sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])):
        sys.stdout.write(f"completion: {text}\n")
