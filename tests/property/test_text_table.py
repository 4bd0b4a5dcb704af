"""What a table of tokens says of ids is what the tokenizer says: of all kinds, any ids, bytes that are no UTF-8."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.released_tokenizers import (
    gemma_tokenizer,
    glm_tokenizer,
    idefics3_tokenizer,
    llama_tokenizer,
    qwen_tokenizer_like,
    released_qwen_tokenizer,
)
from workers.multimodal.text_table import table_of

_BEYOND = 5
"""Ids above the vocabulary, which a padded head has."""


def _words() -> Tokenizer:
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(["<unk>", "a", "▁b", "", " c", "é"])}, "<unk>"))
    inner.add_special_tokens([AddedToken("<end>", special=True)])
    return inner


_KINDS: dict[str, Any] = {
    "a word a token": _words,
    "llama": lambda: llama_tokenizer("<image>").backend_tokenizer,
    "llama, legacy": lambda: llama_tokenizer(legacy=True).backend_tokenizer,
    "gemma": lambda: gemma_tokenizer({"image_token": "<image>"}, "<start_of_turn>").backend_tokenizer,
    "qwen": lambda: qwen_tokenizer_like("<control>").backend_tokenizer,
    "qwen, released": lambda: released_qwen_tokenizer().backend_tokenizer,
    "glm": lambda: glm_tokenizer().backend_tokenizer,
    "idefics3": lambda: idefics3_tokenizer(bos="<|begin_of_text|>", adds_bos=True).backend_tokenizer,
}


@cache
def _made(kind: str) -> tuple[Tokenizer, Any, int]:
    tokenizer = _KINDS[kind]()
    if kind != "qwen, released":  # words that were added, of any characters
        tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("two words", "▁x", "é ü", "<0x4>", "Ġ")])
    return tokenizer, table_of(tokenizer), max(tokenizer.get_vocab().values())


@pytest.mark.parametrize("kind", _KINDS)
@given(data=st.data())
def test_texts_are_those_of_the_tokenizer(kind: str, data: st.DataObject) -> None:
    tokenizer, table, last = _made(kind)
    # Tokens of a byte are among the first ids and added ones the last; both are as frequent as all others.
    ids = st.one_of(st.integers(0, min(last, 260)), st.integers(last - 30, last + _BEYOND), st.integers(0, last))
    rows = data.draw(st.lists(st.lists(ids.filter(lambda i: i >= 0), max_size=12), max_size=4))
    said = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert table.texts([np.array(row, np.int32) for row in rows]) == said


@pytest.mark.parametrize("kind", ["qwen", "llama", "gemma"])
@given(parts=st.lists(st.one_of(st.text(max_size=3).map(str.encode), st.binary(max_size=4)), max_size=6))
def test_any_bytes_become_what_the_tokenizer_makes_of_them(kind: str, parts: list[bytes]) -> None:
    tokenizer, table, _ = _made(kind)
    vocabulary = tokenizer.get_vocab()
    spelled = bytes_to_unicode() if kind == "qwen" else {byte: f"<0x{byte:02X}>" for byte in range(256)}
    row = [vocabulary[spelled[byte]] for part in parts for byte in part]
    assert table.texts([np.array(row, np.int32)]) == [tokenizer.decode(row)]


@pytest.mark.parametrize("decoder", [decoders.Metaspace(), decoders.WordPiece(), decoders.BPEDecoder()])
def test_other_kinds_have_no_table(decoder: Any) -> None:
    tokenizer = _words()
    tokenizer.decoder = decoder
    assert table_of(tokenizer) is None
