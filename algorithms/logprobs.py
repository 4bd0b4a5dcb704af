"""Log-probabilities of chosen tokens and the entropy they were chosen from."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_logprobs(
    logits: Float[Tensor, "N V"], ids: Int[Tensor, " N"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """Return ``(logprobs, entropy)`` of ``ids`` under ``logits``, in nats, computed in at least float32.

    Only the log-probs carry gradient; entropy is a metric.
    """
    wide = logits if logits.dtype == torch.float64 else logits.float()
    log_all = wide.log_softmax(dim=-1)
    chosen = log_all.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    with torch.no_grad():
        entropy = torch.special.entr(log_all.exp()).sum(dim=-1)
    return chosen, entropy
