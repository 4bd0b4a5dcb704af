"""What a judge of pairs is asked, and how each wording is known: by a name and a version.

Who trains a judge and who measures it must ask in the same words, so that files of judgements say in which they ask.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config.judges import PAIR_REQUEST
from orchestrator.errors import RefusedInput
from workers.given_files import SMALL, UnusableFile, read_text

_PLACES = ("question", "first", "second")
_PLACE = re.compile(rf"\{{({'|'.join(_PLACES)})\}}")
_VERSION_CHARS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A template with ``{question}``, ``{first}`` and ``{second}``, once each."""

    name: str
    version: str
    """Of ours a number that grows with every change; of a user's the beginning of its digest."""
    text: str

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def sha256(self) -> str:
        """Digest of the words."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def filled(self, words: Mapping[str, str]) -> str:
        """The template with words in its places, in one pass: words that look like a place stay words."""
        return "".join(words[piece] if i % 2 else piece for i, piece in enumerate(pieces_of(self.text)))


OURS = Request(name="pair", version="1", text=PAIR_REQUEST)
"""The one that ``evaluate`` and ``reward.judge_request`` ask with unless they are told otherwise."""


def checked_request(text: str) -> str:
    """A template, which has ``{question}``, ``{first}`` and ``{second}`` once each.

    Raises:
        RefusedInput: naming the one that it lacks or has twice.
    """
    slots = _PLACE.findall(text)
    for name in _PLACES:
        if slots.count(name) != 1:
            raise RefusedInput(f"the template has {{{name}}} {slots.count(name)} times, expected once")
    return text


def pieces_of(text: str) -> list[str]:
    """A template cut at its places: words at even indices, the names of the places between them at odd ones."""
    return _PLACE.split(text)


def request_in(path: str) -> Request:
    """A template of the user's.

    Raises:
        RefusedInput: the file cannot be read as text, or see ``checked_request``.
    """
    try:
        text = checked_request(read_text(path, most=SMALL))
    except UnusableFile as error:
        raise RefusedInput(f"template {path!r} cannot be read as text: it {error}") from error
    return Request(name=Path(path).name, version=hashlib.sha256(text.encode()).hexdigest()[:_VERSION_CHARS], text=text)
