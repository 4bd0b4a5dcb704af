"""Rewards for showing where something is: boxes ``[x1, y1, x2, y2]``, points ``(x, y)``, in the label's own units."""

import re
from itertools import product

from remote_rm.scorers.answers import answer_of

Box = tuple[float, float, float, float]
_VALUE = r"\s*(-?\d{1,9}(?:\.\d{1,12})?)\s*"
_BOX = re.compile(rf"[\[(<]{_VALUE},{_VALUE},{_VALUE},{_VALUE}[\])>]")
_TWO_POINTS = re.compile(rf"\({_VALUE},{_VALUE}\)\s*,\s*\({_VALUE},{_VALUE}\)")
_POINT = re.compile(rf"[\[(<]{_VALUE},{_VALUE}[\])>]")


def iou(completion: str, label: str | None, *, threshold: float | None = None) -> float:
    """Overlap of the completion's boxes with the label's: intersection over union, each box matched once.

    With several boxes, the sum over the matches, best first, divided by the larger number of boxes.

    Args:
        threshold: 1 from this overlap on and 0 below it; not given, the overlap itself.
    """
    wanted, found = boxes(label or ""), boxes(answer_of(completion))
    if not wanted:
        raise ValueError(f"the label {label!r} holds no box [x1, y1, x2, y2]")
    pairs = sorted(product(wanted, found), key=lambda pair: overlap(*pair), reverse=True)
    free, open_, total = list(found), list(wanted), 0.0
    for one, other in pairs:
        if one in open_ and other in free:
            total += overlap(one, other)
            open_.remove(one)
            free.remove(other)
    mean = total / max(len(wanted), len(found))
    return mean if threshold is None else float(mean >= threshold)


def point(completion: str, label: str | None, *, radius: float = 0.0) -> float:
    """1 where the completion's last point lies in the label's box, or ``radius`` near the label's point; else 0."""
    found, wanted = _POINT.findall(answer_of(completion)), boxes(label or "")
    marks = _POINT.findall(label or "")
    if not wanted and not marks:
        raise ValueError(f"the label {label!r} holds no box [x1, y1, x2, y2] and no point (x, y)")
    if not found:
        return 0.0
    x, y = (float(value) for value in found[-1])
    if wanted:
        return float(any(left <= x <= right and top <= y <= bottom for left, top, right, bottom in wanted))
    return float(any(((x - float(a)) ** 2 + (y - float(b)) ** 2) ** 0.5 <= radius for a, b in marks))


def boxes(text: str) -> list[Box]:
    """All boxes of a text, corners in order."""
    found = _BOX.findall(text) or _TWO_POINTS.findall(text)
    return [_ordered(*(float(value) for value in values)) for values in found]


def _ordered(a: float, b: float, c: float, d: float) -> Box:
    return min(a, c), min(b, d), max(a, c), max(b, d)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union; 0 of boxes without an area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / whole if whole > 0 else 0.0
