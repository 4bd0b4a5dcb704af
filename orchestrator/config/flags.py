"""Dotted flags: ``--section.key value`` into typed values, and the few flags that are no option."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from orchestrator.config.options import unknown_option
from orchestrator.errors import RefusedInput

_MOST_DIGITS = 300
"""Of an integer, far above all bounds of options."""


@dataclass(slots=True)
class Flags:
    """A parsed command line."""

    values: dict[str, Any] = field(default_factory=dict)
    """Typed values by dotted name; the last of a repeated flag counts."""
    config_files: list[str] = field(default_factory=list)
    """In the order given."""
    dry_run: bool = False
    help: bool = False


Words = Sequence[tuple[str, list[str]]]
"""Each flag with the words that follow it."""


def split_words(argv: Sequence[str]) -> Words:
    """A command line by its flags.

    Raises:
        RefusedInput: a word before all flags.
    """
    groups: list[tuple[str, list[str]]] = []
    for word in argv:
        if "\0" in word:
            raise RefusedInput(f"the word {word!r} holds a NUL character, which none can")
        if word.startswith("--") or word == "-h":
            name, equals, text = word.lstrip("-").partition("=")
            groups.append((name.replace("-", "_"), [text] if equals else []))
        elif groups:
            groups[-1][1].append(word)
        else:
            raise RefusedInput(f"unexpected argument {word!r}: every value follows its --flag")
    return groups


def parted(
    argv: Sequence[str], own: Collection[str], *, unasked: Collection[str], why: str
) -> tuple[list[str], list[str]]:
    """A command line in two: the flags of a command's own, and those of ``orchestrator.train``.

    Args:
        own: Names of the first.
        unasked: Those of the second that the command sets itself.
        why: What is said of one of these.
    Raises:
        RefusedInput: there is one, or a word before all flags.
    """
    mine, others = list[str](), list[str]()
    for name, texts in split_words(argv):
        if name in unasked:
            raise RefusedInput(f"--{name}: {why}")
        # One word stays beside its flag: it may begin like a flag itself.
        words = [f"--{name}={texts[0]}"] if len(texts) == 1 else [f"--{name}", *texts]
        (mine if name in (*own, "help", "h") else others).extend(words)
    return mine, others


def words_of(name: str, groups: Words) -> list[str]:
    """All that follows one flag, wherever it stands."""
    return [word for flag, words in groups if flag == name for word in words]


def parse_flags(groups: Words, known: Mapping[str, Any]) -> Flags:
    """Typed values of a command line.

    A text that does not fit its option's type stays a string, which the schema then refuses with the type it expects.

    Args:
        known: Type annotation of every option.
    Raises:
        RefusedInput: an unknown flag, a missing value or too many values.
    """
    flags = Flags()
    for name, texts in groups:
        if name in ("help", "h"):
            flags.help = True
        elif name == "dry_run":
            if texts:
                raise RefusedInput(f"--dry-run takes no value, got {' '.join(texts)!r}")
            flags.dry_run = True
        elif name == "plain" and not texts:
            flags.values["run.plain"] = True
        elif name == "config":
            flags.config_files += _some(name, texts)
        elif name in known:
            flags.values[name] = _value(name, known[name], _some(name, texts))
        else:
            raise unknown_option(name, known=known, written=f"flag --{name}")
    return flags


def _some(name: str, texts: list[str]) -> list[str]:
    if not texts:
        raise RefusedInput(f"--{name} needs a value")
    return texts


def _value(name: str, annotation: Any, texts: list[str]) -> Any:
    kind = _kind(annotation)
    if get_origin(kind) is dict:
        return column_pairs(texts, flag=f"--{name}")
    if get_origin(kind) is tuple:
        parse = _parser(get_args(kind)[0])
        return [parse(word) for text in texts for word in re.split(r"[,\s]+", text) if word]
    if len(texts) > 1:
        raise RefusedInput(f"--{name} takes one value, got {' '.join(texts)!r}")
    return _parser(kind)(texts[0])


def column_pairs(texts: Sequence[str], *, flag: str) -> dict[str, str]:
    """``NAME=COLUMN`` words as a table; a column's name may have any character.

    Raises:
        RefusedInput: a word is none, or a name is given twice.
    """
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, column = text.partition("=")
        if not equals or not name or not column:
            raise RefusedInput(f"{flag} has {text!r}, expected NAME=COLUMN, such as prompt=problem")
        if name in pairs:
            raise RefusedInput(f"{flag} has {name!r} twice: {pairs[name]!r} and {column!r}")
        pairs[name] = column
    return pairs


def _kind(annotation: Any) -> Any:
    """The type without its bounds and without ``None``."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if NoneType in get_args(annotation):
        return _kind(next(member for member in get_args(annotation) if member is not NoneType))
    return annotation


def _parser(annotation: Any) -> Callable[[str], Any]:
    """From a flag's text to what TOML would have given for this type."""
    return {bool: _bool, int: _int, float: _float}.get(_kind(annotation), str)


def _bool(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text.lower(), text)


def _int(text: str) -> int | str:
    # Python reads no longer ones; as text they are refused by name.
    return int(text) if len(text) <= _MOST_DIGITS and re.fullmatch(r"[+-]?\d+", text) else text


def _float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
