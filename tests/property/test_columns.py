"""Records on their way to ranks, and values on their way back: what arrives is what was sent."""

import pickle
from dataclasses import fields
from itertools import chain
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from algorithms.records import MediaRef, Sequence, TrainSample
from algorithms.tokens import action_masks, stacked, step_weights
from orchestrator.cluster.feed import completion_sequences
from workers.columns import Microbatches, Rows, Slots
from workers.types import Completion, Completions, GenerationRequest

_SHAPES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=8)
"""Prompt, its length and the response's."""
_IMAGE = MediaRef(sha256="a" * 64, path="/a", width=1, height=1)


def _samples(shapes: list[tuple[int, int, int]]) -> list[TrainSample]:
    rng, samples = np.random.default_rng(len(shapes)), []
    for number, (prompt, prompt_len, length) in enumerate(shapes):
        ids = np.concatenate([np.full(prompt_len, prompt), rng.integers(0, 2**31 - 1, length)])
        sequence = Sequence(
            uid=f"p{prompt}", sample_index=number, input_ids=ids, prompt_len=prompt_len, media=(_IMAGE,) * prompt
        )
        slots = [rng.random(prompt_len + length).astype(np.float32) for _ in range(2)]
        samples.append(
            TrainSample(
                sequence=sequence, loss_weight=rng.random(len(ids)), advantages=slots[0], old_logprobs=None,
                rollout_logprobs=slots[1],
            )
        )  # fmt: skip
    return samples


def _told(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    if isinstance(value, Sequence | TrainSample):
        return type(value), [_told(getattr(value, field.name)) for field in fields(value)]
    return value


@given(_SHAPES, st.integers(0, 8))
def test_records_arrive_as_they_were_sent(shapes: list[tuple[int, int, int]], cut: int) -> None:
    samples = _samples(shapes)
    batches = [samples[:cut], samples[cut:], []]
    for sent in (batches, [[s.sequence for s in batch] for batch in batches], [["any", 1], [None]]):
        arrived = pickle.loads(pickle.dumps(Microbatches(sent), protocol=5))  # noqa: S301
        assert [[_told(one) for one in batch] for batch in arrived] == [[_told(one) for one in b] for b in sent]
        whole = pickle.loads(pickle.dumps(Rows(chain.from_iterable(sent)), protocol=5))  # noqa: S301
        assert [_told(one) for one in whole] == [_told(one) for one in chain.from_iterable(sent)]


@given(st.lists(st.sampled_from(["<i4", "<f4", "<f8", "|b1", "<i2", "<U3", "|O"]), max_size=4), st.integers(0, 5))
def test_arrays_arrive_with_their_kind(kinds: list[str], length: int) -> None:
    sent = [[np.arange(length + number).astype(kind) for number in range(3)] for kind in kinds]
    buffered = list[memoryview]()
    message = pickle.dumps(Microbatches(sent), protocol=5, buffer_callback=lambda b: buffered.append(b.raw()))
    arrived = pickle.loads(message, buffers=buffered)  # noqa: S301
    assert [[_told(row) for row in batch] for batch in arrived] == [[_told(row) for row in batch] for batch in sent]


@given(_SHAPES)
def test_values_arrive_on_the_tokens_that_were_sampled(shapes: list[tuple[int, int, int]]) -> None:
    rows = [np.zeros(prompt_len + length, np.float32) for _, prompt_len, length in shapes]
    for row, (_, prompt_len, length) in zip(rows, shapes, strict=True):
        row[prompt_len:] = np.arange(length) - 0.5
    slots = Slots(rows, [prompt_len for _, prompt_len, _ in shapes])
    arrived = pickle.loads(pickle.dumps(slots, protocol=5))  # noqa: S301
    assert [_told(row) for row in arrived] == [_told(row) for row in rows]


@given(_SHAPES, st.sampled_from(["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"]))
def test_masks_and_weights_are_those_of_a_plain_loop(shapes: list[tuple[int, int, int]], mode: Any) -> None:
    sequences = [s.sequence for s in _samples(shapes)]
    mask = stacked([s.action_mask.astype(np.float32) for s in sequences]).bool()
    assert action_masks(sequences).tolist() == mask.tolist()
    counted = [int(s.action_mask.sum()) for s in sequences]
    for s, weight in zip(sequences, step_weights(sequences, aggregation=mode, longest_response=7), strict=True):
        plain = s.action_mask / (max(sum(counted), 1) if mode == "token-mean" else max(sum(n > 0 for n in counted), 1))
        if mode == "seq-mean-token-mean":
            plain = plain / max(int(s.action_mask.sum()), 1)
        assert weight.tolist() == (plain / 7 if mode == "seq-mean-token-sum-norm" else plain).tolist()


@given(_SHAPES)
def test_sequences_are_prompts_with_what_was_sampled_for_them(shapes: list[tuple[int, int, int]]) -> None:
    requests = [
        GenerationRequest(
            uid=f"p{number}", sample_index=0, engine_prompt_ids=(1,), prompt_ids=(prompt,) * prompt_len, media=(),
            seed=0, max_new_tokens=5, temperature=1.0,
        )
        for number, (prompt, prompt_len, _) in enumerate(shapes)
    ]  # fmt: skip
    completions = Completions.of(
        Completion(
            uid=f"p{number}", sample_index=0, completion_ids=np.arange(length, dtype=np.int32), engine="e",
            rollout_logprobs=np.zeros(length, np.float32), finish_reason="stop", policy_version=0,
        )
        for number, (_, _, length) in enumerate(shapes)
    )  # fmt: skip
    joint = completion_sequences(requests, completions)
    assert [(s.uid, s.prompt_len, s.input_ids.tolist()) for s in joint] == [
        (r.uid, len(r.prompt_ids), [*r.prompt_ids, *range(length)])
        for r, (_, _, length) in zip(requests, shapes, strict=True)
    ]
