"""Whatever a conversation's texts spell, control tokens stand where its template put them and nowhere else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import AutoTokenizer

from algorithms.records import MediaRef
from orchestrator.tasks.digits_model import build_digits_model
from tests.released_tokenizers import BOS_TEMPLATE
from tests.tiny_models import TINY_MODELS, write_released_qwen2_5_vl
from workers.models.adapters import ADAPTERS
from workers.multimodal.instructions import num_images, texts, with_texts
from workers.multimodal.prompt_encoder import PromptEncoder, Rendered
from workers.multimodal.word_tokenizer import Masks
from workers.types import Prompt

_SPELT = [
    "<image>", "<|image_pad|>", "<|vision_start|>", "<|im_end|>", "<|im_start|>", "</s>", "<s>", "<unk>", "<pad>",
    "<IMG_CONTEXT>", "<img>", "<video>", "<|endoftext|>", "[INST]", "[/INST]", "<think>", "</think>", "<tool_call>",
]  # fmt: skip
_FRAGMENTS = ["<", "<|", "<|im_", "end|>", "<im", "age>", "</", "s>", "|", "<<image>>", "<|im_<|im_end|>"]
_PLAIN = ["What is", " the number", "?", "  ", "\n", "4", "é", "😀", "\t", "\U000f0000", "\ue000", "user", "assistant"]
plain_texts = st.lists(st.sampled_from(_PLAIN), min_size=1, max_size=6).map("".join)
any_texts = st.lists(st.sampled_from(_SPELT + _FRAGMENTS + _PLAIN), min_size=1, max_size=8).map("".join)


def conversations(words: st.SearchStrategy[str]) -> st.SearchStrategy[list[dict[str, Any]]]:
    text = words.map(lambda t: {"type": "text", "text": t})
    asked = st.lists(st.just({"type": "image"}) | text, max_size=4).flatmap(
        lambda parts: text.map(lambda last: {"role": "user", "content": [*parts, last]})
    )
    answered = text.map(lambda part: {"role": "assistant", "content": [part]})
    system = st.lists(text.map(lambda part: {"role": "system", "content": [part]}), max_size=1)
    more = st.lists(st.tuples(answered, asked), max_size=1).map(lambda turns: [t for pair in turns for t in pair])
    return st.tuples(system, asked, more).map(lambda c: [*c[0], c[1], *c[2]])


def _digits(folder: Path) -> Path:
    return build_digits_model(folder, seed=0)


def _bos_in_its_template(folder: Path) -> Path:
    TINY_MODELS["llava"](folder)
    (folder / "chat_template.jinja").write_text(BOS_TEMPLATE)
    return folder


def _odd_added_tokens(folder: Path) -> Path:
    """Control tokens that take spaces with them, and a placeholder that is not declared special."""
    TINY_MODELS["llava"](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    state = tokenizer.backend_tokenizer
    state.add_tokens([AddedToken("<image>", special=False, normalized=False)])
    state.add_special_tokens([AddedToken("</s>", lstrip=True, rstrip=True, normalized=False)])
    state.add_special_tokens([AddedToken("<odd>", single_word=True, normalized=True)])
    tokenizer.save_pretrained(folder)
    return folder


_MODELS: dict[str, Callable[[Path], Path]] = {
    **{name: build for name, build in TINY_MODELS.items() if not ADAPTERS[name].qformer},
    "released_vocabulary": write_released_qwen2_5_vl,
    "bos_in_template": _bos_in_its_template,
    "odd_added_tokens": _odd_added_tokens,
    "closed_vocabulary": _digits,
}
_once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=_MODELS)
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model"))


def _encoded(encoder: PromptEncoder, messages: list[dict[str, Any]]) -> list[int]:
    media = [MediaRef(sha256=str(i), path="", width=56, height=56) for i in range(num_images(messages))]
    return list(encoder.encode(Prompt(uid="p", messages=tuple(messages), media=tuple(media))).engine_prompt_ids)


def _control(encoder: PromptEncoder, ids: list[int]) -> list[int]:
    control = {i for i, token in encoder.tokenizer.added_tokens_decoder.items() if token.special}
    # What a closed vocabulary says of a word that it does not know is no control token.
    return [i for i in ids if i in (control | {encoder.image_token_id}) - {encoder.tokenizer.unk_token_id}]


@_once
@given(messages=conversations(any_texts))
def test_control_tokens_are_the_templates_alone(encoder: PromptEncoder, messages: list[dict[str, Any]]) -> None:
    ids = _encoded(encoder, messages)
    assert ids.count(encoder.image_token_id) == num_images(messages)
    assert _control(encoder, ids) == _control(encoder, _encoded(encoder, with_texts(messages, lambda _: "a")))


@_once
@given(messages=conversations(any_texts))
def test_what_somebody_wrote_can_be_read_back(encoder: PromptEncoder, messages: list[dict[str, Any]]) -> None:
    if encoder.tokenizer.backend_tokenizer.token_to_id("\U0001f600") is None and encoder.tokenizer.unk_token_id == 7:
        pytest.skip("a closed vocabulary")
    read = encoder.tokenizer.decode(_encoded(encoder, messages), skip_special_tokens=False)
    for text in texts(messages):
        assert text.strip() in read
        assert encoder.decode(encoder.encode_text(text)).strip() == text.strip()
        assert _control(encoder, list(encoder.encode_text(text))) == []


@_once
@given(messages=conversations(plain_texts))
def test_texts_that_spell_nothing_are_what_the_models_tokenizer_makes_of_them(
    encoder: PromptEncoder, messages: list[dict[str, Any]]
) -> None:
    bos, text = encoder.tokenizer.bos_token, encoder.render(messages)
    wanted = encoder.tokenizer(text, add_special_tokens=not text.startswith(bos or "\0"))["input_ids"]
    assert _encoded(encoder, messages) == wanted
    # And so does the tokenizer that reads the texts of those that spell something.
    assert encoder.ids(Rendered(text, Masks({0xF1234: "<"}))) == wanted
