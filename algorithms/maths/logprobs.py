"""Log-probabilities of chosen tokens, and what else the distributions say that they were chosen from."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class TokenScores(NamedTuple):
    """What a model thinks of ``N`` tokens. Only the log-probs carry gradient; the rest are figures for people."""

    logprobs: Tensor
    """float32 ``[N]``, nats."""
    entropy: Tensor
    """float32 ``[N]``, nats."""
    greedy: Tensor
    """bool ``[N]``: the token is the likeliest."""


def token_logprobs(
    logits: Float[Tensor, "N V"],
    ids: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    banned_ids: Sequence[int] = (),
) -> TokenScores:
    """Score ``ids`` under softmax(logits / temperature) over all ids but the banned, computed in at least float32.

    Args:
        temperature: Above 0.
        banned_ids: Have no probability: each of the others has more by as much as they would have had together.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    if temperature != 1.0:
        wide = wide / temperature
    if banned_ids:
        wide = wide.index_fill(-1, torch.tensor(list(banned_ids), device=wide.device), float("-inf"))
    log_all = wide.log_softmax(dim=-1)
    chosen = log_all.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = torch.special.entr(log_all.exp()).sum(dim=-1)
        greedy = wide.argmax(dim=-1) == ids
    return TokenScores(chosen, entropy, greedy)
