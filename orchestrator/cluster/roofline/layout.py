"""What a forward is asked to compute: of a whole step laid out as well as can be, and of our own micro-batches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from orchestrator.cluster.microbatches import SampleSize, plan_samples
from orchestrator.cluster.roofline.lengths import Asked, Lengths
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights
from workers.multimodal.step_cache import StepCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """The tokens of some sequences, as a forward meets them."""

    tokens: float = 0.0
    pairs: float = 0.0
    """Query and key positions for which attention computes a score, in one layer."""
    predicted: float = 0.0
    """Positions at which the head runs."""
    image_tokens: float = 0.0
    """Through the bridge."""
    seen_tokens: float = 0.0
    """Those for which the vision tower runs."""
    seen_pairs: float = 0.0
    """Pairs of their patches, summed over the tower's layers."""

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
    return _rows(lengths) + _images(lengths) + _seen(shape, lengths)


def microbatches(
    samples: Sequence[Answered],
    *,
    share_prompts: bool,
    num_ranks: int,
    token_budget: int,
    weights: RowWeights = TOKENS_ALONE,
    patches_a_token: float = 0.0,
) -> list[list[list[Answered]]]:
    """For each rank its micro-batches, as the driver plans it; see ``plan_samples``.

    Args:
        patches_a_token: Of a token that stands for an image.
    """
    sizes = [
        SampleSize(str(s.number), s.asked.prompt, s.asked.prompt + s.length, round(s.asked.image * patches_a_token))
        for s in samples
    ]
    plan = plan_samples(
        sizes, share_prompts=share_prompts, num_ranks=num_ranks, token_budget=token_budget, weights=weights
    )
    return [[[samples[i] for i in batch] for batch in batches] for batches in plan]


class KeptFeatures:
    """Which images one process need not look at again in a step: of a frozen tower, within a bound on their bytes.

    As ``workers.models.vision_features`` keeps them.
    """

    def __init__(self, shape: ModelCounts, *, width: int) -> None:
        """
        Args:
            width: Bytes of a number.
        """
        from workers.models.vision_features import KEPT_BYTES  # deferred: it imports torch

        each = shape.features_a_token * width
        self._cache = StepCache[Asked](KEPT_BYTES, num_bytes=lambda asked: round(asked.image * each))

    def missing(self, prompts: Mapping[int, Asked]) -> list[Asked]:
        """Those whose images the tower must see now."""
        missing = {number: asked for number, asked in prompts.items() if self._cache.find(str(number)) is None}
        for number, asked in missing.items():
            self._cache.keep(str(number), asked)
        return list(missing.values())


def packed_layout(shape: ModelCounts, batch: Sequence[Answered], kept: KeptFeatures | None = None) -> Laid:
    """One micro-batch as ``workers.models.shared_prompt`` attends to it: prompts once, nothing filled up.

    Args:
        kept: What its process has of a frozen tower; None = the tower runs for every prompt in it.
    """
    groups: dict[int, list[Answered]] = {}
    for s in batch:
        groups.setdefault(s.number, []).append(s)
    asked = [replace(own[0].asked, answers=tuple(s.length for s in own)) for own in groups.values()]
    seen = asked if kept is None else kept.missing(dict(zip(groups, asked, strict=True)))
    return _rows(asked) + _images(asked) + _seen(shape, seen)


def padded_layout(shape: ModelCounts, batch: Sequence[Answered], kept: KeptFeatures | None = None) -> Laid:
    """One micro-batch of which every sequence has a row of its own, filled up to the longest; see ``packed_layout``."""
    widest = max((s.asked.prompt + s.length for s in batch), default=0)
    asked = [s.asked for s in batch]
    seen = asked if kept is None else kept.missing({s.number: s.asked for s in batch})
    rows = Laid(tokens=len(batch) * widest, pairs=len(batch) * widest**2, predicted=sum(s.length for s in batch))
    return rows + _images(asked) + _seen(shape, seen)


def _rows(prompts: Sequence[Asked]) -> Laid:
    """Each prompt once, and of scores none that the causal mask throws away."""
    return Laid(
        tokens=sum(asked.prompt + sum(asked.answers) for asked in prompts),
        pairs=sum(asked.prompt**2 / 2 + sum(n * asked.prompt + n**2 / 2 for n in asked.answers) for asked in prompts),
        predicted=sum(sum(asked.answers) for asked in prompts),
    )


def _images(prompts: Sequence[Asked]) -> Laid:
    return Laid(image_tokens=sum(asked.image for asked in prompts))


def _seen(shape: ModelCounts, prompts: Sequence[Asked]) -> Laid:
    tokens = [asked.image for asked in prompts]
    pairs = sum(shape.image_pairs(n * shape.patches_a_token) for n in tokens)
    return Laid(seen_tokens=sum(tokens), seen_pairs=pairs)
