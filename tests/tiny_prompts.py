"""Prompts with some images each, and answers to them, for tests over several architectures."""

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from algorithms.maths.aggregation import Aggregation
from algorithms.policy_gradient import AlgorithmSection
from algorithms.records import Example, Sequence, TokenSample
from algorithms.sft import Sft
from workers.multimodal.media import probe_image
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

MIXED_SIZES = ((56, 56), (112, 56), (40, 90))
"""Width and height: processors that cut images treat them differently."""


def picture_prompts(
    root: Path,
    num_images: Mapping[str, int],
    *,
    sizes: tuple[tuple[int, int], ...] = MIXED_SIZES[:1],
    text: str = "which ?",
) -> list[Prompt]:
    """For each uid a prompt with so many images of noise, of these sizes in turn."""
    rng = np.random.default_rng(0)
    prompts = []
    for uid, count in num_images.items():
        media = []
        for index in range(count):
            width, height = sizes[index % len(sizes)]
            file = root / f"{uid}-{index}.png"
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
            media.append(probe_image(file, max_pixels=10**6))
        content = [{"type": "image"}] * count + [{"type": "text", "text": text}]
        prompts.append(Prompt(uid=uid, messages=({"role": "user", "content": content},), media=tuple(media)))
    return prompts


def respond(encoder: PromptEncoder, prompt: Prompt, response: np.ndarray, *, sample_index: int = 0) -> Sequence:
    """The prompt with this answer."""
    ids = encoder.encode(prompt).prompt_ids
    return Sequence(
        uid=prompt.uid,
        sample_index=sample_index,
        input_ids=np.concatenate([np.asarray(ids), response]),
        prompt_len=len(ids),
        media=prompt.media,
    )


def demonstrations(sequences: Seq[Sequence], *, aggregation: Aggregation) -> list[TokenSample]:
    """What supervised learning makes of them."""
    learner = Sft("sft", {"algorithm": AlgorithmSection(aggregation=aggregation)})
    ask: Any = SimpleNamespace(longest_response=1)
    (samples,) = learner.samples([Example(uid=s.uid, sequences=(s,)) for s in sequences], ask).updates
    return list(samples)
