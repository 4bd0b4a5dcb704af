r"""Words stay words: characters of a text that spell a control token are encoded as characters.

A chat template writes control tokens and puts texts between them, and no tokenizer can tell one from the other in what
was rendered. So the spellings inside texts are masked first: their first characters become characters that no text of
the conversation holds. What is rendered then is read by a second tokenizer, which differs from the model's in the names
of its control tokens and in nothing else:

    <|im_start|>user\nwhat is <|image_pad|> ?<|im_end|>     rendered, the second control token from a text
    <|im_start|>user\nwhat is ¤|image_pad|> ?<|im_end|>     rendered from the masked text
    «0»user\nwhat is <|image_pad|> ?«1»                     as the second tokenizer reads it

Vocabulary, merges, normaliser and post-processor are the model's, and so are the ids. A conversation that spells no
control token is read by the model's own tokenizer.

Control tokens are those that the tokenizer declares special and those that stand for media. Its other added tokens
(``<think>`` or ``<tool_call>`` in Qwen's vocabularies) are words of the model: it samples them, and they have one id
wherever they are written, in a prompt, in a demonstration or by a template.
"""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from typing import Any

from tokenizers import Tokenizer

_STAND_INS = range(0xF0000, 0xFFFFE)
"""Code points for private use, from which those are taken that no text holds."""
_UNREADABLE = "its text spells control tokens, and the model's tokenizer cannot be made to read them as words"


@dataclass(frozen=True, slots=True)
class Masks:
    """What stands for the first characters of the control tokens that a conversation's texts spell."""

    openings: Mapping[int, str] = field(default_factory=dict)
    """Characters by their stand-ins; empty where no text spells one."""

    def lifted(self, text: str) -> str:
        """The text as somebody wrote it."""
        return text.translate(dict(self.openings)) if self.openings else text


class WordTokenizer:
    """A model's tokenizer for texts that may spell its control tokens."""

    def __init__(self, tokenizer: Any, media_ids: Iterable[int] = ()) -> None:
        """
        Args:
            tokenizer: The model's, of transformers.
            media_ids: Tokens that stand for media, whatever the tokenizer declares them to be.
        """
        self._tokenizer = tokenizer
        declared = {*tokenizer.all_special_ids, *media_ids}
        added = tokenizer.added_tokens_decoder
        self._control = {t.content: i for i, t in added.items() if t.content and (t.special or i in declared)}
        self._fragments = {name[:end] for name in self._control for end in range(1, len(name))}
        self._longest = max(map(len, self._control), default=0)
        # The longest first, as the tokenizer matches them.
        contents = sorted((t.content for t in added.values() if t.content), key=len, reverse=True)
        self._added = re.compile("|".join(map(re.escape, contents)) or r"(?!)")
        mark = secrets.token_hex(8)
        self._names = {content: f"\ue000{mark}{i}\ue001" for content, i in self._control.items()}

    def masks(self, texts: Iterable[str]) -> Masks:
        """What masks these texts, which one conversation holds."""
        texts = list(texts)
        if not any(self._places(text) for text in texts):
            return Masks()
        held, openings = set().union(*texts), sorted({name[0] for name in self._control})
        free = islice((code for code in _STAND_INS if chr(code) not in held), len(openings))
        return Masks(dict(zip(free, openings, strict=True)))

    def masked(self, text: str, masks: Masks) -> str:
        """The text with the first character of every spelling replaced."""
        if not masks.openings:
            return text
        stand_ins = {opening: chr(code) for code, opening in masks.openings.items()}
        characters = list(text)
        for place in self._places(text):
            characters[place] = stand_ins[text[place]]
        return "".join(characters)

    def ids(
        self, text: str, masks: Masks, *, add_special_tokens: bool = False, max_length: int | None = None
    ) -> list[int]:
        """The tokens of a text in which what is masked is words and every other spelling a control token.

        Args:
            add_special_tokens: Whether the tokenizer may add what its texts begin and end with.
            max_length: Where the text is cut; None cuts nothing.
        Raises:
            ValueError: something is masked, and the tokenizer is none of the ``tokenizers`` library.
        """
        if not masks.openings:
            cut = {} if max_length is None else {"truncation": True, "max_length": max_length}
            return self._tokenizer(text, add_special_tokens=add_special_tokens, **cut)["input_ids"]
        named = self._added.sub(lambda found: self._names.get(found[0], found[0]), text)
        reader = self._renamed
        reader.no_truncation()
        if max_length is not None:
            reader.enable_truncation(max_length, direction=self._tokenizer.truncation_side)
        return reader.encode(masks.lifted(named), add_special_tokens=add_special_tokens).ids

    def words(self, text: str, *, add_special_tokens: bool = False, max_length: int | None = None) -> list[int]:
        """The tokens of a text that is words alone."""
        masks = self.masks([text])
        return self.ids(self.masked(text, masks), masks, add_special_tokens=add_special_tokens, max_length=max_length)

    def _places(self, text: str) -> list[int]:
        """Where a control token is spelled, or may be together with what comes behind the text."""
        end = len(text.rstrip())  # a template may strip it
        tails = (p for p in range(max(0, end - self._longest), end) if text[p:end] in self._fragments)
        return [*tails, *(place for name in self._control if name in text for place in _occurrences(name, text))]

    @cached_property
    def _renamed(self) -> Tokenizer:
        """The tokenizer with other names for its control tokens; made when a text spells one: it takes seconds."""
        if not self._tokenizer.is_fast:
            raise ValueError(_UNREADABLE)
        state = json.loads(self._tokenizer.backend_tokenizer.to_str())
        for token in state["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        _rename(state["model"], self._names)
        renamed = Tokenizer.from_str(json.dumps(state))
        renamed.no_padding()
        if any(renamed.token_to_id(self._names[content]) != i for content, i in self._control.items()):
            raise ValueError(_UNREADABLE)
        return renamed


@lru_cache(maxsize=4)
def word_tokenizer(tokenizer: Any) -> WordTokenizer:
    """The one of this tokenizer, for who has nowhere to keep it."""
    return WordTokenizer(tokenizer)


def _rename(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Give words of a vocabulary other names, so that no text spells them and no merge makes them."""
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
        return
    model["vocab"] = {names.get(word, word): index for word, index in vocabulary.items()}
    if "merges" in model:
        pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
        model["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & names.keys()]


def _occurrences(name: str, text: str) -> Iterator[int]:
    place = text.find(name)
    while place >= 0:
        yield place
        place = text.find(name, place + 1)
