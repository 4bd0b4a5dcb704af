"""The formats of data files, for online and offline runs: a new one is its reader and a line here.

The table stands on this floor because ``data.format`` takes its names; readers are imported where files are read. One
that is in no table is ``data.reader``, a function from a decoded row to a ``Draft`` in a file of the user's. It serves
everything unless it says otherwise, by an attribute ``serves``; an attribute ``rows_share`` is read likewise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from orchestrator.config.plugins import load_object
from orchestrator.errors import RefusedInput

Served = Literal["prompts", "demonstrations", "preferences"]
"""What the rows of a format can be: asked of a policy, with a label where they have one; imitated; compared."""


@dataclass(frozen=True, slots=True)
class Format:
    """How the rows of a file are read, and what for."""

    reader: str
    """``module:function`` in ``orchestrator.data.readers``, or the user's ``FILE.py:NAME``."""
    serves: tuple[Served, ...]
    rows_share: str | None = None
    """Field by which several rows are one instruction: the reader takes a tuple of ``JsonRow``, not one row's value."""


FORMATS: dict[str, Format] = {
    "llava_ppo": Format("llava_rlhf:read_llava_ppo", ("prompts",)),
    "llava_preference": Format("llava_rlhf:read_llava_preference", ("preferences",)),
    "r1_reward": Format("r1_reward:read_r1_reward", ("prompts", "demonstrations")),
    "mm_rlhf": Format("mm_rlhf:read_mm_rlhf", ("preferences",)),
    "mm_rlhf_pairs": Format("mm_rlhf_pairs:read_mm_rlhf_pairs", ("preferences",), rows_share="id"),
    "pairs": Format("pairs:read_pairs", ("preferences",)),
    "plain_dpo": Format("plain:read_plain_dpo", ("preferences",)),
    "plain_kto": Format("kto:read_plain_kto", ("preferences",)),
    "rlhfv": Format("rlhfv:read_rlhfv", ("preferences",)),
    "task": Format("task:read_task", ("prompts", "demonstrations")),
    "vlfeedback": Format("vlfeedback:read_vlfeedback", ("preferences",)),
    "vlquery_json": Format("vlquery_json:read_vlquery_json", ("demonstrations",)),
}
if TYPE_CHECKING:  # no checker knows a Literal that is made of a table
    DataFormat = str
else:
    DataFormat = Literal[tuple(FORMATS)]


def format_of(read_by: str) -> Format:
    """The format of a name in the table or of the user's ``FILE.py:NAME``.

    Raises:
        RefusedInput: see ``load_object``, or its ``serves`` is something else.
    """
    if read_by in FORMATS:
        return FORMATS[read_by]
    reader = load_object(read_by, option="data.reader")
    serves = tuple(getattr(reader, "serves", get_args(Served)))
    if not serves or not set(serves) <= set(get_args(Served)):
        expected = ", ".join(map(repr, get_args(Served)))
        raise RefusedInput(f"data.reader = {read_by!r}: its serves = {serves!r}, expected some of {expected}")
    return Format(read_by, serves, getattr(reader, "rows_share", None))


def refuse_unserved(read_by: str, *, algo: str, needs: tuple[Served, ...]) -> None:
    """Stop where a format's rows are nothing that the algorithm learns from.

    Args:
        needs: One of which is enough.
    Raises:
        RefusedInput: with the formats that would serve.
    """
    if not set(needs) & set(format_of(read_by).serves):
        option = "data.format" if read_by in FORMATS else "data.reader"
        others = ", ".join(repr(name) for name, one in FORMATS.items() if set(needs) & set(one.serves))
        raise RefusedInput(f"{option} = {read_by!r} cannot serve algo = {algo!r}, only {others}")
