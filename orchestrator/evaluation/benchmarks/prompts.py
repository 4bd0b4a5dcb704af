"""What a model is asked about an item: its question, or which of its two responses is better."""

from collections.abc import Mapping, Sequence

from algorithms.records import MediaRef
from orchestrator.config.benchmarks import VerdictForm
from orchestrator.config.requests import OURS, checked_request, pieces_of, request_in
from orchestrator.evaluation.benchmarks.items import Item, Part
from workers.types import Prompt

_SHOWN = "Question: {question}\n\nAnswer 1: {first}\n\nAnswer 2: {second}\n\n"
REQUESTS: Mapping[str, str] = {
    "tagged": OURS.text,
    "answer_is_better": (
        f"Compare two answers to a question about the image.\n\n{_SHOWN}Look at the image and say which one is more "
        'correct and helpful. End with "Answer 1 is better" or "Answer 2 is better".'
    ),
    "bracketed": (
        "Compare the answers of two assistants to a question about the image.\n\nQuestion: {question}\n\n"
        "Assistant A: {first}\n\nAssistant B: {second}\n\nLook at the image, explain which one is more correct and "
        'helpful, then write "[[A]]" if assistant A is better and "[[B]]" if assistant B is better.'
    ),
    "overall_judgment": (
        f"Compare two answers to a question about the image.\n\n{_SHOWN}Look at the image, weigh accuracy, "
        'completeness, clarity and relevance, and end with "Overall Judgment: Answer X is better", X the number of '
        "the better one."
    ),
}
"""By how the verdict is written, of ``verdict_readings.READINGS``. The words are ours: a model that was trained on
others is asked by a template of the user's."""


def request_of(form: VerdictForm, template: str | None) -> str:
    """The template for verdicts of a form, or that in a file.

    Raises:
        RefusedInput: the file cannot be read, or lacks a place.
    """
    return REQUESTS[form] if template is None else request_in(template).text


def answer_prompt(item: Item) -> Prompt:
    """The question by itself."""
    return _prompt(item.key, item.question, _shares(item)[0])


def pair_prompt(item: Item, *, request: str, order: str) -> Prompt:
    """The template filled with the question and both responses, images where they stand in them.

    Args:
        order: Numbers of two responses: ``12`` shows them as the file lists them, ``21`` the second first.
    Raises:
        RefusedInput: see ``checked_request``.
    """
    media = _shares(item)
    responses = [(item.responses[int(number) - 1], media[int(number)]) for number in order]
    slots = {"question": (item.question, media[0]), "first": responses[0], "second": responses[1]}
    pieces = pieces_of(checked_request(request))
    parts, shown = list[Part](), list[MediaRef]()
    for i, piece in enumerate(pieces):
        if i % 2:
            own, refs = slots[piece]
            parts += own
            shown += refs
        else:
            parts.append({"type": "text", "text": piece})
    return _prompt(f"{item.key}-{order}", parts, tuple(shown))


def _shares(item: Item) -> list[tuple[MediaRef, ...]]:
    """The media of the question, then of each response."""
    found, at = [], 0
    for parts in (item.question, *item.responses):
        count = sum(part["type"] == "image" for part in parts)
        found.append(item.media[at : at + count])
        at += count
    return found


def _prompt(uid: str, parts: Sequence[Part], media: tuple[MediaRef, ...]) -> Prompt:
    return Prompt(uid=uid, messages=({"role": "user", "content": _joined(parts)},), media=media)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Texts beside each other as one, empty ones left out: chat templates may write a break between two."""
    joined: list[Part] = []
    for part in parts:
        if part["type"] != "text":
            joined.append({"type": "image"})
        elif part["text"] and joined and joined[-1]["type"] == "text":
            joined[-1] = {"type": "text", "text": joined[-1]["text"] + part["text"]}
        elif part["text"]:
            joined.append(dict(part))
    return joined
