"""``vlquery_json``: ``{"conversations": [{"from", "value"}, ...]}`` with media fields as in ``plain_dpo``, for ``sft``.

``from`` is ``user`` or ``human``, ``assistant`` or ``gpt``, or ``system``, which may be a field of its own instead.
Every answer is learned: a conversation of N answers is N instructions, the prompt of each all the turns before it.
"""

from typing import Any

from orchestrator.data.keys import check_keys, unread_inside
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.draft import Draft, row_object, scalar_meta
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown, text_field
from orchestrator.data.turns import check_order, system_turn

_READ = ("id", "conversations", "system", *VIDEO_FIELDS)
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
_LEARNED = ("loss", "weight", "train")
"""Keys by which others say whether a turn is learned."""


def read_vlquery_json(row: Any) -> tuple[Draft, ...]:
    """Check one row; a draft for each of its answers, which has neither rank nor score.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, _READ, images=IMAGE_FIELDS)
    spoken = _spoken(fields)
    turns = system_turn(fields) + [(_ROLES[turn["from"]], text_field(turn, "value")) for turn in spoken]
    check_order([role for role, _ in turns], field="conversations")
    last, _ = turns[-1]
    if last != "assistant":
        raise RowError(f"field 'conversations' ends with a turn of the {last}, expected an answer to a user turn")
    prompt = place_media(turns, media_parts(fields, image_fields=keys.images))
    inside = (key for turn in spoken for key in unread_inside(turn, ("from", "value"), where="conversations"))
    unread = ((*keys.unread, *inside),)
    return tuple(
        Draft(
            turns=prompt[:place],
            responses=(Response(text=text),),
            meta=scalar_meta(fields, ("id",)),
            unread=unread,
        )
        for place, (role, text) in enumerate(turns)
        if role == "assistant"
    )


def _spoken(fields: dict[str, Any]) -> list[dict[str, Any]]:
    conversation = fields.get("conversations")
    if not isinstance(conversation, list) or not conversation:
        raise RowError(f"field 'conversations' is {shown(conversation)}, expected a list of turns")
    for turn in conversation:
        sender = turn.get("from") if isinstance(turn, dict) else None
        if not isinstance(sender, str) or sender not in _ROLES:
            raise RowError(f"field 'conversations' has a turn from {shown(sender)}, expected {', '.join(_ROLES)}")
        for name in _LEARNED:
            if turn.get(name) not in (None, True):
                told = f"field 'conversations' has a turn whose {name!r} is {shown(turn[name])}"
                raise RowError(f"{told}, but every answer is learned, each as much")
    return conversation
