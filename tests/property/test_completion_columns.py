"""Completions as columns: a row says what was put in, in whatever order and parts it went."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.records import MediaRef
from workers.columns import Rows
from workers.types import Completion, Completions, GenerationRequest, joined

_ROWS = st.lists(
    st.tuples(
        st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(width=32, allow_nan=True)), max_size=5),
        st.sampled_from(["stop", "length", "abort"]),
        st.integers(0, 9),
    ),
    max_size=8,
)


def _completions(rows: list[tuple[list[tuple[int, float]], str, int]]) -> list[Completion]:
    return [
        Completion(
            uid=f"p{number // 3}",
            sample_index=number % 3,
            completion_ids=np.array([token for token, _ in tokens], np.int32),
            rollout_logprobs=np.array([logprob for _, logprob in tokens], np.float32),
            finish_reason=reason,  # type: ignore[arg-type]
            policy_version=version,
            engine=f"rollout-{version}",
        )
        for number, (tokens, reason, version) in enumerate(rows)
    ]


def _told(row: Completion) -> tuple[object, ...]:
    said = (row.uid, row.sample_index, row.finish_reason, row.policy_version, row.engine)
    return (*said, row.completion_ids.dtype, row.completion_ids.tolist(), row.rollout_logprobs.tobytes())


@given(_ROWS)
def test_rows_of_columns_are_the_rows_that_were_put_in(rows: list[tuple[list[tuple[int, float]], str, int]]) -> None:
    put_in = _completions(rows)
    columns = pickle.loads(pickle.dumps(Completions.of(put_in), protocol=5))  # noqa: S301
    assert [_told(row) for row in columns] == [_told(row) for row in put_in]
    assert columns.lengths.tolist() == [len(row.completion_ids) for row in put_in]
    assert [row.tolist() for row in columns.ids()] == [row.completion_ids.tolist() for row in put_in]
    assert [row.tobytes() for row in columns.logprobs()] == [row.rollout_logprobs.tobytes() for row in put_in]
    assert [_told(row) for row in columns[1:]] == [_told(row) for row in put_in[1:]]
    assert put_in == [] or _told(columns[-len(put_in)]) == _told(put_in[0])
    assert not put_in or np.shares_memory(columns[0].completion_ids, columns.completion_ids) or not rows[0][0]


@given(_ROWS, st.data())
def test_parts_join_in_the_order_that_is_asked_for(
    rows: list[tuple[list[tuple[int, float]], str, int]], data: st.DataObject
) -> None:
    put_in = _completions(rows)
    shuffled = data.draw(st.permutations(put_in))
    cut = data.draw(st.integers(0, len(put_in)))
    parts = [Completions.of(shuffled[:cut]), Completions.of(shuffled[cut:])]
    order = [(row.uid, row.sample_index) for row in put_in]
    assert [_told(row) for row in joined(parts, order)] == [_told(row) for row in put_in]


@given(_ROWS, st.data())
def test_behind_their_prompts_rows_are_the_same(
    rows: list[tuple[list[tuple[int, float]], str, int]], data: st.DataObject
) -> None:
    put_in = _completions(rows)
    prompts = [np.arange(data.draw(st.integers(0, 3)), dtype=np.int32) for _ in put_in]
    columns = Completions.of(put_in).behind(prompts)
    assert [_told(row) for row in columns] == [_told(row) for row in put_in]
    assert columns.prompt_lens == [len(prompt) for prompt in prompts]
    ids, logprobs = columns.with_prompts()
    assert [row.tolist() for row in ids] == [
        [*prompt.tolist(), *row.completion_ids.tolist()] for prompt, row in zip(prompts, put_in, strict=True)
    ]
    assert [row.tobytes() for row in logprobs] == [
        bytes(4 * len(prompt)) + row.rollout_logprobs.tobytes() for prompt, row in zip(prompts, put_in, strict=True)
    ]
    order = [(row.uid, row.sample_index) for row in put_in]
    assert [_told(row) for row in joined([columns], order)] == [_told(row) for row in put_in]


def test_a_row_that_there_is_not_is_an_index_error() -> None:
    for columns in (Completions.of([]), Completions.of(_completions([([(1, 0.0)], "stop", 0)]))):
        with pytest.raises(IndexError):
            columns[len(columns)]


def test_requests_travel_whole() -> None:
    image = MediaRef(sha256="a" * 64, path="/a", width=1, height=2)
    prompts = [(1, 1), (1, 2), (1, 3)]
    requests = [
        GenerationRequest(
            uid=f"p{index // 2}", sample_index=index, engine_prompt_ids=(1,), prompt_ids=prompts[index // 2],
            media=(image,) * (index // 2), seed=2**40 + index, max_new_tokens=3, temperature=0.5, top_p=0.25,
        )
        for index in range(5)
    ]  # fmt: skip
    arrived = pickle.loads(pickle.dumps(Rows(requests), protocol=5))  # noqa: S301
    assert list(arrived) == requests
    assert arrived[0].prompt_ids is arrived[1].prompt_ids, "samples of a prompt share it on the other side too"
