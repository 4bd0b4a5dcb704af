"""``plain_kto``: ``{"prompt", "completion", "label"}``, one response that somebody liked or did not, media as in
``plain_dpo``."""

from typing import Any

from orchestrator.datasets.fields import RowError, shown, text_field
from orchestrator.preference_store.readers.draft import Draft, response_text, row_object, scalar_meta
from orchestrator.preference_store.readers.placeholders import media_parts, place_media
from orchestrator.preference_store.records import Response

_LIKED, _DISLIKED = 1.0, -1.0


def read_plain_kto(row: Any) -> Draft:
    """Check one row; the score of its response is 1 where the label is true and −1 where it is false.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    label = fields.get("label")
    if not isinstance(label, bool):
        raise RowError(f"field 'label' is {shown(label)}, expected true or false")
    score = _LIKED if label else _DISLIKED
    return Draft(
        turns=place_media([("user", text_field(fields, "prompt"))], media_parts(fields)),
        responses=(Response(text=response_text(fields, "completion"), score=score),),
        meta=scalar_meta(fields, ("id",)),
    )
