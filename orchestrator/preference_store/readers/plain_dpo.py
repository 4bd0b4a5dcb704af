"""``plain_dpo``: ``{"prompt", "chosen", "rejected"}``, with ``image`` or ``images``, ``video`` or ``videos``."""

from typing import Any

from orchestrator.datasets.fields import text_field
from orchestrator.preference_store.readers.draft import Draft, chosen_and_rejected, row_object, scalar_meta
from orchestrator.preference_store.readers.placeholders import media_parts, place_media


def read_plain_dpo(row: Any) -> Draft:
    """Check one row; the chosen response gets rank 1, the rejected one rank 2.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    return Draft(
        turns=place_media([("user", text_field(fields, "prompt"))], media_parts(fields)),
        responses=chosen_and_rejected(fields),
        meta=scalar_meta(fields, ("id",)),
    )
