"""``plain_kto``: ``{"prompt", "completion", "label"}``, one response that somebody liked or did not, media and earlier
turns as in ``plain_dpo``."""

from typing import Any

from orchestrator.data.fields import RowError, shown
from orchestrator.data.keys import check_keys
from orchestrator.data.readers.draft import Draft, response_text, row_object, scalar_meta
from orchestrator.data.readers.placeholders import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.turns import EARLIER_FIELDS, prompt_turns
from orchestrator.data.records import Response

_LIKED, _DISLIKED = 1.0, -1.0
_READ = ("id", "prompt", "completion", "label", *EARLIER_FIELDS, *VIDEO_FIELDS)


def read_plain_kto(row: Any) -> Draft:
    """Check one row; the score of its response is 1 where the label is true and −1 where it is false.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, _READ, images=IMAGE_FIELDS)
    label = fields.get("label")
    if not isinstance(label, bool):
        raise RowError(f"field 'label' is {shown(label)}, expected true or false")
    score = _LIKED if label else _DISLIKED
    return Draft(
        turns=place_media(prompt_turns(fields, "prompt"), media_parts(fields, image_fields=keys.images)),
        responses=(Response(text=response_text(fields, "completion"), score=score),),
        meta=scalar_meta(fields, ("id",)),
        unread=(keys.unread,),
    )
