"""Log-probabilities of chosen tokens, and what else the distributions say that they were chosen from."""

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


def token_logprobs(logits: Float[Tensor, "N V"], ids: Int[Tensor, " N"]) -> TokenScores:
    """Score ``ids`` under ``logits``, computed in at least float32."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_all = wide.log_softmax(dim=-1)
    chosen = log_all.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = torch.special.entr(log_all.exp()).sum(dim=-1)
        greedy = logits.argmax(dim=-1) == ids
    return TokenScores(chosen, entropy, greedy)
