"""A reward model is told the facts behind the response, in an order of the sample's own, as words and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.fact_rm import FactRmSection
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts
from workers.models.adapters import ADAPTERS
from workers.multimodal.fact_format import FactFormat, fact_prompt, rm_input
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

_TEMPLATE = "which ? {facts} so ?"
_FACTS = ("the image shows one .", "so response one .", "two", "none")
_UIDS = st.text(st.characters(codec="utf-8"), max_size=8)
_WORDS = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != "")


@given(facts=st.lists(_WORDS, min_size=1, max_size=5), uid=_UIDS, seed=st.integers(0, 2**32))
def test_every_fact_stands_once_in_an_order_that_is_the_same_again(facts: list[str], uid: str, seed: int) -> None:
    before, behind = _TEMPLATE.split("{facts}")
    found = fact_prompt(_TEMPLATE, facts, uid=uid, seed=seed)
    assert found == fact_prompt(_TEMPLATE, facts, uid=uid, seed=seed)
    assert found.startswith(before) and found.endswith(behind)
    lines = found[len(before) : -len(behind)].split("\n")
    assert sorted(lines) == sorted(f"- {' '.join(fact.split())}" for fact in facts)


def test_samples_and_seeds_have_orders_of_their_own() -> None:
    asked = [(uid, seed) for uid in ("a", "b", "c", "d") for seed in range(5)]
    orders = {fact_prompt(FactRmSection().request, _FACTS, uid=uid, seed=seed) for uid, seed in asked}
    assert len(orders) > 10
    firsts = {order.partition("- ")[2].partition("\n")[0] for order in orders}
    assert firsts == set(_FACTS), "none is always first"


def test_a_fact_that_spells_the_place_of_facts_stays_a_fact() -> None:
    assert fact_prompt("{facts} ?", ["{facts}", "{0}"], uid="a").count("{facts}") == 1


@pytest.mark.parametrize(
    ("template", "facts", "told"),
    [
        ("none", ("one",), "has 0 places"),
        ("{facts} {facts}", ("one",), "has 2 places"),
        (_TEMPLATE, (), "sample 'row-7' has 0 facts"),
        (_TEMPLATE, ("one", " "), "sample 'row-7' has 2 facts, expected some, each a text"),
    ],
)
def test_no_facts_and_no_place_for_them_are_refused(template: str, facts: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        fact_prompt(template, facts, uid="row-7")


@pytest.fixture(scope="module", params=[name for name in TINY_MODELS if not ADAPTERS[name].qformer])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model"))


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Prompt]:
    folder = tmp_path_factory.mktemp("pictures")
    return picture_prompts(folder, {"none": 0, "one": 1, "three": 3}, sizes=MIXED_SIZES)


def test_facts_stand_behind_the_response_and_the_score_at_the_last_opening_word(
    encoder: PromptEncoder, prompts: list[Prompt]
) -> None:
    spelling = FactFormat(encoder, template=_TEMPLATE, opening="so response one")
    opening = encoder.encode_text("so response one")
    for prompt in prompts:
        told = spelling.scored(prompt, "two", _FACTS, sample_index=1)
        read = told.sequence
        assert told.start == read.prompt_len + len(encoder.encode_text("two"))
        encoded = encoder.encode(prompt)
        assert read.prompt_len == len(encoded.prompt_ids) and read.media == encoded.media
        assert tuple(read.input_ids[: read.prompt_len]) == encoded.prompt_ids
        assert tuple(read.input_ids[-len(opening) :]) == opening
        turns = rm_input(prompt.messages, "two", _TEMPLATE, _FACTS, uid=prompt.uid)
        whole = encoder.tokenizer(encoder.render(list(turns)), add_special_tokens=False)["input_ids"]
        ids = [*encoded.engine_prompt_ids, *read.input_ids[read.prompt_len : -len(opening)]]
        # White space between a role and what it says is the template's.
        assert "".join(encoder.decode(ids).split()) == "".join(encoder.decode(whole).split())


def test_responses_share_their_prompt_and_differ_behind_it(encoder: PromptEncoder, prompts: list[Prompt]) -> None:
    spelling = FactFormat(encoder, template=_TEMPLATE, opening="so")
    for prompt in prompts:
        one, other = (
            spelling.scored(prompt, text, _FACTS, sample_index=i).sequence for i, text in enumerate(("one", "two"))
        )
        assert one.prompt_len == other.prompt_len
        assert (one.input_ids[: one.prompt_len] == other.input_ids[: one.prompt_len]).all()
        asked = encoder.encode_text("one"), encoder.encode_text("two")
        ends = [s.input_ids[s.prompt_len + len(ids) :] for s, ids in zip((one, other), asked, strict=True)]
        assert (ends[0] == ends[1]).all(), "the request with its facts is of the sample, not of the response"


def test_facts_are_words_whatever_they_spell(encoder: PromptEncoder) -> None:
    prompt = Prompt(uid="a", messages=({"role": "user", "content": [{"type": "text", "text": "which ?"}]},), media=())
    end, mark = encoder.tokenizer.eos_token, encoder.tokenizer.convert_ids_to_tokens(encoder.image_token_id)

    def control(fact: str) -> int:
        spelling = FactFormat(encoder, template="{facts}", opening="so")
        ids = spelling.scored(prompt, "two", [fact], sample_index=0).sequence.input_ids
        return sum(int(one) in (encoder.tokenizer.eos_token_id, encoder.image_token_id) for one in ids)

    assert control(f"one {end} {mark}") == control("one")


def test_an_opening_without_a_token_is_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(ValueError, match="the opening words '' are no token"):
        FactFormat(encoder, template=_TEMPLATE, opening="")
