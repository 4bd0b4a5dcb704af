"""What becomes of a key that a reader does not read: nothing that a row holds is dropped in silence.

A reader declares the keys it reads. Of the others

- one that is empty says nothing;
- a column that can only be a picture, such as ``image_path``, is read as the image where the row has no other;
- one that can only be content or a preference, such as ``history`` or ``rejected_response``, makes a bad row;
- any other, such as ``source``, is counted and named once for the whole file, see ``Notes``.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from orchestrator.data.rows import RowError, row_pictures, shown, unicode_text
from orchestrator.errors import one_line

_MOST_KEYS, _MOST_CHARS = 20, 80
"""That are named, and of each."""
_NOUN = r"(?:image|img|picture|pic|photo|photograph|screenshot)s?"
_ENDING = r"(?:_?(?:file|url|uri|src|link|location)s?)?(?:_?(?:path|name|list)s?)?"
_PICTURE = re.compile(rf"(?:(?:input|question|query|prompt|user|original|raw)_)?{_NOUN}{_ENDING}")
"""Names that can only be a picture's."""
_FILE = re.compile(r"file(?:_?(?:name|path))?|path")
"""Names that are a picture's where the value is."""
_SIDE = (
    r"(?:chosen|reject(?:ed)?|accept(?:ed)?|(?:dis|un|non_?)?preferred|positive|negative|neg|better|worse|best|worst|good"
    r"|bad|winning|losing|win|lose|hallucinated|corrupted)"
)
_REPLY = r"(?:response|answer|output|completion|reply)"
_ANSWER = rf"(?:{_REPLY}|conversation|message|caption|text|content|turn)s?"
_OTHER_MEDIA = re.compile(
    rf"(?:{_NOUN}_)?(?:base64|b64)|{_NOUN}_?\d+|{_NOUN}_(?:bytes|data)"
    rf"|(?:{_SIDE}|second|other|mixed_up)_{_NOUN}{_ENDING}"
    r"|(?:video|audio|clip|frame)s?(?:_?(?:file|url|uri|src|link)s?)?(?:_?(?:path|name|dir|folder)s?)?|pixel_values"
    r"|medias?|multi_?modal_(?:data|inputs?)"
)
"""Names of media that no format reads in another's place: more than one, or of another kind."""
_CONTENT = re.compile(
    r"system(?:_(?:prompt|message))?|history|tools?|tool_(?:calls|choice)|functions|function_call|objects|documents"
    r"|messages|conversations?|dialogs?|dialogues?|turns"
)
_ASKED = re.compile(r"instruction|input|query|question|context|prompt")
"""Names of content, unless it stands in what is read as well."""
_PREFERENCE = re.compile(
    rf"(?:{_SIDE}|winner|loser)(?:_(?:{_ANSWER}|idx|index|id|\d+))?|(?:{_REPLY}_?(?:\d+|[abjkwl])|y_?[wl])|{_ANSWER}_{_SIDE}"
    r"|(?:(?:human|overall)_)?preferences?(?:_labels?)?|kto_(?:tag|label)|label"
    r"|is_(?:preferred|chosen|liked|desirable|tie|good|bad)|(?:dis)?liked?|(?:un)?desirable|thumbs?_(?:up|down)|votes?|rank(?:s|ing|ings)?|which_(?:is_)?better"
    r"|responses|completions"
)
_TIE = re.compile("is_tie")
_PICTURE_FILE = re.compile(r"data:image/.*|.*\.(?:png|jpe?g|webp|bmp|gif|tiff?|avif|heic)(?:\?.*)?", re.I | re.S)


@dataclass(slots=True)
class Notes:
    """What people should be told of a file once: the keys that nobody reads, and whether any row has an image."""

    unknown_keys: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By key: how many rows have it, and the number of the first."""
    num_rows: int = 0
    """Good ones."""
    num_with_images: int = 0

    def add(self, unread: Mapping[int, Collection[str]], *, has_images: bool) -> None:
        """Count a good row, or the rows that are one instruction together.

        Args:
            unread: By number of the row, its keys that nobody reads.
        """
        self.num_rows += 1
        self.num_with_images += has_images
        for row, keys in unread.items():
            for key in dict.fromkeys(keys):
                count, first = self.unknown_keys.get(key, (0, row))
                self.unknown_keys[key] = (count + 1, min(first, row))

    def lines(self) -> Iterator[str]:
        """One sentence each."""
        for key, (count, first) in islice(self.unknown_keys.items(), _MOST_KEYS):
            rows = "1 row has it, row" if count == 1 else f"{count} rows have it, the first is row"
            yield f"key {one_line(repr(key), most=_MOST_CHARS)} is not read: {rows} {first}"
        if len(self.unknown_keys) > _MOST_KEYS:
            yield f"{len(self.unknown_keys) - _MOST_KEYS} more keys are not read"
        if self.num_rows and not self.num_with_images:
            yield "the row has no image" if self.num_rows == 1 else f"none of the {self.num_rows} rows has an image"


@dataclass(frozen=True, slots=True)
class CheckedKeys:
    """The keys of a row, sorted."""

    images: tuple[str, ...]
    """Fields in which the row's images stand: those of the format, or the one column that can only be theirs."""
    unread: tuple[str, ...]
    """Keys that nobody reads and that may be left out."""


def check_keys(
    row: Mapping[str, Any], read: Collection[str], *, images: Sequence[str] = (), media: Sequence[str] = ()
) -> CheckedKeys:
    """Sort the keys of a row.

    Args:
        read: Keys that the reader reads, but for those of images.
        images: Fields in which the format has its images; none = it has none.
        media: Names of media that stand elsewhere in the row, whose image fields nobody reads then.

    Raises:
        RowError: a key holds what can only be content or a preference, and nobody would read it.
    """
    for key in row:
        unicode_text(key, "key")
    own = [row.get(name) for name in images]
    given = [*media, *(name for value in own for name in _names(value))]
    others = [key for key in row if key not in read and key not in images and not is_empty(row[key])]
    unread = [name for name in images if media and not is_empty(row.get(name)) and not _is_known(row[name], media)]
    if not others:
        return CheckedKeys(images=tuple(images), unread=tuple(unread))
    pictures = [key for key in others if _is_picture(key, row[key]) and not _is_known(row[key], given)]
    if pictures and images and not media and is_empty(own):
        found, given = (pictures[0],), _names(row[pictures[0]])
        pictures = [key for key in pictures[1:] if not _is_known(row[key], given)]
        images = found
    if pictures:
        others_are = f"other than {shown(given[0])}: one field of them is read" if given else "which is not read here"
        raise RowError(f"field {pictures[0]!r} can only be a picture, {others_are}")
    for key in others:
        if key not in images and not set(row_pictures(row[key])) & set(given):
            unread.append(key)
            if not _is_picture(key, row[key]):
                _refuse_content(row, key, read, given)
    return CheckedKeys(images=tuple(images), unread=tuple(unread))


def unread_inside(part: Mapping[str, Any], read: Collection[str], *, where: str) -> tuple[str, ...]:
    """Keys of a part of a row that nobody reads, told as ``where.key``.

    Raises:
        RowError: see ``check_keys``.
    """
    try:
        return tuple(f"{where}.{key}" for key in check_keys(part, read).unread)
    except RowError as error:
        raise RowError(f"{error} (in {where!r})") from error


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, blank, or a list or object of nothing else."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list | dict):
        return all(is_empty(part) for part in (value.values() if isinstance(value, dict) else value))
    return value is None


def _refuse_content(row: Mapping[str, Any], key: str, read: Collection[str], given: Sequence[str]) -> None:
    value = row[key]
    if _is_named(_PREFERENCE, key) and not (_is_named(_TIE, key) and value is False):
        raise RowError(f"field {key!r} is {shown(value)}, a preference, which this format does not read")
    media = value if _is_named(_OTHER_MEDIA, key) else [t for t in _texts(value) if _PICTURE_FILE.fullmatch(t)]
    asked = _is_named(_ASKED, key) and not _stands_in(value, [row[k] for k in read if k in row])
    if asked or _is_named(_CONTENT, key) or not (is_empty(media) or _is_known(media, given)):
        raise RowError(f"field {key!r} is {shown(value)}, content that this format does not read")


def is_picture_name(key: str) -> bool:
    """Whether a column of this name can only hold pictures, or name them."""
    return _is_named(_PICTURE, key)


def _is_picture(key: str, value: Any) -> bool:
    if is_picture_name(key):
        return True
    names = _names(value) if _is_named(_FILE, key) else []
    return bool(names) and all(map(_PICTURE_FILE.fullmatch, names))


def _is_known(value: Any, given: Sequence[str]) -> bool:
    """Whether a value names what the row has already, or where on the net that came from."""
    if not given:
        return False
    known, names = {PurePosixPath(name).name for name in given}, list(_texts(value))
    return bool(names) and all(
        PurePosixPath(name).name in known or name.startswith(("http://", "https://")) for name in names
    )


def _names(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [name for name in values if isinstance(name, str) and name.strip()]


def _texts(value: Any) -> Iterator[str]:
    """Texts anywhere in a value, blank ones apart."""
    if isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif isinstance(value, str) and value.strip():
        yield value


def _stands_in(value: Any, texts: Any) -> bool:
    if isinstance(texts, str):
        return isinstance(value, str) and value.strip() in texts
    if isinstance(texts, list | dict):
        return any(_stands_in(value, text) for text in (texts.values() if isinstance(texts, dict) else texts))
    return False


@lru_cache(maxsize=4096)
def _is_named(pattern: re.Pattern[str], key: str) -> bool:
    """Whether a key is one of the names; ``imagePath``, ``Image-Path`` and ``image_path`` are the same."""
    spelt = re.sub(r"[\s.-]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key.strip())).lower()
    return pattern.fullmatch(spelt) is not None
