"""How long a row keeps a rank busy, in multiplications: what every token costs, and what follows from its shape.

    tokens          x the weights of all layers
    pairs           x 2 x heads x head size x layers: P²/2 of a prompt, L P + L²/2 of each response that shares it
    actions         x the head's weights
    patches         x the weights of the vision tower, where it runs in every forward

Source: the counts of Kaplan et al. 2020, table 1, https://arxiv.org/abs/2001.08361, with causal attention at half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

_UNIT = 1 << 10
"""Parts of a token's work in which work is counted, so that sums are exact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWeights:
    """What one of each takes, where a token takes 1 in all layers together."""

    pair: float
    """A token that sees another."""
    action: float
    """A token that is scored."""
    patch: float
    """A patch of an image."""
    patch_side: int = 14
    """Pixels."""

    def of_row(self, prompt_len: int, completions: Sequence[int], patches: int) -> int:
        """Work of a prompt, with its images, and of the completions that share it."""
        answered = sum(completions)
        pairs = prompt_len * prompt_len + sum(length * (2 * prompt_len + length) for length in completions)
        work = prompt_len + answered + self.pair * pairs / 2 + self.action * answered + self.patch * patches
        return int(_UNIT * work)

    def patches_of(
        self, sizes: Sequence[tuple[int, int]], *, max_pixels: int | None, fixed_side: int | None = None
    ) -> int:
        """Patches of images of these widths and heights; none where they weigh nothing.

        Args:
            max_pixels: Larger images are resized to so many.
            fixed_side: Every image is resized to this width and height.
        """
        if not self.patch:
            return 0
        if fixed_side is not None:
            return len(sizes) * (fixed_side // self.patch_side) ** 2
        pixels = (width * height for width, height in sizes)
        return sum(min(p, max_pixels or p) for p in pixels) // self.patch_side**2


TOKENS_ALONE = RowWeights(pair=0.0, action=0.0, patch=0.0)
_TEXT = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def row_weights(config: Any, *, tower_runs: bool) -> RowWeights:
    """The weights of a model; by tokens alone as far as its configuration does not say them under the usual names.

    Args:
        config: Its configuration, as transformers reads it.
        tower_runs: The vision tower runs in every forward, as it is trained.
    """
    text = config.get_text_config().to_dict()  # some refuse an attribute that not all of their layers share
    experts = text.get("num_experts_per_tok")
    wide = "moe_intermediate_size" if experts else "intermediate_size"
    if any(text.get(name) is None for name in (*_TEXT, wide)):
        return TOKENS_ALONE
    hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    size = text.get("head_dim") or hidden // heads
    keys = text.get("num_key_value_heads") or heads
    inner = (experts or 1) * text[wide]
    token = layers * (hidden * size * (2 * heads + 2 * keys) + 3 * hidden * inner)
    pair, action = layers * 2 * heads * size, hidden * text["vocab_size"]
    weights = RowWeights(pair=pair / token, action=action / token, patch=0.0)
    tower = getattr(config, "vision_config", None)
    if tower is None or not tower_runs:
        return weights
    vision = tower.to_dict()
    width = vision.get("embed_dim") or vision.get("hidden_size")
    depth = vision.get("depth") or vision.get("num_hidden_layers")
    side = vision.get("patch_size")
    inner = vision.get("intermediate_size") or (width or 0) * vision.get("mlp_ratio", 0)
    if not (width and depth and side and inner):
        return weights
    patch = depth * (4 * width * width + 3 * width * int(inner)) / token
    return replace(weights, patch=patch, patch_side=side if isinstance(side, int) else side[0])
