"""What is too long is passed over, in every pass alike; what nothing is learned from costs nobody a place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.records import Example
from orchestrator.cluster.microbatches import group_cost
from orchestrator.data.examples import REFERENCE_TABLE, ExampleEncoder, Limits
from orchestrator.data.records import Instruction, Response
from tests.unit.algorithms.asks import learner
from tests.user_files import write_llava
from workers.multimodal.prompt_encoder import PromptEncoder

_FREE = Limits(max_prompt_tokens=10**6, tokens_per_microbatch=10**6, share_prompts=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    """A token is a byte."""
    return PromptEncoder(write_llava(tmp_path_factory.mktemp("llava") / "model"))


def _encode(encoder: PromptEncoder, algo: str, limits: Limits) -> ExampleEncoder:
    return ExampleEncoder(encoder, learner(algo).needs, media_root=Path(), score_margin=0.0, limits=limits)


def _instruction(*said: tuple[int, float | None], prompt: str = "which ?") -> Instruction:
    """Responses of so many tokens, the end of the turn apart, with a score each."""
    responses = tuple(Response(text="abcdefgh"[k] * length, score=score) for k, (length, score) in enumerate(said))
    messages = ({"role": "user", "content": [{"type": "text", "text": prompt}]},)
    return Instruction(uid="d-000001", split="train", messages=messages, media=(), responses=responses)


def _with_table(encode: ExampleEncoder, row: Instruction) -> Instruction:
    """The row as it is read with its table of reference log-probs."""
    lengths = {s.sample_index: len(s.input_ids) - s.prompt_len for s in encode.scorable_sequences(row)}
    values = tuple(np.zeros(lengths.get(index, 0), np.float32) for index in range(len(row.responses)))
    return replace(row, side={REFERENCE_TABLE: values})


def _told(made: Example | str) -> Any:
    if isinstance(made, str):
        return made
    return [s.sample_index for s in made.sequences], made.pairs, made.desirable


@pytest.mark.parametrize("algo", ["dpo", "kto_pair", "ddpo"])
def test_a_response_that_no_pair_uses_may_be_of_any_length(encoder: PromptEncoder, algo: str) -> None:
    row = _instruction((3, 5.0), (4, 2.0), (500, None))
    encode = _encode(encoder, algo, replace(_FREE, tokens_per_microbatch=100))
    assert [s.sample_index for s in encode.scorable_sequences(row)] == [0, 1]
    for read in (row, _with_table(encode, row)):
        assert _told(encode(read)) == ([0, 1], ((0, 1),), ())


@settings(max_examples=60, deadline=None)
@given(
    said=st.lists(st.tuples(st.integers(1, 60), st.sampled_from([None, 1.0, 2.0, 3.0])), min_size=1, max_size=5),
    algo=st.sampled_from(["dpo", "ddpo", "kto_pair", "sft", "scalar_rm"]),
    share=st.booleans(),
    bounds=st.tuples(*[st.integers(15, 120)] * 3),
)
def test_with_a_table_and_with_a_worker_a_run_trains_on_the_same(
    encoder: PromptEncoder,
    said: list[tuple[int, float | None]],
    algo: str,
    share: bool,
    bounds: tuple[int, int, int],
) -> None:
    row = _instruction(*said)
    limits = Limits(
        max_prompt_tokens=bounds[0], tokens_per_microbatch=bounds[1], positions=bounds[2], share_prompts=share
    )
    encode = _encode(encoder, algo, limits)
    made = encode(row)
    assert _told(encode(_with_table(encode, row))) == _told(made)
    whole = _encode(encoder, algo, replace(_FREE, share_prompts=share))(row)
    if isinstance(whole, str):
        assert made == whole
        return
    assert isinstance(made, Example) == _fits(whole, limits)
    assert " tokens" in made if isinstance(made, str) else _told(made) == _told(whole)


def _fits(example: Example, limits: Limits) -> bool:
    prompt_len = example.sequences[0].prompt_len
    lengths = [len(s.input_ids) for s in example.sequences]
    parts = [lengths] if limits.share_prompts or not example.pairs else [[lengths[i] for i in p] for p in example.pairs]
    costs = [group_cost(prompt_len, [n - prompt_len for n in p], share_prompts=limits.share_prompts) for p in parts]
    bound = min(limits.tokens_per_microbatch, limits.positions or 10**6)
    return (
        prompt_len <= limits.max_prompt_tokens and max(lengths) <= bound and max(costs) <= limits.tokens_per_microbatch
    )


def test_a_response_beyond_the_positions_of_the_model_is_not_trained(encoder: PromptEncoder) -> None:
    row = _instruction((3, 5.0), (400, 2.0))
    (short, long) = _encode(encoder, "dpo", _FREE).sequences(row, (0, 1))
    for bound, told in ((len(long.input_ids), None), (len(long.input_ids) - 1, "its response 2 and its prompt have")):
        made = _encode(encoder, "dpo", replace(_FREE, positions=bound))(row)
        assert isinstance(made, Example) if told is None else str(made).startswith(told)
    assert len(short.input_ids) < len(long.input_ids)


def test_labelled_responses_are_counted_as_they_learn(encoder: PromptEncoder) -> None:
    """Behind one prompt together; without shared prompts each in a group of its own."""
    row = _instruction((30, 5.0), (30, 4.0), (30, 1.0), (30, 0.5))
    (one, *_) = _encode(encoder, "kto", _FREE).sequences(row, (0,))
    alone = replace(_FREE, share_prompts=False, tokens_per_microbatch=len(one.input_ids) + 4)
    assert isinstance(_encode(encoder, "kto", alone)(row), Example)
    together = _encode(encoder, "kto", replace(alone, share_prompts=True))(row)
    assert isinstance(together, str) and together.startswith("4 of its responses take ")
