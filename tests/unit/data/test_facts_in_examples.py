"""What a reward model that is told the facts learns from: each response with the facts behind it, or a reason."""

from pathlib import Path

import numpy as np
import pytest

from algorithms.algorithm import Needs, ScalarHead
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.records import Instruction, Response
from tests.user_files import write_llava
from workers.multimodal.fact_format import FactFormat
from workers.multimodal.prompt_encoder import PromptEncoder

_ASKED = "Facts: {facts} Good?"
_NEEDS = Needs(data=("preferences",), responses="pairs", head=ScalarHead(request=_ASKED, opening="It is"), facts=True)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(write_llava(tmp_path_factory.mktemp("llava") / "model"))


def _encode(encoder: PromptEncoder, *, tokens: int = 10**6) -> ExampleEncoder:
    limits = Limits(max_prompt_tokens=10**6, tokens_per_microbatch=tokens, share_prompts=True)
    facts = FactFormat(encoder, template=_ASKED, opening="It is")
    return ExampleEncoder(encoder, _NEEDS, media_root=Path(), score_margin=0.0, limits=limits, facts=facts)


def _row(facts: list[str] | None, *texts: str) -> Instruction:
    return Instruction(
        uid="d-000001",
        split="train",
        messages=({"role": "user", "content": [{"type": "text", "text": "which ?"}]},),
        media=(),
        responses=tuple(Response(text=text, rank=rank) for rank, text in enumerate(texts, start=1)),
        meta={} if facts is None else {"facts": facts},
    )


def test_each_response_is_read_with_the_facts_and_only_with_them(encoder: PromptEncoder) -> None:
    example = _encode(encoder)(_row(["a cat", "a dog"], "yes", "no way", "nobody"))
    assert not isinstance(example, str)
    assert example.pairs == ((0, 1), (0, 2), (1, 2)) and not example.critique_starts
    opening, ends = encoder.encode_text("It is"), set[tuple[int, ...]]()
    for sequence, start, text in zip(example.sequences, example.fact_starts, ("yes", "no way", "nobody"), strict=True):
        ids = tuple(int(i) for i in sequence.input_ids)
        assert ids[sequence.prompt_len : start] == encoder.encode_text(text)
        told = encoder.decode(ids[start:])
        assert told.count("a cat") == told.count("a dog") == 1
        assert ids[-len(opening) :] == opening
        ends.add(ids[start:])
    assert len(ends) == 1, "all are told the same in the same order"


@pytest.mark.parametrize("facts", [None, []])
def test_a_row_without_facts_is_not_learned_from(encoder: PromptEncoder, facts: list[str] | None) -> None:
    assert (
        _encode(encoder)(_row(facts, "yes", "no"))
        == "it has no facts, which the reward model is told: give them in the row, or by data.facts"
    )


def test_facts_count_in_a_samples_length(encoder: PromptEncoder) -> None:
    short, long = _row(["a cat"], "yes", "no"), _row(["a cat " * 50], "yes", "no")
    encode = _encode(encoder, tokens=120)
    assert not isinstance(encode(short), str)
    assert "policy.tokens_per_microbatch = 120" in str(encode(long))


def test_responses_of_the_same_words_make_no_pair(encoder: PromptEncoder) -> None:
    told = _encode(encoder)(_row(["a cat"], "yes", "yes", "no"))
    assert not isinstance(told, str)
    assert told.pairs == ((0, 2), (1, 2)) and len(told.fact_starts) == 3
    assert np.array_equal(told.sequences[0].input_ids, told.sequences[1].input_ids)
