"""What a forward is asked to compute: of a whole step laid out as well as can be, and of our own micro-batches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from orchestrator.cluster.microbatches import SampleSize, Shares, plan_samples
from orchestrator.cluster.roofline.lengths import Asked, Lengths
from orchestrator.cluster.roofline.shape import ModelCounts

_SHORTEST_CLASS = 16
"""As ``workers.multimodal.packing`` sorts responses into classes of length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """The tokens of some sequences, as a forward meets them."""

    tokens: float = 0.0
    pairs: float = 0.0
    """Query and key positions for which attention computes a score, in one layer."""
    predicted: float = 0.0
    """Positions at which the head runs."""
    image_tokens: float = 0.0
    image_pairs: float = 0.0
    """Pairs of patches, summed over the vision tower's layers."""

    def __add__(self, other: "Laid") -> "Laid":
        return Laid(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer with its prompt."""

    asked: Asked
    number: int
    """Of the prompt within the step."""
    length: int


def answered(lengths: Lengths) -> list[Answered]:
    """All answers of a step, those of one prompt side by side."""
    return [Answered(asked, number, n) for number, asked in enumerate(lengths) for n in asked.answers]


def best_layout(shape: ModelCounts, lengths: Lengths) -> Laid:
    """Every prompt and image once, no filling, and no score that the causal mask throws away."""
    laid = Laid()
    for asked in lengths:
        own = sum(n * asked.prompt + n**2 / 2 for n in asked.answers)
        laid += _images(shape, (asked,)) + Laid(
            tokens=asked.prompt + sum(asked.answers),
            pairs=asked.prompt**2 / 2 + own,
            predicted=sum(asked.answers),
        )
    return laid


def microbatches(samples: Sequence[Answered], *, share_prompts: bool, num_ranks: int, token_budget: int) -> Shares:
    """Who gets which, as the driver plans it."""
    sizes = [SampleSize(str(s.number), s.asked.prompt, s.asked.prompt + s.length) for s in samples]
    return plan_samples(sizes, share_prompts=share_prompts, num_ranks=num_ranks, token_budget=token_budget)


def packed_layout(shape: ModelCounts, batch: Sequence[Answered]) -> Laid:
    """One micro-batch as ``workers.models.shared_prompt`` attends to it.

    Prompts are a batch filled up to the longest; the responses of a class of length another, whose scores are all
    computed, those that the mask throws away too.
    """
    prompts = {s.number: s.asked for s in batch}
    longest = max((asked.prompt for asked in prompts.values()), default=0)
    classes: dict[int, list[int]] = {}
    for s in batch:
        classes.setdefault(max(0, (s.length - 1) // _SHORTEST_CLASS).bit_length(), []).append(s.length)
    return _images(shape, list(prompts.values())) + Laid(
        tokens=sum(asked.prompt for asked in prompts.values()) + sum(s.length for s in batch),
        pairs=len(prompts) * longest**2 / 2 + sum(len(c) * max(c) * (longest + max(c)) for c in classes.values()),
        predicted=sum(s.length for s in batch),
    )


def padded_layout(shape: ModelCounts, batch: Sequence[Answered]) -> Laid:
    """One micro-batch of which every sequence has a row of its own, filled up to the longest."""
    widest = max((s.asked.prompt + s.length for s in batch), default=0)
    return _images(shape, [s.asked for s in batch]) + Laid(
        tokens=len(batch) * widest, pairs=len(batch) * widest**2, predicted=sum(s.length for s in batch)
    )


def _images(shape: ModelCounts, prompts: Sequence[Asked]) -> Laid:
    tokens = [asked.image for asked in prompts]
    pairs = sum(shape.image_pairs(n * shape.patches_a_token) for n in tokens)
    return Laid(image_tokens=sum(tokens), image_pairs=pairs)
