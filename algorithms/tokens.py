"""What learns token by token: weights in the global batch's objective, and the sum of weighted losses.

Weights count over the whole batch of an optimizer step, so micro-batches and ranks only ever add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from algorithms.algorithm import Loss, Scores
from algorithms.figures import Figure, Mean, Most, Sum, Tallies
from algorithms.records import Sequence as TokenSequence
from algorithms.records import TokenSample

if TYPE_CHECKING:
    from torch import Tensor

    from algorithms.maths.aggregation import Aggregation

ENTROPY = Figure(
    "policy/entropy",
    "of the next-token distribution, nats, mean over action tokens; online of the one that was sampled from: "
    "logits / `rollout.temperature`, without vision tokens",
    title="Entropy, nats a token",
)
TOKEN_ACCURACY = Figure(
    "policy/token_accuracy",
    "share of the step's response tokens that are the likeliest; of `critique_rm`, of all tokens behind the prompt",
    title="Token accuracy",
    label="the step's own",
)
_MISMATCH = "Engine against trainer, nats"
_GAP = (
    "absolute gap of log-probs, engine against trainer, on the sampled tokens, nats; like every log-prob of an online "
    "run, of the distribution that was sampled from"
)
MISMATCH = (
    Figure("mismatch/logprob_abs_mean", f"mean {_GAP}", _MISMATCH, "mean"),
    Figure("mismatch/logprob_abs_max", f"largest {_GAP}", _MISMATCH, "largest"),
    Figure("mismatch/nonfinite_tokens", "tokens whose engine log-prob is not finite"),
)
"""Of a step; an update tells them where its own forward is the first to know the trainer's log-probs."""


def step_weights(
    sequences: Sequence[TokenSequence], *, aggregation: "Aggregation", longest_response: int
) -> list[np.ndarray]:
    """What each token counts in the objective of one optimizer step on these sequences, float64 ``[T]`` each.

    Args:
        longest_response: Divisor of ``seq-mean-token-sum-norm``.
    """
    import torch

    from algorithms.maths.aggregation import row_weights

    lengths = [len(s.input_ids) - s.prompt_len for s in sequences]
    weights = row_weights(
        torch.tensor(lengths),
        mode=aggregation,
        global_num_sequences=sum(length > 0 for length in lengths),
        global_num_tokens=sum(lengths),
        max_tokens=longest_response,
    )
    # Rows of one weight are views of one array: all of them would be the largest thing in the driver.
    before, behind, shared = max(s.prompt_len for s in sequences), max(lengths), dict[float, np.ndarray]()
    rows = []
    for sequence, length, weight in zip(sequences, lengths, weights.tolist(), strict=True):
        if weight not in shared:
            shared[weight] = np.concatenate([np.zeros(before), np.full(behind, weight)])
        rows.append(shared[weight][before - sequence.prompt_len : before + length])
    return rows


def stacked(rows: Sequence[np.ndarray]) -> "Tensor":
    """Right-pad rows with zeros to one float32 ``[B, T]`` tensor."""
    import torch

    out = np.zeros((len(rows), max(len(r) for r in rows)), np.float32)
    for slots, row in zip(out, rows, strict=True):
        slots[: len(row)] = row
    return torch.from_numpy(out)


def action_masks(sequences: Sequence[TokenSequence]) -> "Tensor":
    """``Sequence.action_mask`` of each, as bool ``[B, T]``."""
    import torch

    begins = torch.tensor([s.prompt_len for s in sequences])[:, None]
    ends = torch.tensor([len(s.input_ids) for s in sequences])[:, None]
    slots = torch.arange(int(ends.max()))
    return (slots >= begins) & (slots < ends)


def of_actions(samples: Sequence[Any], field: str, like: "Tensor") -> "Tensor":
    """One field of every action token, sample after sample, float32 ``[1, N]`` beside the log-probs."""
    import torch

    rows = [getattr(s, field)[s.sequence.prompt_len :] for s in samples]
    return torch.from_numpy(np.concatenate(rows).astype(np.float32))[None].to(like.device)


@dataclass(frozen=True, slots=True)
class TokenObjective:
    """The sum of weighted per-token losses."""

    def loss_map(
        self, samples: Sequence[Any], scores: Scores, logprobs: "Tensor", mask: "Tensor"
    ) -> "tuple[Tensor, Tallies]":
        """The loss of every action token, ``[1, N]``, and figures beside the entropy.

        Args:
            logprobs: ``[1, N]``.
            mask: bool ``[1, N]``, the tokens that count.
        """
        raise NotImplementedError

    def __call__(self, scores: Scores, samples: Sequence[TokenSample]) -> Loss:
        """The losses of a micro-batch."""
        import torch

        from algorithms.maths.aggregation import weighted

        logprobs = torch.cat(list(scores.logprobs))[None]
        weights = of_actions(samples, "loss_weight", logprobs)
        mask = weights > 0
        loss_map, figures = self.loss_map(samples, scores, logprobs, mask)
        per_sample = weighted(loss_map, weights)[0].split([len(piece) for piece in scores.logprobs])
        return Loss(
            torch.stack([part.sum() for part in per_sample]),
            {ENTROPY.name: mean_over(scores.entropy, mask), **figures},
        )


def mean_over(values: "Tensor | None", mask: "Tensor") -> Mean:
    """Mean of ``[N]`` values over the tokens of a ``[1, N]`` mask."""
    assert values is not None, "the model has no language model's head"
    return Mean(float(values[mask[0]].sum()), int(mask.sum()))


def mismatch_tallies(old: "Tensor", rollout: "Tensor", mask: "Tensor") -> Tallies:
    """An update's shares of ``MISMATCH``, from the log-probs of trainer and engine, ``[1, N]``."""
    from algorithms.maths.logprobs import logprob_mismatch

    gap = logprob_mismatch(old, rollout, mask)
    compared = int(mask.sum()) - gap.num_nonfinite
    shares = (Mean(gap.abs_mean * compared, compared), Most(gap.abs_max), Sum(gap.num_nonfinite))
    return {figure.name: share for figure, share in zip(MISMATCH, shares, strict=True)}
