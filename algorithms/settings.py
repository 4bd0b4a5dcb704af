"""What a section of the configuration is. The docstring under a field is its help on the command line."""

import os
import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

MOST = 1_000_000_000
"""Largest of a count: what is allocated for a number is checked by arithmetic, and arithmetic ends somewhere."""
_MOST_WORKERS, _MOST_S = 10_000, 1e8
_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Of one part of a path and of the whole, bytes: what Linux takes."""
NONE_WORD = "none"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def path_fault(text: str) -> str | None:
    """Why no file can have this path, as the end of a sentence; None where one can."""
    if "\0" in text:
        return "holds a NUL character, which no path can"
    if _ADDRESS.match(text):
        return "is an address, and a path of this machine is needed"
    size = len(os.fsencode(text))
    if size > _LONGEST_PATH:
        return f"is a path of {size} bytes, and the longest has {_LONGEST_PATH}"
    longest = max(len(os.fsencode(part)) for part in text.split("/"))
    if longest > _LONGEST_NAME:
        return f"has a name of {longest} bytes, and the longest has {_LONGEST_NAME}"
    try:
        Path(text).resolve()
    except (OSError, RuntimeError):
        return "is a link that leads back to itself, or cannot be followed"
    return None


def _a_path(text: str) -> str:
    if fault := path_fault(text):
        raise ValueError(fault)
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no word of a command line or a file name can")
    return text


Text = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]
GivenPath = Annotated[str, Field(min_length=1), AfterValidator(_a_path)]
"""Of a file or folder that the user names; whether it is there is not asked here."""
Count = Annotated[int, Field(ge=1, le=MOST)]
Times = Annotated[int, Field(ge=0, le=MOST)]
"""A count that may be none."""
Workers = Annotated[int, Field(ge=1, le=_MOST_WORKERS)]
"""Of one role: a plan holds each of them."""
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0, le=_MOST_S)]
"""At most three years: clocks and sockets count no further."""
GiB = Annotated[float, Field(gt=0.0, le=1e6)]


class Section(BaseModel):
    """Frozen, closed and strictly typed; an optional field is unset by the word ``none``."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def check(self, config: Any) -> None:
        """Refuse what nobody can do with it beside the run's other options; asked whatever the run's algorithm is.

        Raises:
            ValueError: in one sentence that names option, value and bound.
        """

    @model_validator(mode="before")
    @classmethod
    def _unset(cls, values: Any) -> Any:
        # TOML has no null and a flag is a string, so both spell it as a word.
        if not isinstance(values, dict):
            return values
        optional = {name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {k: None if k in optional and v == NONE_WORD else v for k, v in values.items()}
