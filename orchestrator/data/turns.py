"""Turns of a conversation: how rows spell them, and which of them are prompts.

A prompt ends with a question of the user's, and its answer does not stand in it.
"""

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from orchestrator.data.keys import is_empty
from orchestrator.data.media import Turn
from orchestrator.data.rows import RowError, shown, text_field, unicode_text

EARLIER_FIELDS = ("system", "history")
"""Fields of what was said before the prompt."""
_VERDICT = re.compile(r"<answer>\s*([12])\s*</answer>")
_MARK = re.compile(r"<(?:image|video)>|<\|[^<>|]*\|>")
"""Stands for media in people's files; nobody asks by it."""
_JUDGEMENT = re.compile(r"^\s*(?:<think>.*</think>)?\s*<answer>\s*[12]\s*</answer>\s*\Z", re.DOTALL | re.MULTILINE)


def check_prompt(turns: Sequence[Turn]) -> None:
    """Stop at a conversation that asks nothing, is answered already, or whose turns no chat template takes.

    A system turn may come first; then user and assistant take turns, and the user has the last word. Words of the user
    or of the system ask, pictures alone do not.

    Raises:
        RowError: naming the turn.
    """
    roles = [turn["role"] for turn in turns]
    if "user" not in roles:
        raise RowError("the prompt has no turn of the user, expected one that asks something")
    for number, role in enumerate(roles, start=1):
        if role == "system" and number > 1:
            raise RowError(f"turn {number} of the prompt is the system's, which may only come first")
    talk = roles[1:] if roles[0] == "system" else roles
    if talk[0] == "assistant":
        raise RowError("the prompt begins with a turn of the assistant, expected one of the user")
    for number, (before, role) in enumerate(pairwise(roles), start=1):
        if before == role:
            raise RowError(f"turns {number} and {number + 1} of the prompt are both the {role}'s, not in turn")
    if talk[-1] == "assistant":
        said = shown(words(turns[-1:]))
        raise RowError(f"the prompt ends with a turn of the assistant, {said}, expected one of the user")
    if all(part["type"] == "text" for part in turns[-1]["content"]) and not _says_something(words(turns[-1:])):
        raise RowError(f"the prompt asks nothing: its last turn is {shown(words(turns[-1:]))}")
    if not _says_something(words(turn for turn in turns if turn["role"] != "assistant")):
        raise RowError("the prompt asks nothing: it has pictures and no words")


def refuse_told_verdict(turns: Sequence[Turn], label: str) -> None:
    """Stop at a prompt that gives its own label away.

    That is ``<answer>`` with the label said by the assistant, or by anybody else as a judgement would say it: a line of
    its own at the end of a turn, after the reasoning if there is any. Naming both verdicts is saying how to answer, and
    so is naming one in the middle of a sentence.

    Raises:
        RowError: naming the turn.
    """
    for number, turn in enumerate(turns, start=1):
        text = words([turn])
        if set(_VERDICT.findall(text)) == {label} and (turn["role"] == "assistant" or _JUDGEMENT.search(text)):
            raise RowError(
                f"turn {number} of the prompt holds the row's own answer, <answer>{label}</answer>; an example of the "
                "form names both verdicts"
            )


def words(turns: Iterable[Turn]) -> str:
    """The text parts of some turns, one below the other."""
    return "\n".join(part["text"] for turn in turns for part in turn["content"] if part["type"] == "text")


def _says_something(text: str) -> bool:
    # isprintable is false of what has no shape, such as a space without width, which strip leaves alone.
    return any(c.isprintable() and not c.isspace() for c in _MARK.sub("", text))


def prompt_turns(row: dict[str, Any], prompt_field: str) -> list[tuple[str, str]]:
    """Role and text of each turn of a prompt: ``system``, every question and answer of ``history``, the prompt itself.

    Raises:
        RowError: naming field and value.
    """
    turns = system_turn(row)
    for question, answer in _history(row):
        turns += [("user", question), ("assistant", answer)]
    return [*turns, ("user", text_field(row, prompt_field))]


def system_turn(row: dict[str, Any]) -> list[tuple[str, str]]:
    """The turn that the field ``system`` stands for; none where it is empty.

    Raises:
        RowError: it is no text.
    """
    return [] if is_empty(row.get("system")) else [("system", text_field(row, "system"))]


def check_order(roles: Sequence[str], *, field: str) -> None:
    """A system turn may come first; then user and assistant take turns, as chat templates demand.

    Raises:
        RowError: naming the field and the turn out of place.
    """
    last = None
    for role in roles:
        expected = {None: ("system", "user"), "system": ("user",), "user": ("assistant",), "assistant": ("user",)}[last]
        if role not in expected:
            place = "at the start" if last is None else f"after one of the {last}"
            raise RowError(f"field {field!r} has a turn of the {role} {place}, expected {' or '.join(expected)}")
        last = role


def _history(row: dict[str, Any]) -> list[tuple[str, str]]:
    history = row.get("history")
    if is_empty(history):
        return []
    if not isinstance(history, list):
        raise RowError(f"field 'history' is {shown(history)}, expected a list of [question, answer]")
    for pair in history:
        texts = (
            isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) and text.strip() for text in pair)
        )
        if not texts:
            raise RowError(f"field 'history' has {shown(pair)}, expected [question, answer]")
    return [(unicode_text(question, "history"), unicode_text(answer, "history")) for question, answer in history]
