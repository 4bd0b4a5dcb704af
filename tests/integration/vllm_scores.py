"""Scores of a reward model by plain vLLM, as anybody would serve it, in a process whose memory ends with it.

``python -m tests.integration.vllm_scores MODEL_FOLDER PICTURES RESULT.json`` writes a number for each of ``asked``.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from vllm import LLM

from algorithms.records import Sequence
from tests.tiny_prompts import MIXED_SIZES, picture_prompts, respond
from workers.multimodal.media import load_image
from workers.multimodal.prompt_encoder import PromptEncoder

_IMAGES = {"one": 1, "none": 0, "two": 2}
_ANSWERS = ("two plus two is four .", "no .")


def asked(encoder: PromptEncoder, pictures: Path, *, most_images: int) -> list[tuple[Sequence, dict[str, Any]]]:
    """Answers to prompts with and without images, as the trainer's forward and as vLLM reads them."""
    made = []
    chosen = {name: count for name, count in _IMAGES.items() if count <= most_images}
    for prompt in picture_prompts(pictures, chosen, sizes=MIXED_SIZES):
        ids = encoder.encode(prompt).engine_prompt_ids
        for answer in _ANSWERS:
            words = encoder.encode_target(answer)
            request: dict[str, Any] = {"prompt_token_ids": [*ids, *words]}
            if prompt.media:
                request["multi_modal_data"] = {"image": [load_image(ref) for ref in prompt.media]}
            made.append((respond(encoder, prompt, np.array(words)), request))
    return made


def main(model: str, pictures: str, result: str, most_images: str) -> None:
    """What ``vllm serve MODEL`` does, without the server: no option says that it is a reward model."""
    encoder = PromptEncoder(model)
    found = asked(encoder, Path(pictures), most_images=int(most_images))
    llm = LLM(
        model=model,
        dtype="float32",
        enforce_eager=True,
        max_model_len=max(len(sequence.input_ids) for sequence, _ in found) + 1,
        max_num_seqs=len(found),
        limit_mm_per_prompt={"image": int(most_images)},
    )
    outputs = llm.classify([request for _, request in found])  # type: ignore[arg-type]
    Path(result).write_text(json.dumps([output.outputs.probs for output in outputs]))


if __name__ == "__main__":
    main(*sys.argv[1:])
