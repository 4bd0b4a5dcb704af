"""From a per-token loss map to the scalar objective, with denominators counted over the global batch.

The scalar is Σ loss · weight. Because each weight depends only on its own row and on counts of the whole batch,
neither accumulation, padding nor the number of ranks can change the objective.
"""

from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from algorithms.maths.masking import keep

Aggregation = Literal["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]


def token_weights(
    mask: Bool[Tensor, "B T"],
    *,
    mode: Aggregation,
    global_num_sequences: int,
    global_num_tokens: int,
    max_tokens: int | None = None,
) -> Float[Tensor, "B T"]:
    """Weight of every token in the objective, float64, zero outside the mask.

    Args:
        mask: Tokens the loss counts, any part of the global batch.
        global_num_sequences: Sequences of the global batch with at least one counted token.
        global_num_tokens: Counted tokens of the global batch.
        max_tokens: Constant divisor of ``seq-mean-token-sum-norm`` (Dr. GRPO), usually the generation limit.
    Raises:
        ValueError: a count below 1 while the mask counts tokens, or ``max_tokens`` missing where it is needed.
    """
    of_rows = row_weights(
        mask.sum(dim=1),
        mode=mode,
        global_num_sequences=global_num_sequences,
        global_num_tokens=global_num_tokens,
        max_tokens=max_tokens,
    )
    return keep(of_rows[:, None].expand(mask.shape), mask)


def row_weights(
    lengths: Int[Tensor, " B"],
    *,
    mode: Aggregation,
    global_num_sequences: int,
    global_num_tokens: int,
    max_tokens: int | None = None,
) -> Float[Tensor, " B"]:
    """The weight that ``token_weights`` gives to each counted token of a row, float64.

    Args:
        lengths: Counted tokens of each row; the others are as in ``token_weights``.
    """
    weights = (lengths > 0).double()
    if not bool(weights.any()):
        return weights
    if global_num_sequences < 1 or global_num_tokens < 1:
        raise ValueError(f"global counts ({global_num_sequences}, {global_num_tokens}) must be at least 1")
    if mode == "token-mean":
        return weights / global_num_tokens
    weights = weights / global_num_sequences
    if mode == "seq-mean-token-mean":
        return weights / lengths.clamp(min=1)
    if mode == "seq-mean-token-sum-norm":
        if max_tokens is None or max_tokens < 1:
            raise ValueError(f"max_tokens = {max_tokens} must be at least 1 for {mode}")
        return weights / max_tokens
    return weights


def weighted(loss: Float[Tensor, "B T"], weights: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """loss · weight where the weight is positive, else 0: what each token adds to the objective."""
    counted = weights > 0
    return keep(loss, counted) * weights.to(loss.dtype)


def response_weights(
    num_tokens: Int[Tensor, " S"],
    repeats: Int[Tensor, " S"],
    *,
    mode: Literal["token-mean", "seq-mean-token-mean"],
    global_num_sequences: int,
    global_num_tokens: int,
) -> Float[Tensor, " S"]:
    """Weight of each response's summed log-prob in a cross-entropy, float64; 0 where it has no token or no repeat.

    What ``token_weights`` gives to every token of a row, for responses that count several times, as one that is
    chosen in several pairs does.

    Args:
        num_tokens: Counted tokens of each response.
        repeats: How often each counts; all 1 counts every response once, however many pairs it stands in.
        global_num_sequences: Sum of the repeats of responses with a counted token, over the global batch.
        global_num_tokens: Sum of repeats times tokens, over the global batch.
    Raises:
        ValueError: a negative count, or a global count below 1 while something counts.
    """
    if bool((num_tokens < 0).any()) or bool((repeats < 0).any()):
        raise ValueError(f"num_tokens = {num_tokens.tolist()} and repeats = {repeats.tolist()} must not be negative")
    counted = (num_tokens > 0) & (repeats > 0)
    weights = keep(repeats.double(), counted)
    if not bool(counted.any()):
        return weights
    if global_num_sequences < 1 or global_num_tokens < 1:
        raise ValueError(f"global counts ({global_num_sequences}, {global_num_tokens}) must be at least 1")
    if mode == "token-mean":
        return weights / global_num_tokens
    return weights / (global_num_sequences * num_tokens.clamp(min=1))
