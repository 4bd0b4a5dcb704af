"""Scheduled sampling of a critique reward model: on some steps rewards are read off critiques that it wrote itself.

Trained on people's critiques alone, the head never sees what it is given when it serves: the model's own. MM-RLHF's
reward model is right on 0.93 of the pairs with people's critiques and on 0.85 with its own (table 4,
https://arxiv.org/abs/2502.10391). The cross-entropy stays with people's critiques on every step.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from algorithms.critique_rm import comparisons
from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.engines import Engines
from orchestrator.cluster.microbatches import group_cost
from orchestrator.run.cursor import sample_seed
from workers.types import Completion, EncodedPrompt, GenerationRequest

_SEED_RANGE = float(2**63)


class GeneratedCritiques:
    """Lets the engines write critiques with the weights of the moment."""

    def __init__(
        self,
        open_engines: Callable[[Callable[[], list[EncodedPrompt]]], Engines],
        *,
        share: float,
        seed: int,
        max_new_tokens: int,
        max_model_len: int,
        probe_prompts: int,
    ) -> None:
        """
        Args:
            open_engines: Given who names prompts that an engine can be verified with, returns the engines.
            share: Of the steps.
            max_new_tokens: Longest critique.
            max_model_len: Most tokens an engine takes, critique included.
            probe_prompts: Prompts that each sync is verified with.
        """
        self._share, self._seed = share, seed
        self._probe: list[EncodedPrompt] = []
        self._engines = open_engines(lambda: self._probe)
        self._max_new_tokens, self._max_model_len, self._probe_prompts = max_new_tokens, max_model_len, probe_prompts

    def is_due(self, step: int) -> bool:
        """Whether a step is one of the share; the same for the same seed."""
        return sample_seed(self._seed, "scheduled sampling", 0, step) / _SEED_RANGE < self._share

    def write(
        self, examples: Sequence[Example], policy_version: int, *, together: bool, token_budget: int
    ) -> list[list[TokenSequence | None]]:
        """For each example, for each of its sequences, the same with the model's own critique.

        None where the critique was cut, or where there was no room for one in a micro-batch of ``token_budget`` tokens.

        Args:
            together: An example's responses learn in one row, else those of a comparison.
        """
        requests = [r for e in examples for r in self._requests(e)]
        self._probe = _prompts(examples[: self._probe_prompts])
        self._engines.sync(policy_version, self._probe)
        written = {(c.uid, c.sample_index): c for c in self._engines.sample(requests)} if requests else {}
        self._engines.sleep()
        told = [
            [_with_critique(e, i, written.get((e.uid, s.sample_index))) for i, s in enumerate(e.sequences)]
            for e in examples
        ]
        return with_room(examples, told, together=together, token_budget=token_budget)

    def _requests(self, example: Example) -> list[GenerationRequest]:
        requests = []
        for sequence, start in zip(example.sequences, example.critique_starts, strict=True):
            if start + self._max_new_tokens > self._max_model_len:
                continue
            asked = tuple(sequence.input_ids[sequence.prompt_len : start].tolist())
            requests.append(
                GenerationRequest(
                    uid=example.uid,
                    sample_index=sequence.sample_index,
                    engine_prompt_ids=(*example.engine_prompt_ids, *asked),
                    prompt_ids=tuple(sequence.input_ids[:start].tolist()),
                    media=sequence.media,
                    seed=0,
                    max_new_tokens=self._max_new_tokens,
                    temperature=0.0,
                )
            )
        return requests


def _prompts(examples: Sequence[Example]) -> list[EncodedPrompt]:
    firsts = [(e, e.sequences[0]) for e in examples]
    return [
        EncodedPrompt(
            uid=e.uid,
            engine_prompt_ids=e.engine_prompt_ids,
            prompt_ids=tuple(s.input_ids[: s.prompt_len].tolist()),
            media=s.media,
        )
        for e, s in firsts
    ]


def _with_critique(example: Example, index: int, completion: Completion | None) -> TokenSequence | None:
    if completion is None or completion.finish_reason != "stop":
        return None
    sequence = example.sequences[index]
    asked = sequence.input_ids[: example.critique_starts[index]]
    return replace(sequence, input_ids=np.concatenate([asked, completion.completion_ids.astype(np.int64)]))


def with_room(
    examples: Sequence[Example],
    generated: Sequence[Sequence[TokenSequence | None]],
    *,
    together: bool,
    token_budget: int,
) -> list[list[TokenSequence | None]]:
    """``generated`` without the longest ones, where a group would not fit into a micro-batch with them."""
    return [
        _with_room(example, list(row), together=together, token_budget=token_budget)
        for example, row in zip(examples, generated, strict=True)
    ]


def _with_room(
    example: Example, row: list[TokenSequence | None], *, together: bool, token_budget: int
) -> list[TokenSequence | None]:
    prompt_len = example.sequences[0].prompt_len
    for pairs, ties in comparisons(example, together=together):
        used = {i for pair in (*pairs, *ties) for i in pair}
        while added := {i: len(s.input_ids) - prompt_len for i in used if (s := row[i]) is not None}:
            own = [len(example.sequences[i].input_ids) - prompt_len for i in used]
            if group_cost(prompt_len, [*own, *added.values()], share_prompts=together) <= token_budget:
                break
            row[max(added, key=lambda i: (added[i], i))] = None
    return row
