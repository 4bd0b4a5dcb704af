"""The shape of OpenRLHF's requests and replies, translated to ours and back."""

import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, model_validator

from remote_rm.parts import parse_answer
from remote_rm.schema import MAX_ITEMS, RewardItem, ScoredItem, Status, Wire

_ASSISTANT_HEADERS = ("<|im_start|>assistant\n", "<｜Assistant｜>", "Assistant: ")
_END_TOKENS = re.compile(r"<\|im_end\|>|<\|endoftext\|>|<｜end▁of▁sentence｜>")

OpenRlhfReply = dict[str, list[float | None] | list[Status]]
"""Answer of ``POST /get_reward``, in request order; null stands for a reward that could not be had."""


class OpenRlhfRequest(Wire):
    """Body of ``POST /get_reward``: three lists of one length, as OpenRLHF sends them."""

    query: Annotated[list[str], Field(max_length=MAX_ITEMS)]
    """Prompt and completion in one text, special tokens included."""
    prompts: Annotated[list[str], Field(max_length=MAX_ITEMS)]
    labels: Annotated[list[str | None], Field(max_length=MAX_ITEMS)]
    """What is right; of a pairwise judgement ``1``, ``2`` or an ``<answer>`` block with one of them."""

    @model_validator(mode="after")
    def _same_length(self) -> "OpenRlhfRequest":
        lengths = {name: len(values) for name, values in self}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"query, prompts and labels differ in length: {tuple(lengths.values())}")
        return self


def items_of(request: OpenRlhfRequest) -> list[RewardItem]:
    """One item a row, named by its position."""
    rows = zip(request.query, request.prompts, request.labels, strict=True)
    return [
        RewardItem(id=str(i), prompt=prompt, response=response_of(query, prompt), label=_label(label))
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


def reply_of(items: list[ScoredItem], names: Sequence[str]) -> OpenRlhfReply:
    """Lists of the rewards, of each of their named parts and of the statuses, in request order."""
    return {
        "rewards": [item.reward for item in items],
        **{f"{name}_rewards": [item.parts[name] for item in items] for name in names},
        "statuses": [item.status for item in items],
    }


def _label(label: str | None) -> str | None:
    return label if label is None else parse_answer(label) or label
