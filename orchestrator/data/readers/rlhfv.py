"""``rlhfv``: rows of HaoyeZhang/RLHF-V-Dataset, an answer and its correction by a person.

``{"text": "<JSON of {question, chosen, rejected}>", "image_path"}``. The dataset's own ``image`` holds bytes where it
was written by ``datasets``; it is read as a path only where there is no ``image_path``, and may not be another one.
"""

from typing import Any

from orchestrator.data.keys import check_keys, is_empty, unread_inside
from orchestrator.data.media import VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.draft import Draft, chosen_and_rejected, row_object, scalar_meta, scalars
from orchestrator.data.rows import RowError, json_field, shown, text_field

_META = ("idx", "ds_name", "origin_dataset", "origin_split")
_IMAGES = ("image_path", "image")
_LONGEST_NAME = 255
"""Longer texts are the bytes of the image."""


def read_rlhfv(row: Any) -> Draft:
    """Check one row; the chosen response gets rank 1, the rejected one rank 2.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    text = _text(fields)
    named = next((name for name in _IMAGES if not is_empty(fields.get(name))), "image")
    beside = [name for name in _IMAGES if not _is_names(fields.get(name))]
    keys = check_keys(fields, ("text", *scalars(fields, _META), *beside, *VIDEO_FIELDS), images=(named,))
    inside = unread_inside(text, ("question", "chosen", "rejected"), where="text")
    return Draft(
        turns=place_media([("user", text_field(text, "question"))], media_parts(fields, image_fields=keys.images)),
        responses=chosen_and_rejected(text),
        meta=scalar_meta(fields, _META),
        unread=((*keys.unread, *inside),),
    )


def _is_names(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, str) and len(value) <= _LONGEST_NAME)


def _text(fields: dict[str, Any]) -> dict[str, Any]:
    text = json_field(fields, "text")
    if not isinstance(text, dict):
        raise RowError(f"field 'text' is {shown(text)}, expected an object with question, chosen and rejected")
    return text
