"""From a stored instruction to the token sequences that learn together."""

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from algorithms.algorithm import Needs
from algorithms.records import Example, Sequence, WeighedPairs
from orchestrator.cluster.microbatches import group_cost
from orchestrator.data.choice import Choice, choose, without_strangers
from orchestrator.data.facts import META
from orchestrator.data.records import Instruction, prompt_of
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.fact_format import FactFormat
from workers.multimodal.processor import UnfitImageError
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import UnusablePrompt

REFERENCE_TABLE, REWARD_TABLE = "reference", "reward"
"""Names of the side tables: the reference's log-probs, the critique reward model's rewards."""
FACTOR = "ls_factor"
"""Name under which a reader keeps the factors that came with the data."""


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


@dataclass(frozen=True, slots=True)
class _Spelt:
    """What an algorithm reads of some responses; see ``Example``."""

    sequences: tuple[Sequence, ...]
    critique_starts: tuple[int, ...] = ()
    fact_starts: tuple[int, ...] = ()
    engine_prompt_ids: tuple[int, ...] = ()

    def only(self, kept: Seq[int]) -> "_Spelt":
        """Of the responses at these places."""
        return replace(
            self,
            sequences=tuple(self.sequences[i] for i in kept),
            critique_starts=tuple(self.critique_starts[i] for i in kept if self.critique_starts),
            fact_starts=tuple(self.fact_starts[i] for i in kept if self.fact_starts),
        )


class ExampleEncoder:
    """Encodes instructions for one algorithm with the model's own template and tokenizer."""

    def __init__(
        self,
        encoder: PromptEncoder,
        needs: Needs,
        *,
        media_root: Path,
        score_margin: float,
        limits: Limits,
        critiques: CritiqueFormat | None = None,
        facts: FactFormat | None = None,
        weigh: Callable[..., WeighedPairs | str] | None = None,
    ) -> None:
        """
        Args:
            critiques: How a critique is asked for, where the algorithm learns to write them.
            facts: How facts are told, where the algorithm reads responses with them.
            weigh: The algorithm's own, where each pair has a β of its own.
        """
        self._encoder, self._needs, self._weigh = encoder, needs, weigh
        self._critiques, self._facts = critiques, facts
        self._media_root, self._margin, self._limits = media_root, score_margin, limits

    def __call__(self, instruction: Instruction) -> Example | str:
        """The example, or why the instruction makes none: nothing is cut to fit."""
        choice = choose(instruction.responses, self._needs, score_margin=self._margin)
        if isinstance(choice, str):
            return choice
        try:
            spelt = self._spelt(instruction, choice.responses)
        except UnusablePrompt as error:
            return error.reason
        except UnfitImageError as error:
            return f"its {error}"
        if isinstance(spelt, str):
            return spelt
        # Different texts may be the same tokens, which no model could prefer one to the other.
        ends = spelt.critique_starts or [None] * len(spelt.sequences)
        read = [s.input_ids[:end] for s, end in zip(spelt.sequences, ends, strict=True)]
        different = tuple((c, r) for c, r in choice.pairs if not np.array_equal(read[c], read[r]))
        if self._needs.responses == "pairs":
            if not different:
                return "the two responses of its every pair are the same tokens"
            choice, kept = without_strangers(replace(choice, pairs=different))
            spelt = spelt.only(kept)
        else:
            choice = replace(choice, pairs=different)
        sequences = spelt.sequences
        reason = too_long(sequences, self._together(choice), self._limits)
        if reason is not None:
            return reason
        table = instruction.side.get(REFERENCE_TABLE)
        ref_logprobs = None if table is None else tuple(table[i] for i in choice.responses)
        if ref_logprobs is not None and any(
            len(row) != len(s.input_ids) - s.prompt_len for row, s in zip(ref_logprobs, sequences, strict=True)
        ):
            return "the table of the reference has none of its log-probs"
        example = Example(
            uid=instruction.uid,
            sequences=sequences,
            pairs=choice.pairs,
            ties=choice.ties,
            critique_starts=spelt.critique_starts,
            fact_starts=spelt.fact_starts,
            engine_prompt_ids=spelt.engine_prompt_ids,
            desirable=choice.desirable,
            ref_logprobs=ref_logprobs,
        )
        return example if self._weigh is None else self._weighed(example, instruction, choice)

    def _weighed(self, example: Example, instruction: Instruction, choice: Choice) -> Example | str:
        assert self._weigh is not None
        weighed = self._weigh(
            instruction.uid,
            tuple((choice.responses[c], choice.responses[r]) for c, r in example.pairs),
            rewards=instruction.side.get(REWARD_TABLE),
            factors={(c, r): f for c, r, f in instruction.meta.get(FACTOR, ())},
        )
        if isinstance(weighed, str):
            return weighed
        at = {index: position for position, index in enumerate(choice.responses)}
        return replace(
            example,
            pairs=tuple((at[c], at[r]) for c, r in weighed.pairs),
            betas=weighed.betas,
            margins=weighed.margins,
            num_dropped=weighed.num_dropped,
        )

    def scorable_sequences(self, instruction: Instruction) -> tuple[Sequence, ...]:
        """One for each response that any algorithm could learn from: whose prompt fits, and which fits behind it.

        A response that is too long costs no other its place: who learns from the others need not know of it.
        """
        try:
            sequences = self.sequences(instruction, tuple(range(len(instruction.responses))))
        except (UnfitImageError, UnusablePrompt):
            return ()
        if not sequences or prompt_too_long(sequences[0], self._limits) is not None:
            return ()
        return tuple(s for s in sequences if sequence_too_long(s, self._limits) is None)

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

    def _spelt(self, instruction: Instruction, responses: tuple[int, ...]) -> "_Spelt | str":
        """What the algorithm reads of each response, or why it cannot."""
        if self._facts is not None:
            return self._with_facts(instruction, responses, self._facts)
        if self._critiques is None:
            return _Spelt(self.sequences(instruction, responses))
        prompt = prompt_of(instruction, media_root=self._media_root)
        chosen = [instruction.responses[index] for index in responses]
        asked = [self._critiques.ask(prompt, response.text) for response in chosen]
        sequences = tuple(
            self._critiques.answered(one, index, self._encoder.encode_target(response.critique or ""))
            for one, index, response in zip(asked, responses, chosen, strict=True)
        )
        starts = tuple(one.critique_start for one in asked)
        return _Spelt(sequences, critique_starts=starts, engine_prompt_ids=asked[0].prompt.engine_prompt_ids)

    def _with_facts(self, instruction: Instruction, responses: tuple[int, ...], spelling: FactFormat) -> "_Spelt | str":
        facts, prompt = instruction.meta.get(META, ()), prompt_of(instruction, media_root=self._media_root)
        if not facts:
            return "it has no facts, which the reward model is told: give them in the row, or by data.facts"
        try:
            told = [spelling.scored(prompt, instruction.responses[i].text, facts, sample_index=i) for i in responses]
        except (UnusablePrompt, UnfitImageError):
            raise
        except ValueError as error:
            return str(error)
        return _Spelt(tuple(one.sequence for one in told), fact_starts=tuple(one.start for one in told))

    def _together(self, choice: Choice) -> list[tuple[int, ...]]:
        """Which responses are in one micro-batch: see ``GroupMaker`` and ``reward_groups``."""
        if self._needs.responses == "pairs" and not self._limits.share_prompts:
            return [*choice.pairs, *choice.ties]
        if self._needs.responses == "labels" and not self._limits.share_prompts:
            return [(i,) for i in range(len(choice.responses))]
        return [tuple(range(len(choice.responses)))]
