"""FLOPs of a forward and of a backward pass over what is laid out: two for every multiplication and addition.

The counts are those of ``torch.utils.flop_counter``: matrix products alone, Kaplan et al. 2020, section 2.1
(https://arxiv.org/abs/2001.08361), with attention's.
"""

from dataclasses import dataclass
from typing import Literal

from orchestrator.cluster.roofline.layout import Laid
from orchestrator.cluster.roofline.shape import ModelCounts, Part

_Piece = Literal["language", "attention", "head", "bridge", "vision", "adapters"]
Flops = dict[_Piece, float]
"""FLOPs by what they are for."""
FLASH_BACKWARD = 2.5
"""Backward FLOPs of attention, forward FLOPs: four products for two, and the scores once more (Dao et al. 2022,
https://arxiv.org/abs/2205.14135)."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What of a model learns."""

    freeze: tuple[str, ...] = ()
    lora: bool = False
    """Adapters on the parts not frozen, and nothing else."""

    def learns(self, part: str) -> bool:
        """Whether any gradient of the part's own weights or adapters is asked for."""
        return part not in self.freeze

    def weight_products(self, part: str) -> int:
        """1 where gradients of the part's weights are computed, else 0."""
        return int(self.learns(part) and not self.lora)

    def trainable(self, parts: dict[str, Part]) -> int:
        """Numbers that learn; a head that is not tied counts with the language model."""
        learning = [part for name, part in parts.items() if self.learns(name)]
        return sum(part.adapter if self.lora else part.weights for part in learning)


def forward_flops(shape: ModelCounts, laid: Laid) -> Flops:
    """Of one forward over text and images, FLOPs."""
    patches = laid.seen_tokens * shape.patches_a_token
    per_part = {"language": laid.tokens, "vision": patches, "bridge": laid.image_tokens}
    return {
        "language": 2 * shape.language.products * laid.tokens,
        "attention": 4 * shape.attention_width * laid.pairs,
        "head": 2 * shape.head * laid.predicted,
        "bridge": 2 * shape.bridge.products * laid.image_tokens,
        "vision": 2 * shape.vision.products * patches + 4 * shape.vision_width * laid.seen_pairs,
        "adapters": sum(2 * part.adapter * per_part[name] for name, part in shape.parts().items()),
    }


def without_tower(flops: Flops) -> Flops:
    """A forward that is given the vision tower's features."""
    return {**flops, "vision": 0.0}


def backward_flops(shape: ModelCounts, laid: Laid, trained: Trained, *, attention: float = FLASH_BACKWARD) -> Flops:
    """Of one backward pass, FLOPs: of inputs as far down as anything learns, and of the weights that learn.

    Args:
        attention: Backward FLOPs of attention for one of the forward pass.
    """
    forward = forward_flops(shape, laid)
    tower = trained.learns("vision")
    below = tower or trained.learns("bridge")
    patches = laid.seen_tokens * shape.patches_a_token
    scores = 4 * shape.vision_width * laid.seen_pairs
    return {
        "language": forward["language"] * (1 + trained.weight_products("language")),
        "attention": forward["attention"] * attention,
        "head": forward["head"] * (1 + trained.weight_products("language")),
        "bridge": forward["bridge"] * (tower + trained.weight_products("bridge")) if below else 0.0,
        "vision": (2 * shape.vision.products * patches * (1 + trained.weight_products("vision")) + attention * scores)
        if tower
        else 0.0,
        "adapters": 2 * forward["adapters"],
    }


def recomputed_flops(shape: ModelCounts, laid: Laid, trained: Trained) -> float:
    """What gradient checkpointing computes a second time: the layers of language model and, where it learns, tower."""
    forward = forward_flops(shape, laid)
    return forward["language"] + forward["attention"] + (forward["vision"] if trained.learns("vision") else 0.0)


def total(flops: Flops) -> float:
    """FLOPs of all pieces."""
    return sum(flops.values())
