"""Greedy verdicts on held-out pairs, once with their own images and once with the images shuffled among them.

A judge that looks does well with the first and no better than chance with the second.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from orchestrator.cluster.feed import build_requests
from orchestrator.evaluation.answers import parse_verdict
from orchestrator.evaluation.types import EvalResult, EvalSample
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt

Sampler = Callable[[Sequence[GenerationRequest]], list[Completion]]
_SHUFFLE_SEED = 20_250_502


def evaluate(
    sample: Sampler,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    with_shuffled: bool = True,
) -> EvalResult:
    """Evaluate what ``sample`` answers to ``prompts``."""
    texts = _greedy(sample, encoder, prompts, max_new_tokens)
    shuffled = None
    if with_shuffled:
        others = shuffle_images(prompts)
        shuffled_texts = _greedy(sample, encoder, others, max_new_tokens)
        shuffled = _accuracy(prompts, [parse_verdict(text) for text in shuffled_texts])
    return judged(prompts, texts, shuffled=shuffled)


def judged(prompts: Sequence[Prompt], texts: Sequence[str], *, shuffled: float | None = None) -> EvalResult:
    """The figures of answers to ``prompts``; one without a clear verdict counts as wrong, and for neither position.

    Args:
        shuffled: Accuracy with the images shuffled, where it was measured.
    """
    verdicts = [parse_verdict(text) for text in texts]
    readable = [verdict for verdict in verdicts if verdict is not None]
    return EvalResult(
        accuracy=_accuracy(prompts, verdicts),
        accuracy_shuffled_images=shuffled,
        first_position_rate=sum(v == "1" for v in readable) / len(readable) if readable else None,
        num_pairs=len(prompts),
        samples=tuple(
            EvalSample(
                uid=prompt.uid,
                prompt_text=prompt_text(prompt),
                completion_text=text,
                verdict=verdict,
                label=prompt.label,
                source=prompt.source,
            )
            for prompt, text, verdict in zip(prompts, texts, verdicts, strict=True)
        ),
    )


def shuffle_images(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Give every prompt the images of another with as many; seeded, so each evaluation uses the same swap."""
    rng = np.random.Generator(np.random.Philox(_SHUFFLE_SEED))
    source = list(range(len(prompts)))
    for count in {len(p.media) for p in prompts}:
        members = [i for i, p in enumerate(prompts) if len(p.media) == count]
        for i, j in zip(members, rng.permutation(members), strict=True):
            source[i] = int(j)
    return [replace(p, uid=f"{p.uid}-shuffled", media=prompts[j].media) for p, j in zip(prompts, source, strict=True)]


def prompt_text(prompt: Prompt) -> str:
    """The text parts of a prompt, for people."""
    parts = (part for turn in prompt.messages for part in turn["content"])
    return " ".join(part["text"] if part["type"] == "text" else "[image]" for part in parts)


def _greedy(sample: Sampler, encoder: PromptEncoder, prompts: Sequence[Prompt], max_new_tokens: int) -> list[str]:
    requests = build_requests(
        [encoder.encode(p) for p in prompts],
        samples_per_prompt=1,
        seed_of=lambda uid, index: 0,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
        top_p=1.0,
    )
    return [encoder.decode(c.completion_ids) for c in sample(requests)]


def _accuracy(prompts: Sequence[Prompt], verdicts: Sequence[str | None]) -> float:
    return sum(v == p.label for p, v in zip(prompts, verdicts, strict=True)) / len(prompts)
