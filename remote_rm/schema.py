"""The wire format: every request and reply of the service. Unknown fields are refused, sizes are bounded."""

import base64
import binascii
import hashlib
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MAX_ITEMS = 4096
"""Items of one request; a whole rollout fits."""
Status = Literal["scored", "cached", "unknown", "failed"]
Verdict = Literal["consistent", "inconsistent", "unknown"]
Scoring = Literal["strict", "compat", "functions"]
"""What a reward is made by: ours or the release's rules, or functions."""


def _refuse_half_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"an id holds half of a character at {error.start}, which is no text") from error
    return text


ItemId = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_refuse_half_characters)]


class Wire(BaseModel):
    """Base of every message: immutable, unknown fields refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Media(Wire):
    """One image, by the SHA-256 of its bytes; the bytes themselves are optional."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    data_base64: str | None = None
    path: str | None = None
    """Its file, where the service runs on the machine that has it; read only below its own ``--media-root``."""

    @model_validator(mode="after")
    def _bytes_match_hash(self) -> "Media":
        if self.data_base64 is None:
            return self
        try:
            data = base64.b64decode(self.data_base64, validate=True)
        except binascii.Error as error:
            raise ValueError(f"data_base64 is not base64: {error}") from error
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ValueError("data_base64 does not have the SHA-256 given in sha256")
        return self


class RewardItem(Wire):
    """One completion to score."""

    id: ItemId
    prompt: str
    response: str
    """The completion alone, without prompt and special tokens."""
    label: str | None
    """What is right: of a pairwise judgement, the preferred response, ``1`` or ``2``. Null where nobody knows."""
    media: list[Media] = Field(default_factory=list)
    group: ItemId | None = None
    """Items of one name are the samples of one prompt, all of them; null is a sample by itself."""
    length: Annotated[int, Field(ge=0)] | None = None
    """Tokens of the completion; null where nobody has counted."""
    finish_reason: Literal["stop", "length", "abort"] | None = None
    """Why the sampler ended it: its end of turn, its bound, or neither; null where nobody has said."""
    row: dict[str, Any] = Field(default_factory=dict)
    """The row of the data that the prompt is from, without its pictures."""
    meta: dict[str, Any] = Field(default_factory=dict)
    """Carried for the caller's logs; no scorer reads it."""


class ConsistencyItem(Wire):
    """One pair of reasoning and answer."""

    id: ItemId
    reasoning: str
    answer: str
    """``1``, ``2`` or a sentence."""


_Item = TypeVar("_Item", RewardItem, ConsistencyItem)


def _refuse_repeated_ids(items: list[_Item]) -> list[_Item]:
    first: dict[str, int] = {}
    for index, item in enumerate(items):
        if item.id in first:
            raise ValueError(f"item {index} repeats the id {item.id!r} of item {first[item.id]}")
        first[item.id] = index
    return items


class RewardRequest(Wire):
    """Body of ``POST /v1/rewards``."""

    request_id: ItemId
    items: Annotated[list[RewardItem], Field(max_length=MAX_ITEMS), AfterValidator(_refuse_repeated_ids)]


class ConsistencyRequest(Wire):
    """Body of ``POST /v1/consistency``."""

    items: Annotated[list[ConsistencyItem], Field(max_length=MAX_ITEMS), AfterValidator(_refuse_repeated_ids)]


class ScoredItem(Wire):
    """The answer to one ``RewardItem``."""

    id: str
    reward: float | None
    """Null exactly when ``status`` is ``failed``."""
    parts: dict[str, float | None]
    """What it is made of, by name; null where a part was not looked at or could not be had."""
    status: Status
    detail: str | None = None
    is_final: bool = False
    """Of a failed one: asking again would end in the same, as the fault is not the judge's."""


class RewardReply(Wire):
    """Answer of ``POST /v1/rewards``, in request order."""

    request_id: str
    items: list[ScoredItem]
    weights: dict[str, float] = Field(default_factory=dict)
    """What each part counts, where the reward is their weighted sum; empty where it is another formula."""


class JudgedItem(Wire):
    """The answer to one ``ConsistencyItem``."""

    id: str
    verdict: Verdict
    status: Status
    raw: str | None
    """What the judge said, or why it could not say anything."""


class ConsistencyReply(Wire):
    """Answer of ``POST /v1/consistency``, in request order."""

    items: list[JudgedItem]


class Health(Wire):
    """Answer of ``GET /healthz``."""

    status: Literal["ok", "judge_unavailable", "judge_refuses"]
    """Whether the judge answers, may answer later, or will go on refusing until somebody changes something."""
    judge: str
    scoring: Scoring
    """Rules that it scores by."""
    detail: str | None = None
