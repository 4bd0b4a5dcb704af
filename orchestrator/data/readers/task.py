"""``task``: a problem with its answer, as data for reinforcement learning are written.

The prompt in ``problem``, ``prompt``, ``question``, ``query`` or ``messages``, text or chat turns; the label in
``answer``, ``solution``, ``ground_truth`` or ``label``, text or a number, or none. ``response`` is a demonstration,
where there is one. Media as in ``plain_dpo``.
"""

from typing import Any

from orchestrator.data.keys import check_keys, is_empty
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts
from orchestrator.data.readers.chat import asked, chat_turns
from orchestrator.data.readers.draft import Draft, response_text, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, is_finite_number, shown, unicode_text
from orchestrator.data.turns import EARLIER_FIELDS

_PROMPTS = ("problem", "prompt", "question", "query", "messages", "conversations")
_LABELS = ("answer", "solution", "ground_truth", "label")
_META = ("id", "idx", "source", "data_source", "category", "ability", "difficulty")


def read_task(row: Any) -> Draft:
    """Check one row.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(
        fields,
        (*_PROMPTS, *_LABELS, "response", *EARLIER_FIELDS, *VIDEO_FIELDS, *scalars(fields, _META)),
        images=IMAGE_FIELDS,
    )
    given = [name for name in _PROMPTS if not is_empty(fields.get(name))]
    if len(given) != 1:
        told = " and ".join(map(repr, given)) or "none"
        raise RowError(f"the row has {told} of {', '.join(_PROMPTS)}, expected one that asks")
    (prompt,) = given
    turns = asked(fields, prompt)
    demonstrated = () if is_empty(fields.get("response")) else (Response(text=response_text(fields, "response")),)
    return Draft(
        responses=demonstrated,
        turns=chat_turns(turns, media_parts(fields, image_fields=keys.images), field=prompt),
        label=_label(fields),
        meta={"question": _asked(turns)} | scalar_meta(fields, _META),
        unread=(keys.unread,),
    )


def _label(fields: dict[str, Any]) -> str | None:
    given = [name for name in _LABELS if not is_empty(fields.get(name))]
    if len(given) > 1:
        raise RowError(f"fields {given[0]!r} and {given[1]!r} are both given, expected one answer")
    if not given:
        return None
    value = fields[given[0]]
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if isinstance(only, str):
        return unicode_text(only, given[0])
    if not is_finite_number(only):
        raise RowError(f"field {given[0]!r} is {shown(value)}, expected a text or a number")
    return str(only)


def _asked(turns: list[tuple[str, Any]]) -> str:
    content = turns[-1][1]
    return content if isinstance(content, str) else " ".join(p["text"] for p in content if p.get("type") == "text")
