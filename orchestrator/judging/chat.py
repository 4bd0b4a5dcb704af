"""The wire: chat completions as OpenAI's clients ask for them, and what a request comes to.

What a request says stays words, and its pictures are bytes in it: no address is ever fetched and no file named.
Invariants: a key that nobody reads is refused by its name, so that nothing asked for is left undone in silence; what
is wrong with a request is told in few words, however much of it is wrong.
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.data.row_pictures import RowPictures
from orchestrator.data.rows import RowError
from orchestrator.errors import RefusedInput, refusal
from workers.multimodal.media import MediaError, probe_image
from workers.types import FinishReason, Prompt

_ADDRESS = "data:image/"
_MOST_CHOICES, _MOST_MESSAGES, _MOST_PARTS, _MOST_KEYS = 64, 256, 256, 32


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _has_few_keys(cls, value: Any) -> Any:
        """Each key that is not read is an error of its own."""
        if isinstance(value, dict) and len(value) > _MOST_KEYS:
            raise ValueError(f"{len(value)} keys, of which at most {_MOST_KEYS} are read")
        return value


class ImageAddress(_Read):
    """Where a picture is; ``detail`` is OpenAI's and says nothing here."""

    url: str
    detail: Literal["auto", "low", "high"] = "auto"


class ImagePart(_Read):
    """A picture of a message."""

    type: Literal["image_url"]
    image_url: ImageAddress


class TextPart(_Read):
    """Words of a message."""

    type: Literal["text"]
    text: str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(_Read):
    """A turn."""

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=_MOST_PARTS, fail_fast=True)]


class ChatRequest(_Read):
    """The body of ``POST /v1/chat/completions``."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=_MOST_MESSAGES, fail_fast=True)
    n: int = Field(default=1, ge=1, le=_MOST_CHOICES)
    temperature: float = Field(default=1.0, ge=0.0, le=2.0)
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    """OpenAI's newer name of the same."""
    seed: int | None = None
    """None draws another one every time."""
    stream: Literal[False] = False
    user: str | None = None
    """Whoever asks, in their own words; nobody reads it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer."""

    text: str
    finish_reason: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """All answers to a request."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    """Images expanded."""
    completion_tokens: int


def request_in(body: bytes) -> ChatRequest:
    """The request that a body holds.

    Raises:
        RefusedInput: naming field and value.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise refusal(error) from error


def prompt_of(
    messages: Sequence[Message], uid: str, *, folder: Path, max_images: int, max_pixels: int | None
) -> Prompt:
    """Turns with their pictures, which become files.

    Args:
        folder: For these.
        max_pixels: Of a picture; None is the bound of every run.
    Raises:
        RefusedInput: a picture is none, is too large, or stands where none may; or there are too many.
    """
    addresses = list[str]()
    turns = tuple({"role": one.role, "content": _parts(one, addresses)} for one in messages)
    if len(addresses) > max_images:
        raise RefusedInput(f"the messages hold {len(addresses)} images, at most {max_images} are taken")
    if elsewhere := next((one for one in addresses if not one.startswith(_ADDRESS)), None):
        raise RefusedInput(f"image_url is {elsewhere[:40]!r}: only {_ADDRESS}...;base64, is read, nothing is fetched")
    try:
        files = RowPictures(folder).of_json({"images": addresses})["images"] if addresses else []
        media = tuple(probe_image(Path(file), max_pixels=max_pixels) for file in files)
    except MediaError as error:
        raise RefusedInput(f"an image {error.problem}") from error
    except RowError as error:
        raise RefusedInput(str(error).replace("field 'images'", "image_url")) from error
    return Prompt(uid=uid, messages=turns, media=media)


def completion(model: str, reply: Reply) -> dict[str, Any]:
    """The body of an answer."""
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": number,
                "message": {"role": "assistant", "content": one.text},
                "finish_reason": one.finish_reason,
                "logprobs": None,
            }
            for number, one in enumerate(reply.choices)
        ],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }


def _parts(message: Message, addresses: list[str]) -> list[dict[str, str]]:
    """The parts of a turn; the addresses of its pictures are added to the others."""
    content = [TextPart(type="text", text=message.content)] if isinstance(message.content, str) else message.content
    parts = []
    for part in content:
        if isinstance(part, TextPart):
            parts.append({"type": "text", "text": part.text})
            continue
        if message.role != "user":
            raise RefusedInput(f"a turn of role {message.role!r} holds an image, which only the user's may")
        addresses.append(part.image_url.url)
        parts.append({"type": "image"})
    return parts
