"""Examples without a model: prompts and responses of given lengths, and numbers for log-probs."""

from collections.abc import Sequence as Seq

import numpy as np

from algorithms.records import Example, Sequence

PROMPT = 3


def example(
    uid: str,
    completions: Seq[Seq[int]],
    *,
    pairs: tuple[tuple[int, int], ...] = (),
    desirable: tuple[bool, ...] = (),
) -> Example:
    """One sequence for each list of completion ids."""
    sequences = tuple(
        Sequence(
            uid=uid,
            sample_index=k,
            input_ids=np.array([1] * PROMPT + list(ids), np.int64),
            prompt_len=PROMPT,
            media=(),
        )
        for k, ids in enumerate(completions)
    )
    return Example(uid=uid, sequences=sequences, pairs=pairs, desirable=desirable, ref_logprobs=None)


def logprobs(examples: Seq[Example], *, seed: int) -> list[list[np.ndarray]]:
    """Random float32 log-probs of every response."""
    rng = np.random.default_rng(seed)
    return [[rng.normal(-1, 0.3, len(s.input_ids) - PROMPT).astype(np.float32) for s in e.sequences] for e in examples]
