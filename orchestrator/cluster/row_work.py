"""How long a row keeps a rank busy, in multiplications: what every token costs, and what follows from its shape.

    tokens          x the weights of all layers
    pairs           x 2 x heads x head size x layers: P²/2 of a prompt, L P + L²/2 of each response that shares it
    actions         x the head's weights
    patches         x the weights of the vision tower, where it runs in every forward

Source: the counts of Kaplan et al. 2020, table 1, https://arxiv.org/abs/2001.08361, with causal attention at half.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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


def row_weights(config: Any, *, tower_runs: bool) -> RowWeights:
    """The weights of a model.

    Args:
        config: Its configuration, as transformers reads it.
        tower_runs: The vision tower runs in every forward, as it is trained.
    """
    text = config.get_text_config().to_dict()  # some refuse an attribute that not all of their layers share
    hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    size = text.get("head_dim") or hidden // heads
    keys = text.get("num_key_value_heads") or heads
    experts = text.get("num_experts_per_tok")
    inner = experts * text["moe_intermediate_size"] if experts else text["intermediate_size"]
    token = layers * (hidden * size * (2 * heads + 2 * keys) + 3 * hidden * inner)
    pair, action = layers * 2 * heads * size, hidden * text["vocab_size"]
    if not tower_runs:
        return RowWeights(pair=pair / token, action=action / token, patch=0.0)
    vision = config.vision_config.to_dict()
    width = vision.get("embed_dim") or vision["hidden_size"]
    depth = vision.get("depth") or vision["num_hidden_layers"]
    wide = vision.get("intermediate_size") or int(width * vision["mlp_ratio"])
    side = vision["patch_size"]
    return RowWeights(
        pair=pair / token,
        action=action / token,
        patch=depth * (4 * width * width + 3 * width * wide) / token,
        patch_side=side if isinstance(side, int) else side[0],
    )
