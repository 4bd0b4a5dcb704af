"""``mm_rlhf``: ``data.jsonl`` of MM-RLHF, one instruction a row with all its responses and one ranking of them.

Nobody has published the names of its fields; of ``answer`` alone the public issues speak. The two maps below are our
best guess, written in one place to be corrected: a row with a key that is not in them is refused, naming the key.

Where all responses tie, annotators wrote one more: a correct one where all were bad, a wrong one where all were good
(section 2.3.1 of the paper). That is ``answer``, provided that the ranking counts it, as the last. A ranking of the
others alone that is no tie makes it something else, perhaps the true answer: it is kept in ``meta``.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from orchestrator.data.media import Turn, media_parts
from orchestrator.data.pairs import parse_ranking
from orchestrator.data.readers.draft import Draft, refuse_unkept, response_text, row_object, scalar_meta
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, is_finite_number, shown, text_field, unicode_text

_PLACEHOLDER = re.compile(r"<(?:image|video)>")
_FIRST = re.compile(r"\s*(?:<(?:image|video)>\s*)+(?!.*<(?:image|video)>)", re.DOTALL)


def refuse_unknown_keys(row: dict[str, Any], known: Collection[str], *, where: str) -> None:
    """Stop at keys whose meaning nobody declared: what they hold would be lost without a word.

    Raises:
        RowError: naming all of them.
    """
    unknown = [key for key in row if key not in known]
    if unknown:
        told = ", ".join(map(shown, unknown))
        raise RowError(f"{where} has keys that are not in the declared map: {told}; the map has {', '.join(known)}")


def prompt_turn(row: dict[str, Any], prompt_field: str, *, image_fields: Sequence[str]) -> Turn:
    """The user turn of a row, its media named but not opened.

    Raises:
        RowError: no text, or not exactly one of image and video.
    """
    media = media_parts(row, image_fields=image_fields)
    if bool(media["image"]) == bool(media["video"]):
        given = "both" if media["image"] else "neither"
        raise RowError(f"the row has {given} of 'image' and 'video', expected one of the two")
    if len(media["video"]) > 1:
        raise RowError(f"field 'video' names {len(media['video'])} folders, expected one")
    asked = text_field(row, prompt_field)
    places, num_media = len(_PLACEHOLDER.findall(asked)), len(media["image"]) + len(media["video"])
    if media["image"] and places > 1 and (places != num_media or not _FIRST.match(asked)):
        raise RowError(
            f"field {prompt_field!r} has {places} placeholders, the row has {num_media} media, which come first"
        )
    text = _PLACEHOLDER.sub("", asked).strip()
    if not text:
        raise RowError(f"field {prompt_field!r} is {shown(row[prompt_field])}, expected text beside the placeholder")
    return {"role": "user", "content": [*media["image"], *media["video"], {"type": "text", "text": text}]}


def media_meta(turn: Turn) -> dict[str, str]:
    """``category``: the folder that the first path begins with, such as ``mcq``; ``video``: the folder of the frames.

    An absolute path, and a name without a folder, have no category. The original takes whichever category occurs
    anywhere in the path, by which ``short/belong.png`` is of ``long``.
    """
    first = turn["content"][0]
    path = PurePosixPath(first[first["type"]])
    found = {} if path.is_absolute() or len(path.parts) < 2 else {"category": path.parts[0]}
    return found | ({"video": str(path)} if first["type"] == "video" else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class InstructionKeys:
    """Names of the fields of a row."""

    id: str = "id"
    prompt: str = "prompt"
    image: str = "image"
    video: str = "video"
    responses: str = "responses"
    """A list of objects, see ``ResponseKeys``."""
    ranking: str = "ranking"
    """As ``1>2=3>4``, by number of the responses, 1 being the first."""
    ranking_reason: str = "ranking_reason"
    answer: str = "answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseKeys:
    """Names of the fields of a response."""

    text: str = "response"
    model: str = "model"
    reason: str = "reason"
    helpfulness: str = "helpfulness"
    faithfulness: str = "faithfulness"
    ethics: str = "ethics"


KEYS = InstructionKeys()
RESPONSE_KEYS = ResponseKeys()
_DIMENSIONS = (RESPONSE_KEYS.helpfulness, RESPONSE_KEYS.faithfulness, RESPONSE_KEYS.ethics)


def read_mm_rlhf(row: Any) -> Draft:
    """Check one row; the scores of the three dimensions are in ``meta`` as one object a response.

    Raises:
        RowError: naming field and value, or the keys that nobody declared.
    """
    fields = row_object(row)
    refuse_unknown_keys(fields, astuple(KEYS), where="the row")
    refuse_unkept(fields, (KEYS.id, KEYS.ranking_reason))
    turn = prompt_turn(fields, KEYS.prompt, image_fields=(KEYS.image,))
    entries = _entries(fields)
    responses, extra = _ranked(fields, [_response(entry) for entry in entries])
    scores = [_scores(entry) for entry in entries]
    return Draft(
        turns=(turn,),
        responses=responses,
        meta=scalar_meta(fields, (KEYS.id, KEYS.ranking_reason))
        | media_meta(turn)
        | ({"scores": scores} if any(scores) else {})
        | extra,
        frame_order="name",
    )


def _entries(fields: dict[str, Any]) -> list[dict[str, Any]]:
    entries = fields.get(KEYS.responses)
    if not isinstance(entries, list) or len(entries) < 2 or not all(isinstance(entry, dict) for entry in entries):
        raise RowError(f"field {KEYS.responses!r} is {shown(entries)}, expected a list of 2 or more responses")
    for number, entry in enumerate(entries, start=1):
        refuse_unknown_keys(entry, astuple(RESPONSE_KEYS), where=f"response {number}")
    return entries


def _scores(entry: dict[str, Any]) -> dict[str, Any]:
    """Those that are given, a number or a word each."""
    for name in _DIMENSIONS:
        value = entry.get(name)
        if not (value is None or isinstance(value, str) or is_finite_number(value)):
            raise RowError(f"field {name!r} is {shown(value)}, expected a finite number or text")
    return scalar_meta(entry, _DIMENSIONS)


def _response(entry: dict[str, Any]) -> Response:
    known = {name: entry.get(name) for name in (RESPONSE_KEYS.model, RESPONSE_KEYS.reason)}
    for name, value in known.items():
        if value is not None and not isinstance(value, str):
            raise RowError(f"field {name!r} is {shown(value)}, expected text")
    model, reason = (unicode_text(value, name) if value else None for name, value in known.items())
    return Response(text=response_text(entry, RESPONSE_KEYS.text), critique=reason, provenance=model)


def _ranked(fields: dict[str, Any], responses: list[Response]) -> tuple[tuple[Response, ...], dict[str, Any]]:
    """The responses with their ranks, the annotator's own among them, and what else to keep."""
    ranking = text_field(fields, KEYS.ranking)
    written = None if fields.get(KEYS.answer) is None else response_text(fields, KEYS.answer)
    if written is not None and _num_named(ranking) == len(responses) + 1:
        *ranks, last = _ranks(ranking, len(responses) + 1)
        answer = Response(text=written, rank=last, provenance=_written_for(ranking, ranks, last))
        return (*_with_ranks(responses, ranks), answer), {}
    ranks = _ranks(ranking, len(responses))
    if written is not None and max(ranks) == 1:
        raise RowError(
            f"field {KEYS.ranking!r} is {shown(ranking)}, which does not say whether field {KEYS.answer!r}, "
            "written for a tie, is better or worse than the others"
        )
    return _with_ranks(responses, ranks), {} if written is None else {"answer": written}


def _num_named(ranking: str) -> int:
    return len(ranking.replace("=", ">").split(">"))


def _ranks(ranking: str, num_responses: int) -> tuple[int, ...]:
    try:
        return parse_ranking(ranking, num_responses=num_responses)
    except ValueError as error:
        raise RowError(f"field {KEYS.ranking!r} is {error}") from error


def _with_ranks(responses: Sequence[Response], ranks: Sequence[int]) -> tuple[Response, ...]:
    return tuple(replace(response, rank=rank) for response, rank in zip(responses, ranks, strict=True))


def _written_for(ranking: str, others: Sequence[int], written: int) -> str:
    if written < min(others):
        return "tie_positive"
    if written > max(others):
        return "tie_negative"
    raise RowError(
        f"field {KEYS.ranking!r} is {shown(ranking)}, by which field {KEYS.answer!r} is neither better nor worse than "
        "all others"
    )
