"""One comparison, a row of MM-RLHF's ``dpo_pairs.jsonl`` or of a file in swift's fields.

The released rows have one image or one video, which comes first, see ``prompt_turn``. Those in swift's fields have
their media where the placeholders stand, as many as these are, and may have turns before the question.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.data.keys import check_keys, is_empty
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, Turn, media_parts, place_media
from orchestrator.data.readers.draft import refuse_unkept, response_text, row_object, scalar_meta
from orchestrator.data.readers.mm_rlhf import media_meta, prompt_turn, refuse_unknown_keys
from orchestrator.data.rows import JsonRow, RowError, is_finite_number, shown, unicode_text
from orchestrator.data.turns import EARLIER_FIELDS, prompt_turns

GROUP_FIELD = "id"
"""Names the instruction of a row."""
SOURCE_ID = "source_id"
"""In swift's fields, the id that the instruction had where it came from."""
TIE_GROUP = "tie_group"
"""With the name of a side before it: responses of one id with the same number tie."""
_COMMON = (GROUP_FIELD, "category", "chosen_reason", "rejected_reason", "is_tie", "ls_factor")
RELEASED = ("prompt", "chosen", "rejected", "image", "video", *_COMMON)
"""As published; the original's loader and its issues show these names and those in ``_LEFT_OUT``."""
# Log-probs belong to a model that the row does not name. Conversations stand only in rows without media.
_LEFT_OUT = (
    "reference_chosen_logp", "reference_rejected_logp", "mix_reference_chosen_logp", "mix_reference_rejected_logp",
    "mixed_up_image", "conversations",
)  # fmt: skip
_OF_A_SIDE = ("score", "model", TIE_GROUP)
SWIFT = (
    "question", "response", "rejected_response", SOURCE_ID, *EARLIER_FIELDS, *VIDEO_FIELDS, *_COMMON,
    *(f"{side}_{name}" for side in ("chosen", "rejected") for name in _OF_A_SIDE),
)  # fmt: skip
"""As exported by us; the first three names are swift's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What a row says of one of its two responses."""

    text: str
    reason: str | None
    score: float | None
    model: str | None
    tie_group: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row, checked."""

    row: int
    turns: tuple[Turn, ...]
    meta: dict[str, Any]
    chosen: Side
    rejected: Side
    is_tie: bool
    ls_factor: float | None
    unread: tuple[str, ...]


def read_comparison(row: JsonRow) -> Comparison:
    """Check one row; its keys tell which kind it is.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row.value)
    return _swift(row.number, fields) if "question" in fields else _released(row.number, fields)


def _released(number: int, fields: dict[str, Any]) -> Comparison:
    refuse_unknown_keys(fields, (*RELEASED, *_LEFT_OUT), where="the row")
    _check_id(fields)
    turn = prompt_turn(fields, "prompt", image_fields=("image",))
    return _comparison(
        number,
        fields,
        turns=(turn,),
        meta=scalar_meta(fields, (GROUP_FIELD, "category")) | media_meta(turn),
        names=("chosen", "rejected"),
        unread=tuple(key for key in _LEFT_OUT if not is_empty(fields.get(key))),
    )


def _swift(number: int, fields: dict[str, Any]) -> Comparison:
    keys = check_keys(fields, SWIFT, images=IMAGE_FIELDS)
    _check_id(fields)
    media = media_parts(fields, image_fields=keys.images)
    named = scalar_meta(fields, (GROUP_FIELD, SOURCE_ID, "category"))
    named[GROUP_FIELD] = named.pop(SOURCE_ID, named[GROUP_FIELD])
    # The frames of a single video are told from images by its folder.
    only = [part["video"] for part in media["video"]] if not media["image"] and len(media["video"]) == 1 else []
    return _comparison(
        number,
        fields,
        turns=place_media(prompt_turns(fields, "question"), media),
        meta=named | ({"video": only[0]} if only else {}),
        names=("response", "rejected_response"),
        unread=keys.unread,
    )


def _comparison(
    number: int,
    fields: dict[str, Any],
    *,
    turns: tuple[Turn, ...],
    meta: dict[str, Any],
    names: tuple[str, str],
    unread: tuple[str, ...],
) -> Comparison:
    chosen, rejected = (
        Side(
            text=response_text(fields, name),
            reason=_text(fields, f"{side}_reason"),
            score=_number(fields, f"{side}_score"),
            model=_text(fields, f"{side}_model"),
            tie_group=_whole(fields, f"{side}_{TIE_GROUP}"),
        )
        for side, name in zip(("chosen", "rejected"), names, strict=True)
    )
    if chosen.text == rejected.text:
        raise RowError(f"fields {names[0]!r} and {names[1]!r} are the same text, {shown(chosen.text)}")
    return Comparison(
        row=number,
        turns=turns,
        meta=meta,
        chosen=chosen,
        rejected=rejected,
        is_tie=_is_tie(fields),
        ls_factor=_number(fields, "ls_factor"),
        unread=unread,
    )


def _check_id(fields: dict[str, Any]) -> None:
    refuse_unkept(fields, ("category", SOURCE_ID))
    if not isinstance(fields.get(GROUP_FIELD), str | int) or isinstance(fields[GROUP_FIELD], bool):
        raise RowError(f"field {GROUP_FIELD!r} is {shown(fields.get(GROUP_FIELD))}, expected text or a whole number")


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise RowError(f"field {name!r} is {shown(value)}, expected text")
    return unicode_text(value, name) if value and value.strip() else None


def _number(fields: Mapping[str, Any], name: str) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not is_finite_number(value):
        raise RowError(f"field {name!r} is {shown(value)}, expected a finite number")
    return float(value)


def _whole(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise RowError(f"field {name!r} is {shown(value)}, expected a whole number")
    return value


def _is_tie(fields: Mapping[str, Any]) -> bool:
    value = fields.get("is_tie")
    if value is not None and not isinstance(value, bool):
        raise RowError(f"field 'is_tie' is {shown(value)}, expected true or false")
    return value is True
