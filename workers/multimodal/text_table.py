"""Token ids to text by a table of what each id spells: what the tokenizer says of a row, and no string for any token.

    ids ──► bytes of each, one behind the other ──► text

So can be read what joins its tokens by spaces or by nothing (a word a token), what spells bytes by characters (Qwen,
GLM, Llama 3), and sentencepiece's with a token for every byte (Llama 2, Mistral, Gemma). Others have no table.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

_SPACE = "▁"
_BYTE = re.compile("<0x([0-9A-Fa-f]{2})>")
_SPACED = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
_PIECES = [_SPACED, {"type": "ByteFallback"}, {"type": "Fuse"}]
_STRIPPED = [*_PIECES, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]


class TextTable:
    """What a tokenizer that ``table_of`` has a table for says of rows of ids, special tokens left out."""

    def __init__(self, tokenizer: Tokenizer, spelled: Callable[[str], bytes], *, errors: str, opening: str) -> None:
        """
        Args:
            spelled: The bytes of a token.
            errors: What becomes of bytes that are no UTF-8; of ``strict`` the tokenizer is asked about the row.
            opening: Is left out where a text begins with it, once.
        """
        import pyarrow as pa  # deferred: it takes memory, and most workers decode nothing

        self._tokenizer, self._errors, self._opening = tokenizer, errors, opening
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
        self._size = max(tokenizer.get_vocab().values(), default=-1) + 1
        tokens = map(tokenizer.id_to_token, range(self._size))
        pieces = [b"" if token is None or token in special else spelled(token) for token in tokens]
        # Of an id beyond the vocabulary, which a model may have, nothing is said.
        self._pieces = pa.array([*pieces, b""], pa.large_binary())

    def texts(self, rows: Sequence[np.ndarray]) -> list[str]:
        """Of each row of ids, int32 ``[L]``; other threads go on meanwhile."""
        import pyarrow as pa

        ids = np.minimum(np.concatenate([np.empty(0, np.int32), *rows]), self._size)
        _, ends, spelled = self._pieces.take(pa.array(ids)).buffers()
        begins = np.frombuffer(ends, np.int64)[np.cumsum([0, *map(len, rows)])].tolist()
        whole = memoryview(spelled if spelled is not None else b"")
        return [self._text(row, whole[a:b]) for row, a, b in zip(rows, begins, begins[1:], strict=False)]

    def _text(self, row: np.ndarray, spelled: memoryview) -> str:
        try:
            return str(spelled, "utf-8", self._errors).removeprefix(self._opening)
        except UnicodeDecodeError:
            return self._tokenizer.decode(row.tolist(), skip_special_tokens=True)


def table_of(tokenizer: Tokenizer) -> TextTable | None:
    """The table of a tokenizer; None where its decoder is of another kind."""
    decoder = tokenizer.decoder
    if decoder is None:
        return TextTable(tokenizer, lambda token: f" {token}".encode(), errors="strict", opening=" ")
    told: dict[str, Any] = json.loads(decoder.__getstate__())
    if told["type"] == "ByteLevel":
        return TextTable(tokenizer, _of_characters(), errors="replace", opening="")
    steps = told.get("decoders")
    if steps in (_PIECES, _STRIPPED):
        return TextTable(tokenizer, _of_piece, errors="strict", opening=" " if steps == _STRIPPED else "")
    return None


def _of_characters() -> Callable[[str], bytes]:
    """Bytes by the characters that stand for them."""
    bytes_ = {character: byte for byte, character in bytes_to_unicode().items()}

    def spelled(token: str) -> bytes:
        try:
            return bytes([bytes_[character] for character in token])
        except KeyError:  # one that was added, of other characters
            return token.encode()

    return spelled


def _of_piece(token: str) -> bytes:
    """Its text, or the byte that it stands for.

    What a run of such bytes comes to where it is no UTF-8, only the tokenizer says. Where it is, so is all around it.
    """
    byte = _BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace(_SPACE, " ").encode()
