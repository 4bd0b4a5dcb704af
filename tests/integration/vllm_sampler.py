"""Samples from a model folder through a vLLM engine of ours, in a process of its own so that its memory ends with it.

``python -m tests.integration.vllm_sampler MODEL_FOLDER NEXT.safetensors PICTURES RESULT.json [MAX_PIXELS]`` writes, for
each sampled sequence, its temperature, the ids of the prompt as the model sees them, the sampled ids and their
log-probs; once with the model as its folder has it, and once after a transfer of the next weights.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors.torch import load_file

from tests.tiny_prompts import MIXED_SIZES, picture_prompts
from workers.models.loading import ModelSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec
from workers.rollout.vllm_rollout import VllmEngine
from workers.types import EncodedPrompt, GenerationRequest, Prompt
from workers.weight_sync.shared_memory import WeightFile, clear_exchange

NUM_IMAGES = {"one": 1, "two": 2, "none": 0, "three": 3}
TEMPERATURES = (1.0, 0.7, 1.3)
"""Of the samples of each prompt."""
_TEXT = "what do <image>, <|image_pad|>, <IMG_CONTEXT> and </s> mean ?"
"""Words, though they spell the placeholders and the end of a turn of several models."""
_NEW_TOKENS = 8


def sampled_prompts(pictures: Path) -> list[Prompt]:
    """Prompts with so many images; the one that stands alone also stands beside others, which some models tile less."""
    prompts = picture_prompts(pictures, NUM_IMAGES, sizes=MIXED_SIZES)
    alone = next(p.media for p in prompts if p.uid == "one")
    return [replace(p, media=(*alone, *p.media[1:])) if p.media else p for p in prompts]


def main(model: str, following: str, pictures: str, result: str, max_pixels: str | None = None) -> None:
    """Draw a sample of every prompt at every temperature, twice."""
    bound = None if max_pixels is None else int(max_pixels)
    encoder = PromptEncoder(model, max_pixels=bound)
    encoded = [encoder.encode(p) for p in sampled_prompts(Path(pictures))]
    requests = [
        GenerationRequest(
            uid=prompt.uid,
            sample_index=index,
            engine_prompt_ids=prompt.engine_prompt_ids,
            prompt_ids=prompt.prompt_ids,
            media=prompt.media,
            seed=index,
            max_new_tokens=_NEW_TOKENS,
            temperature=temperature,
        )
        for prompt in encoded
        for index, temperature in enumerate(TEMPERATURES)
    ]
    engine = VllmEngine(
        "engine-0",
        EngineSpec(
            kind="vllm",
            model=ModelSpec(path=model, dtype="float32", max_pixels=bound),
            tensor_parallel_size=1,
            max_model_len=max(len(p.prompt_ids) for p in encoded) + _NEW_TOKENS,
            max_num_seqs=len(requests),
            max_images_per_prompt=max(NUM_IMAGES.values()),
            gpu_memory_utilization=0.5,
            banned_token_ids=encoder.vision_token_ids,
            stop_token_ids=encoder.eos_token_ids,
            seed=0,
        ),
    )
    rows = _drawn(engine, requests, encoded, weights="first")
    run_id = uuid4().hex
    try:
        named = load_file(following).items()
        engine.load_weights(WeightFile(run_id).write(named, policy_version=1, full=True))
    finally:
        clear_exchange(run_id)
    rows += _drawn(engine, requests, encoded, weights="next")
    Path(result).write_text(json.dumps(rows))


def _drawn(
    engine: VllmEngine, requests: Sequence[GenerationRequest], encoded: Sequence[EncodedPrompt], *, weights: str
) -> list[dict[str, Any]]:
    engine.submit(requests)
    done = []
    while len(done) < len(requests):
        done += engine.collect(60.0)
    prompt_ids = {p.uid: p.prompt_ids for p in encoded}
    return [
        {
            "uid": c.uid,
            "weights": weights,
            "temperature": TEMPERATURES[c.sample_index],
            "prompt_ids": prompt_ids[c.uid],
            "completion_ids": c.completion_ids.tolist(),
            "logprobs": c.rollout_logprobs.tolist(),
        }
        for c in done
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
