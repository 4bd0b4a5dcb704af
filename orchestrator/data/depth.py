"""How deep a decoded value may be: whoever walks one calls itself, and the interpreter follows only so far."""

from collections.abc import Iterable
from typing import Any

_MOST_LEVELS = 64
"""Of lists and objects in each other, far above those of any format."""


class TooDeep(ValueError):
    """A value that nobody walks."""


def shallow(value: Any) -> Any:
    """Return a decoded value that can be walked.

    Raises:
        TooDeep: lists and objects stand in each other deeper than the bound, which is told.
    """
    level = [value]
    for _ in range(_MOST_LEVELS + 1):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return value
    raise TooDeep(f"nested more than {_MOST_LEVELS} levels deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
