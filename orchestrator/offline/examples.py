"""From a stored instruction to the token sequences that learn together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from algorithms.preference_registry import PreferenceAlgorithm
from orchestrator.batching import group_cost
from orchestrator.offline.choice import Choice, choose
from orchestrator.preference_store.records import Instruction, prompt_of
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Sequence

REFERENCE_TABLE = "reference"
"""Name of the side table with the reference's log-probs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an example may take, tokens."""

    max_prompt_tokens: int
    tokens_per_microbatch: int
    share_prompts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """The responses of one instruction that an algorithm learns from."""

    uid: str
    sequences: tuple[Sequence, ...]
    """One a response; ``sample_index`` is the response's place in the store."""
    pairs: tuple[tuple[int, int], ...]
    """Chosen and rejected, as indices of ``sequences``."""
    desirable: tuple[bool, ...]
    """For each sequence; empty where the algorithm asks for no labels."""
    ref_logprobs: tuple[np.ndarray, ...] | None
    """float32 ``[L]`` for each sequence, from a side table; None where none was joined."""


class ExampleEncoder:
    """Encodes instructions for one algorithm with the model's own template and tokenizer."""

    def __init__(
        self,
        encoder: PromptEncoder,
        algorithm: PreferenceAlgorithm,
        *,
        media_root: Path,
        score_margin: float,
        limits: Limits,
    ) -> None:
        self._encoder, self._algorithm = encoder, algorithm
        self._media_root, self._margin, self._limits = media_root, score_margin, limits

    def __call__(self, instruction: Instruction) -> Example | str:
        """The example, or why the instruction makes none: nothing is cut to fit."""
        choice = choose(instruction.responses, self._algorithm, score_margin=self._margin)
        if isinstance(choice, str):
            return choice
        sequences = self.sequences(instruction, choice.responses)
        # Different texts may be the same tokens, which no model could prefer one to the other.
        pairs = tuple(pair for pair in choice.pairs if _differ(*(sequences[i] for i in pair)))
        if self._algorithm.learns_from == "pairs" and not pairs:
            return "the two responses of its every pair are the same tokens"
        too_long = self._too_long(sequences, choice)
        if too_long is not None:
            return too_long
        ref_logprobs = _joined(instruction.side, choice)
        if ref_logprobs is not None and any(
            len(row) != len(s.input_ids) - s.prompt_len for row, s in zip(ref_logprobs, sequences, strict=True)
        ):
            return "the table of the reference has none of its log-probs"
        return Example(
            uid=instruction.uid,
            sequences=sequences,
            pairs=pairs,
            desirable=choice.desirable,
            ref_logprobs=ref_logprobs,
        )

    def all_sequences(self, instruction: Instruction) -> tuple[Sequence, ...]:
        """One for each response, whatever is learnt from it; nothing where one is too long."""
        sequences = self.sequences(instruction, tuple(range(len(instruction.responses))))
        limits = self._limits
        fit = all(
            s.prompt_len <= limits.max_prompt_tokens and len(s.input_ids) <= limits.tokens_per_microbatch
            for s in sequences
        )
        return sequences if fit else ()

    def sequences(self, instruction: Instruction, responses: tuple[int, ...]) -> tuple[Sequence, ...]:
        """Prompt and response, closed by one end of turn, for some of the instruction's responses."""
        prompt = self._encoder.encode(prompt_of(instruction, media_root=self._media_root))
        return tuple(
            Sequence(
                uid=instruction.uid,
                sample_index=index,
                input_ids=np.asarray(
                    (*prompt.prompt_ids, *self._encoder.encode_target(instruction.responses[index].text)), np.int64
                ),
                prompt_len=len(prompt.prompt_ids),
                media=prompt.media,
            )
            for index in responses
        )

    def _too_long(self, sequences: tuple[Sequence, ...], choice: Choice) -> str | None:
        limits, prompt_len = self._limits, sequences[0].prompt_len
        if prompt_len > limits.max_prompt_tokens:
            return f"its prompt has {prompt_len} tokens, data.max_prompt_tokens = {limits.max_prompt_tokens}"
        lengths = [len(s.input_ids) - prompt_len for s in sequences]
        # Without shared prompts every pair is a group of its own, so that the longest two bound all.
        together = lengths if limits.share_prompts else sorted(lengths)[-2:]
        cost = group_cost(prompt_len, together, share_prompts=limits.share_prompts)
        if cost > limits.tokens_per_microbatch:
            return (
                f"its {len(together)} responses take {cost} tokens together, "
                f"policy.tokens_per_microbatch = {limits.tokens_per_microbatch}"
            )
        return None


def _differ(one: Sequence, other: Sequence) -> bool:
    return not np.array_equal(one.input_ids, other.input_ids)


def _joined(side: Mapping[str, tuple[np.ndarray, ...]], choice: Choice) -> tuple[np.ndarray, ...] | None:
    if REFERENCE_TABLE not in side:
        return None
    return tuple(side[REFERENCE_TABLE][i] for i in choice.responses)
