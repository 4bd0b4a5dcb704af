"""What a section of the configuration is. The docstring under a field is its help on the command line."""

from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]
NONE_WORD = "none"


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
