"""The request shape of OpenRLHF, translated to ours and back."""

import re

from remote_rm.schema import OpenRlhfReply, OpenRlhfRequest, RewardItem, ScoredItem
from remote_rm.scorers.accuracy import parse_answer

_ASSISTANT_HEADERS = ("<|im_start|>assistant\n", "<｜Assistant｜>", "Assistant: ")
_END_TOKENS = re.compile(r"<\|im_end\|>|<\|endoftext\|>|<｜end▁of▁sentence｜>")


def items_of(request: OpenRlhfRequest) -> list[RewardItem]:
    """One item a row, named by its position."""
    rows = zip(request.query, request.prompts, request.labels, strict=True)
    return [
        RewardItem(id=str(i), prompt=prompt, response=response_of(query, prompt), label=_label(label))  # pyright: ignore[reportArgumentType]
        for i, (query, prompt, label) in enumerate(rows)
    ]


def response_of(query: str, prompt: str) -> str:
    """What follows the prompt, or else the first assistant header; without end tokens and outer white space.

    The *first* header, as in the release: were it the last, a completion could hide its beginning by writing one.
    A text with neither is taken for the response itself.
    """
    if prompt and query.startswith(prompt):
        return _END_TOKENS.sub("", query[len(prompt) :]).strip()
    for header in _ASSISTANT_HEADERS:
        _, found, rest = query.partition(header)
        if found:
            return _END_TOKENS.sub("", rest).strip()
    return _END_TOKENS.sub("", query).strip()


def reply_of(items: list[ScoredItem]) -> OpenRlhfReply:
    """The per-part lists, in request order."""
    return OpenRlhfReply(
        rewards=[item.reward for item in items],
        format_rewards=[item.parts.format for item in items],
        accuracy_rewards=[item.parts.accuracy for item in items],
        consistency_rewards=[item.parts.consistency for item in items],
        statuses=[item.status for item in items],
    )


def _label(label: str | None) -> str | None:
    if label is None or label in ("1", "2"):
        return label
    return parse_answer(label)
