"""``plain_dpo``: ``{"prompt", "chosen", "rejected"}``; ``plain_kto``: ``{"prompt", "completion", "label"}``.

Both with ``image`` or ``images``, ``video`` or ``videos``. ``system`` and ``history``, a list of
``[question, answer]``, are the turns before the prompt: context, of which nothing is learned.
"""

from typing import Any

from orchestrator.data.keys import check_keys
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.draft import Draft, chosen_and_rejected, response_text, row_object, scalar_meta
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown
from orchestrator.data.turns import EARLIER_FIELDS, prompt_turns

_COMMON = ("id", "prompt", *EARLIER_FIELDS, *VIDEO_FIELDS)
_LIKED, _DISLIKED = 1.0, -1.0


def read_plain_dpo(row: Any) -> Draft:
    """Check one row; the chosen response gets rank 1, the rejected one rank 2.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_COMMON, "chosen", "rejected"), images=IMAGE_FIELDS)
    return Draft(
        turns=place_media(prompt_turns(fields, "prompt"), media_parts(fields, image_fields=keys.images)),
        responses=chosen_and_rejected(fields),
        meta=scalar_meta(fields, ("id",)),
        unread=(keys.unread,),
    )


def read_plain_kto(row: Any) -> Draft:
    """Check one row; the score of its response is 1 where the label is true and −1 where it is false.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_COMMON, "completion", "label"), images=IMAGE_FIELDS)
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
