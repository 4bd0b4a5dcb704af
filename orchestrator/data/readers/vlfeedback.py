"""``vlfeedback``: rows of MMInstruction/VLFeedback, several rated responses to one prompt.

``{"id", "prompt", "img_path", "completions"}``; completions are ``{"annotations", "model", "response"}``, either an
object of three lists or a list of objects. An annotation is ``{aspect: {"Rating", "Rationale"}}``.
"""

import math
from statistics import mean
from typing import Any

from orchestrator.data.keys import check_keys, is_empty, unread_inside
from orchestrator.data.media import VIDEO_FIELDS, media_parts, place_media
from orchestrator.data.readers.draft import Draft, response_text, row_object, scalar_meta, scalars
from orchestrator.data.records import Response
from orchestrator.data.rows import RowError, shown, text_field, unicode_text

_READ = ("prompt", "models", "completions", *VIDEO_FIELDS)
_LISTS = ("annotations", "response", "model")


def read_vlfeedback(row: Any) -> Draft:
    """Check one row; the score of a response is the mean of its ratings.

    A response with a rating that is no number, or with none at all, keeps its place without a score.

    Raises:
        RowError: naming field and value.
    """
    fields = row_object(row)
    keys = check_keys(fields, (*_READ, *scalars(fields, ("id",))), images=("img_path",))
    completions = _completions(fields)
    inside = [key for completion in completions for key in _unread(completion)]
    responses, models = tuple(_response(completion) for completion in completions), fields.get("models")
    if not is_empty(models) and not (isinstance(models, list) and all(isinstance(name, str) for name in models)):
        raise RowError(f"field 'models' is {shown(models)}, expected a list of names")
    return Draft(
        turns=place_media([("user", text_field(fields, "prompt"))], media_parts(fields, image_fields=keys.images)),
        responses=responses,
        meta=scalar_meta(fields, ("id",)),
        unread=((*keys.unread, *inside),),
    )


def _completions(fields: dict[str, Any]) -> list[dict[str, Any]]:
    completions = fields.get("completions")
    if isinstance(completions, dict):
        completions = _from_lists(completions)
    if not isinstance(completions, list) or not completions or not all(isinstance(c, dict) for c in completions):
        raise RowError(f"field 'completions' is {shown(completions)}, expected a list of responses")
    return completions


def _from_lists(completions: dict[str, Any]) -> list[dict[str, Any]]:
    lists = {name: completions[name] for name in (*_LISTS, *completions) if completions.get(name) is not None}
    for name in ("annotations", "response"):
        if not isinstance(lists.get(name), list):
            raise RowError(f"field 'completions.{name}' is {shown(lists.get(name))}, expected a list")
    lengths = {name: len(values) if isinstance(values, list) else 0 for name, values in lists.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise RowError(f"field 'completions' has lists of different lengths: {told}")
    return [dict(zip(lists, values, strict=True)) for values in zip(*lists.values(), strict=True)]


def _unread(completion: dict[str, Any]) -> list[str]:
    unread = list(unread_inside(completion, _LISTS, where="completions"))
    annotation = completion.get("annotations")
    for aspect in annotation.values() if isinstance(annotation, dict) else ():
        if isinstance(aspect, dict):
            unread += unread_inside(aspect, ("Rating", "Rationale"), where="annotations")
    return unread


def _response(completion: dict[str, Any]) -> Response:
    annotation, model = completion.get("annotations"), completion.get("model")
    if not isinstance(annotation, dict):
        raise RowError(f"field 'annotations' is {shown(annotation)}, expected an object of aspects")
    if not (model is None or isinstance(model, str)):
        raise RowError(f"field 'model' is {shown(model)}, expected text")
    for name, aspect in annotation.items():
        if not (isinstance(aspect, dict) or is_empty(aspect)):
            raise RowError(
                f"field 'annotations' has {shown(name)} as {shown(aspect)}, expected an object with a Rating"
            )
    return Response(
        text=response_text(completion, "response"),
        score=_score(annotation),
        critique=_critique(annotation),
        provenance=unicode_text(model, "model") if isinstance(model, str) else None,
    )


def _score(annotation: dict[str, Any]) -> float | None:
    ratings = [_rating(aspect) for aspect in annotation.values()]
    known = [rating for rating in ratings if rating is not None]
    # The mean of floats is exact in statistics, rounded once: equal means are equal numbers in any order of aspects.
    return mean(known) if known and len(known) == len(ratings) else None


def _rating(aspect: Any) -> float | None:
    value = aspect.get("Rating") if isinstance(aspect, dict) else None
    if isinstance(value, dict | list):
        raise RowError(f"field 'Rating' is {shown(value)}, expected a number")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        rating = float(value)
    except (ValueError, OverflowError):
        return None
    return rating if math.isfinite(rating) else None


def _critique(annotation: dict[str, Any]) -> str | None:
    said = {name: aspect.get("Rationale") for name, aspect in annotation.items() if isinstance(aspect, dict)}
    for rationale in said.values():
        if not (isinstance(rationale, str) or is_empty(rationale)):
            raise RowError(f"field 'Rationale' is {shown(rationale)}, expected text")
    lines = [f"{name}: {rationale}" for name, rationale in said.items() if isinstance(rationale, str) and rationale]
    return unicode_text("\n".join(lines), "Rationale") if lines else None
