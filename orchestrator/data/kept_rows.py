"""What a prompt keeps of its row, for whoever rewards its answers."""

import math
from pathlib import Path
from typing import Any

from orchestrator.data.rows import RowPicture, row_pictures


def without_pictures(row: Any) -> dict[str, Any]:
    """What a row says besides the pictures that stand in it, as plain JSON; nothing of one that is no object."""
    kept = row.items() if isinstance(row, dict) else ()
    return {_plain(name): _plain(one) for name, one in kept if one == [] or not row_pictures(one)}


def _plain(value: Any) -> Any:
    """Halves of characters replaced, null for a number that is none."""
    if isinstance(value, RowPicture):
        return Path(value).name  # by its content; where it lies is nobody's affair
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_plain(str(name)): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int) else str(value)
