"""``llava_preference`` and ``llava_ppo``: the files of LLaVA-RLHF beside its demonstrations, which are conversations.

A preference is ``{"id", "image", "conversations", "output_1", "output_2", "preference": 1}``: both outputs answer the
conversation in place of its own last answer, and 0 prefers neither. A prompt is ``{"id", "image", "conversations",
"caption_type": 2, "length_bonus": 1.0}``: the first question alone, with what its answer is known to be; of a general
one, ``caption_type`` 1, ``answer`` may say so, which the release has not. Either may
have ``facts`` or ``captions``, texts that are true of the sample; see ``orchestrator.data.facts``.
"""

from typing import Any

from orchestrator.data.facts import FIELDS, META, row_facts
from orchestrator.data.keys import check_keys, is_empty
from orchestrator.data.media import IMAGE_FIELDS, VIDEO_FIELDS, media_parts, refuse_placeholders
from orchestrator.data.readers.chat import ROLES, asked, chat_turns, said, text_of
from orchestrator.data.readers.draft import Draft, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, is_finite_number, shown, unicode_text

_CHAT = "conversations"
_READ = (_CHAT, "system", *FIELDS, *VIDEO_FIELDS)
_OUTPUTS = ("output_1", "output_2")
_RANKS = {0: (1, 1), 1: (1, 2), 2: (2, 1)}
"""Of the two outputs, by ``preference``."""
_ANSWERS = {1: None, 2: "A", 3: "B", 4: "C", 5: "D", 6: "No", 7: "Yes"}
"""What is right, by ``caption_type``; nobody knows of a general question."""
_LATER = "conversations (turns behind the first answer)"


def read_llava_preference(row: Any) -> Draft:
    """Check one row; the preferred output gets rank 1, the other one 2, and both 1 where neither is preferred.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(
        fields, (*_READ, *_OUTPUTS, "preference", *scalars(fields, ("id", "hallucination"))), images=IMAGE_FIELDS
    )
    preference = fields.get("preference")
    if type(preference) is not int or preference not in _RANKS:
        raise RowError(f"field 'preference' is {shown(preference)}, expected 1, 2, or 0 for neither")
    outputs = [_output(fields, name) for name in _OUTPUTS]
    if outputs[0][0] == outputs[1][0]:
        raise RowError(f"fields 'output_1' and 'output_2' are the same text, {shown(outputs[0][0])}")
    turns = _spoken(fields)
    if turns[-1][0] == "assistant":
        turns = turns[:-1]  # the outputs stand for it
    return Draft(
        turns=chat_turns(turns, media_parts(fields, image_fields=keys.images), field=_CHAT),
        responses=tuple(
            Response(text=text, rank=rank, provenance=model)
            for (text, model), rank in zip(outputs, _RANKS[preference], strict=True)
        ),
        meta=scalar_meta(fields, ("id", "hallucination")) | _facts(fields),
        unread=(keys.unread,),
    )


def read_llava_ppo(row: Any) -> Draft:
    """Check one row; its kind of question and its length bonus are in ``meta``, the right answer is the label.

    The answer in the conversation is the response, a demonstration; turns behind it are not read.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(
        fields, (*_READ, *scalars(fields, ("id",)), "caption_type", "length_bonus", "answer"), images=IMAGE_FIELDS
    )
    kind, bonus = (1 if fields.get("caption_type") is None else fields["caption_type"]), fields.get("length_bonus")
    if type(kind) is not int or kind not in _ANSWERS:
        raise RowError(f"field 'caption_type' is {shown(kind)}, expected 1 to 7")
    if bonus is not None and not is_finite_number(bonus):
        raise RowError(f"field 'length_bonus' is {shown(bonus)}, expected a number")
    turns = _spoken(fields)
    first = next((place for place, (role, _) in enumerate(turns) if role == "user"), len(turns) - 1)
    answers, later = turns[first + 1 : first + 2], turns[first + 2 :]
    if answers and answers[0][0] != "assistant":
        raise RowError(f"field {_CHAT!r} has a turn of the {answers[0][0]} behind the question, expected an answer")
    answer = _ANSWERS[kind]
    known = _known(fields, answer)
    return Draft(
        turns=chat_turns(turns[: first + 1], media_parts(fields, image_fields=keys.images), field=_CHAT),
        responses=tuple(Response(text=_text(content, _CHAT)) for _, content in answers),
        label=known,
        meta={
            "kind": "general" if answer is None else "choice" if len(answer) == 1 else "yes_no",
            "length_bonus": 1.0 if bonus is None else float(bonus),
            **scalar_meta(fields, ("id",)),
            **_facts(fields),
        },
        unread=((*keys.unread, *([_LATER] if later else [])),),
    )


def _known(fields: dict[str, Any], of_kind: str | None) -> str | None:
    """What is right: by the kind of the question, or as the row says of a general one."""
    own = fields.get("answer")
    if is_empty(own):
        return of_kind
    if not isinstance(own, str):
        raise RowError(f"field 'answer' is {shown(own)}, expected text")
    text = _text(own, "answer")
    if of_kind is not None and text != of_kind:
        raise RowError(f"field 'answer' is {shown(text)}, and its 'caption_type' says {of_kind!r}")
    return text


def _spoken(fields: dict[str, Any]) -> list[tuple[str, Any]]:
    if not isinstance(fields.get(_CHAT), list) or is_empty(fields[_CHAT]):
        raise RowError(f"field {_CHAT!r} is {shown(fields.get(_CHAT))}, expected a list of turns")
    return asked(fields, _CHAT)


def _output(fields: dict[str, Any], name: str) -> tuple[str, str | None]:
    """Its text, and whose it is, where it is signed with the name of a model."""
    value = fields.get(name)
    if is_empty(value):
        raise RowError(f"field {name!r} is {shown(value)}, expected an answer")
    model = None
    if isinstance(value, dict) and isinstance(speaker := value.get("from"), str) and speaker not in ROLES:
        value, model = value | {"from": "assistant"}, unicode_text(speaker, name)
    return _text(said([value] if isinstance(value, dict) else value, name), name), model


def _text(content: Any, field: str) -> str:
    text = text_of(content, field)
    refuse_placeholders(text, field)
    if not text.strip():
        raise RowError(f"field {field!r} answers {shown(text)}, expected text")
    return text


def _facts(fields: dict[str, Any]) -> dict[str, Any]:
    facts = row_facts(fields)
    return {META: list(facts)} if facts else {}
