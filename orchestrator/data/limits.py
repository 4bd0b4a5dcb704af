"""How long an example may be: what is longer is passed over and counted, nothing is cut to fit."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from algorithms.records import Sequence
from orchestrator.cluster.microbatches import group_cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an example may take, tokens."""

    max_prompt_tokens: int
    tokens_per_microbatch: int
    share_prompts: bool
    positions: int | None = None
    """That the model has; None = without end."""


def prompt_too_long(sequence: Sequence, limits: Limits) -> str | None:
    """Why its prompt cannot be learned from; None where it can."""
    if sequence.prompt_len <= limits.max_prompt_tokens:
        return None
    return f"its prompt has {sequence.prompt_len} tokens, data.max_prompt_tokens = {limits.max_prompt_tokens}"


def sequence_too_long(sequence: Sequence, limits: Limits) -> str | None:
    """Why a response cannot even be read alone; None where it can."""
    length, which = len(sequence.input_ids), f"its response {sequence.sample_index + 1}"
    if limits.positions is not None and length > limits.positions:
        return f"{which} and its prompt have {length} tokens, the model has {limits.positions} positions"
    if length > limits.tokens_per_microbatch:
        bound = limits.tokens_per_microbatch
        return f"{which} and its prompt have {length} tokens, policy.tokens_per_microbatch = {bound}"
    return None


def too_long(sequences: Seq[Sequence], together: Seq[Seq[int]], limits: Limits) -> str | None:
    """Why responses to one prompt cannot be learned from; None where they can.

    Args:
        together: Which of them are in one micro-batch, as indices; those that are in none do not count.
    """
    used = sorted({i for part in together for i in part})
    reasons = [prompt_too_long(sequences[0], limits), *(sequence_too_long(sequences[i], limits) for i in used)]
    for part in together:
        prompt_len, lengths = sequences[0].prompt_len, [len(sequences[i].input_ids) for i in part]
        cost = group_cost(prompt_len, [n - prompt_len for n in lengths], share_prompts=limits.share_prompts)
        if cost > limits.tokens_per_microbatch:
            reasons.append(
                f"{len(part)} of its responses take {cost} tokens together, "
                f"policy.tokens_per_microbatch = {limits.tokens_per_microbatch}"
            )
    return next((reason for reason in reasons if reason is not None), None)
