"""``r1_reward``: pairwise judgements as the online loop reads them; see ``orchestrator.data.r1_reward``.

Its turns name their media themselves, so that placeholders mean nothing in them.
"""

from typing import Any

from orchestrator.data.r1_reward import parse_r1_row
from orchestrator.data.readers.draft import Draft
from orchestrator.data.records import Response


def read_r1_reward_row(row: Any) -> Draft:
    """Check one row; its demonstration, if it has one, is the response, its label and question are in ``meta``.

    Raises:
        RowError: naming field and value.
    """
    parsed = parse_r1_row(row)
    return Draft(
        turns=parsed.turns,
        responses=() if parsed.target is None else (Response(text=parsed.target),),
        meta={"label": parsed.label, "question": parsed.question},
        unread=(parsed.unread,),
    )
