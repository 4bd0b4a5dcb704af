"""One exchange with an OpenAI-compatible endpoint: what a question is on the wire, and what a reply comes to.

Words that come from here may repeat a key: whoever shows them takes it out.
"""

import base64
import io
import math
import re
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import Any

import openai
from PIL import Image
from pydantic import BaseModel, ValidationError

from algorithms.records import MediaRef
from orchestrator.rewards.asking import Answer, Question
from workers.given_files import PICTURE, read_bytes
from workers.multimodal.media import load_image
from workers.multimodal.pictures import kind_of

_LOOKED_AT = 1 << 16
"""Bytes of an answer that is none."""
_LONGEST_ASKED_WAIT_S = 20.0
_BUSY = 429
_PASSING_STATUS = (408, 409, 425, _BUSY)
_ABOUT_A_PARAMETER = (400, 404, 422)
_ABOUT_A_QUESTION = (400, 403, 413, 422)
"""A filter of content answers 400 or 403; a wrong key, name or address 401 or 404."""
_ABOUT_LENGTH = ("too large", "too long", "context length", "maximum context")
_SPENT = "insufficient_quota"
_REMEMBERED_PICTURES = 64
_ORIENTATION = 0x0112
# Tags that common chat templates write, and placeholders of images: an endpoint may read them where a response says so.
_CONTROL = re.compile(
    r"<(?=[|｜][^<>\s]{1,60}[|｜]>)"
    r"|<(?=/?(?:s|bos|eos|pad|unk|image|video|audio|img|(?:start|end)_of_(?:turn|image|audio)|[a-z]{1,12}_soft_token)>)"
    r"|\[(?=/?(?:INST|IMG|IMG_BREAK|IMG_END|SYSTEM_PROMPT|TOOL_CALLS|AVAILABLE_TOOLS|TOOL_RESULTS)\])"
)


class EndpointError(Exception):
    """Why a question has no answer; asking again would end in the same."""

    is_refused = False
    """Whether that is of this question alone."""


class Refused(EndpointError):
    """Other questions may be answered: this one is too long, or against a rule of the endpoint."""

    is_refused = True


class Unavailable(EndpointError):
    """Another attempt may succeed."""

    def __init__(self, told: str, *, wait_s: float = 0.0, is_busy: bool = False) -> None:
        """``wait_s`` is how long it asked to be left alone."""
        super().__init__(told)
        self.wait_s, self.is_busy = wait_s, is_busy


class _Message(BaseModel):
    content: str | list[Any] | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: Any = None


class _Completion(BaseModel):
    """The part of a chat completion that is read; whatever else an endpoint adds is its own affair."""

    choices: list[_Choice]


class _Fault(BaseModel):
    code: int | str | None = None


class _Failure(BaseModel):
    """What some endpoints answer with HTTP 200 instead."""

    error: _Fault


def content_of(question: Question) -> Any:
    """What the user's turn says: pictures as ``data:`` addresses, where they stand.

    Raises:
        MediaError: an image is gone, or another than it was.
        UnicodeEncodeError: the words hold half of a character.
    """
    images, parts = iter(question.media), list[dict[str, Any]]()
    for part in question.content:
        if part["type"] == "image":
            parts.append({"type": "image_url", "image_url": {"url": picture_address(next(images))}})
            continue
        text = harmless(part["text"])
        text.encode()
        parts.append({"type": "text", "text": text})
    return parts if question.media else parts[0]["text"]


def harmless(text: str) -> str:
    """The words with a space inside whatever spells a control token of a common chat template.

    What tokens an endpoint has is not known here; most read them in a user's words too.
    """
    return _CONTROL.sub(lambda found: f"{found[0]} ", text)


@lru_cache(maxsize=_REMEMBERED_PICTURES)
def picture_address(ref: MediaRef) -> str:
    """The picture as every role sees it: the file itself where that is an upright JPEG in colours, else a PNG.

    Raises:
        MediaError: see ``load_image``.
    """
    image, data = load_image(ref), read_bytes(ref.path, most=PICTURE)
    if _is_plain_jpeg(data):
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _is_plain_jpeg(data: bytes) -> bool:
    if kind_of(data) != "JPEG":
        return False
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.mode == "RGB" and image.getexif().get(_ORIENTATION, 1) == 1


def answer_in(body: bytes) -> Answer:
    """What a chat completion says.

    Raises:
        EndpointError: the body is none.
    """
    try:
        choices = _Completion.model_validate_json(body).choices
    except ValidationError:
        choices = []
    if not choices:
        told = f"answered what is no chat completion: {body[:_LOOKED_AT].decode(errors='replace') or 'nothing'}"
        code = _code_in(body)
        raise Unavailable(told, is_busy=code == _BUSY) if _passes(code) else EndpointError(told)
    ended, content = choices[0].finish_reason, choices[0].message.content or ""
    if not isinstance(content, str):
        parts = [p for p in content if isinstance(p, dict) and p.get("type", "text") in ("text", "output_text")]
        content = "".join(p["text"] for p in parts if isinstance(p.get("text"), str))
    return Answer(content, finish_reason=ended if isinstance(ended, str) else "")


def refusal(error: openai.APIStatusError) -> EndpointError:
    """What an HTTP status comes to: an account without money will not recover by waiting."""
    status = error.status_code
    told = f"answered HTTP {status}: {error.message}"
    if not _passes(status) or error.code == _SPENT:
        return Refused(told) if status in _ABOUT_A_QUESTION else EndpointError(told)
    return Unavailable(told, wait_s=_asked_wait_s(error.response.headers.get("retry-after")), is_busy=status == _BUSY)


def without_refused(sent: dict[str, Any], error: openai.APIStatusError) -> dict[str, Any] | None:
    """The parameters without one that a refusal names; None where it is about something else."""
    told = error.response.content[:_LOOKED_AT].decode(errors="replace").lower()
    if error.status_code not in _ABOUT_A_PARAMETER or any(words in told for words in _ABOUT_LENGTH):
        return None
    for name in ("max_tokens", "max_completion_tokens", "temperature", "seed"):
        if name in sent and name in told:
            rest = {other: value for other, value in sent.items() if other != name}
            return rest | ({"max_completion_tokens": sent[name]} if name == "max_tokens" else {})
    return None


def _code_in(body: bytes) -> int | None:
    try:
        code = _Failure.model_validate_json(body).error.code
        return None if code is None else int(code)
    except ValueError:  # pydantic's is one too
        return None


def _passes(status: int | None) -> bool:
    return status is not None and (status >= 500 or status in _PASSING_STATUS)


def _asked_wait_s(header: str | None) -> float:
    """``Retry-After`` in seconds, within bounds; 0 where there is none or it cannot be read."""
    if header is None:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time()
        except (ValueError, OverflowError):  # the offset of its time zone is as long as they like
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED_WAIT_S) if math.isfinite(seconds) else 0.0
