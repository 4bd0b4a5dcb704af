"""``plain_dpo``: ``{"prompt", "chosen", "rejected"}``.

With ``image`` or ``images``, ``video`` or ``videos``. ``system`` and ``history``, a list of
``[question, answer]``, are the turns before the prompt: context, of which nothing is learned.
"""

from typing import Any

from orchestrator.data.keys import check_keys
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.draft import Draft, chosen_and_rejected, row_object, scalar_meta, scalars
from orchestrator.data.turns import EARLIER_FIELDS, prompt_turns

_COMMON = ("prompt", *EARLIER_FIELDS, *VIDEO_FIELDS)


def read_plain_dpo(row: Any) -> Draft:
    """Check one row; the chosen response gets rank 1, the rejected one rank 2.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_COMMON, *scalars(fields, ("id",)), "chosen", "rejected"), images=IMAGE_FIELDS)
    return Draft(
        turns=place_media(prompt_turns(fields, "prompt"), media_parts(fields, image_fields=keys.images)),
        responses=chosen_and_rejected(fields),
        meta=scalar_meta(fields, ("id",)),
        unread=(keys.unread,),
    )
