"""Greedy answers to held-out prompts, once with their own images and once with the images shuffled among them.

A policy that looks does well with the first and no better than chance with the second. Several samples a prompt say how
often it is right, whether it ever is, and whether most of them are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.cluster.feed import build_requests
from orchestrator.data.shuffled import shuffle_images
from orchestrator.evaluation.right import at_k, is_judging, is_right, readable_answer
from orchestrator.evaluation.types import EvalResult, EvalSample
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """Samples of each held-out prompt."""

    count: int
    temperature: float
    seed_of: Callable[[str, int], int]
    """Of a prompt's uid and the sample's index."""


Sampler = Callable[[Sequence[GenerationRequest]], Sequence[Completion]]


def evaluate(
    sample: Sampler,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    with_shuffled: bool = True,
    several: Several | None = None,
) -> EvalResult:
    """Evaluate what ``sample`` answers to ``prompts``, which have a label each.

    Args:
        several: Samples to draw of each prompt besides; None draws none.
    """
    texts = _greedy(sample, encoder, prompts, max_new_tokens)
    shuffled = None
    if with_shuffled:
        shuffled_texts = _greedy(sample, encoder, shuffle_images(prompts), max_new_tokens)
        shuffled = judged(prompts, shuffled_texts).accuracy
    result = judged(prompts, texts, shuffled=shuffled)
    if several is None:
        return result
    drawn = _several(sample, encoder, prompts, max_new_tokens, several, judging=result.judging)
    return replace(result, further={**result.further, **drawn})


def judged(prompts: Sequence[Prompt], texts: Sequence[str], *, shuffled: float | None = None) -> EvalResult:
    """The figures of answers to ``prompts``; one that is not clear counts as wrong, and for neither position.

    Args:
        shuffled: Accuracy with the images shuffled, where it was measured.
    """
    judging = is_judging(prompts)
    answers = [readable_answer(text, judging=judging) for text in texts]
    right = [is_right(a, str(p.label), judging=judging) for a, p in zip(answers, prompts, strict=True)]
    readable = [answer for answer in answers if answer is not None]
    return EvalResult(
        accuracy=sum(right) / len(prompts),
        accuracy_shuffled_images=shuffled,
        first_position_rate=sum(a == "1" for a in readable) / len(readable) if readable and judging else None,
        judging=judging,
        further=by_source({"eval/accuracy": list(map(float, right))}, prompts),
        num_pairs=len(prompts),
        samples=tuple(
            EvalSample(
                uid=prompt.uid,
                prompt_text=prompt_text(prompt),
                completion_text=text,
                verdict=answer,
                label=prompt.label,
                right=fine,
                source=prompt.source,
                media=tuple((ref.path, ref.sha256) for ref in prompt.media),
            )
            for prompt, text, answer, fine in zip(prompts, texts, answers, right, strict=True)
        ),
    )


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
    return encoder.decode_all([c.completion_ids for c in sample(requests)])


def _several(
    sample: Sampler,
    encoder: PromptEncoder,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    several: Several,
    *,
    judging: bool,
) -> dict[str, float]:
    requests = build_requests(
        [encoder.encode(p) for p in prompts],
        samples_per_prompt=several.count,
        seed_of=several.seed_of,
        max_new_tokens=max_new_tokens,
        temperature=several.temperature,
        top_p=1.0,
    )
    drawn: dict[str, list[str | None]] = {prompt.uid: [] for prompt in prompts}
    for completion in sample(requests):
        drawn[completion.uid].append(readable_answer(encoder.decode(completion.completion_ids), judging=judging))
    found = [at_k([drawn[p.uid]], [str(p.label)], judging=judging) for p in prompts]
    figures = {
        f"eval/mean_at_{several.count}": [one.mean for one in found],
        f"eval/pass_at_{several.count}": [one.any for one in found],
        f"eval/maj_at_{several.count}": [one.majority for one in found],
    }
    whole = {name: sum(values) / len(values) for name, values in figures.items()}
    return whole | by_source(figures, prompts)


def by_source(figures: Mapping[str, Sequence[float]], prompts: Sequence[Prompt]) -> dict[str, float]:
    """The mean of each figure over the prompts of each source, as ``NAME/SOURCE``; nothing where there is one source.

    Args:
        figures: A value a prompt.
    """
    members: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        members.setdefault(prompt.source, []).append(index)
    if set(members) == {""}:
        return {}
    return {
        f"{name}/{source}": sum(values[i] for i in own) / len(own)
        for name, values in figures.items()
        for source, own in members.items()
    }
