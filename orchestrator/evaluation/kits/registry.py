"""The kits by name: a new one is its module and a line here."""

from collections.abc import Sequence
from importlib import import_module

from orchestrator.errors import RefusedInput
from orchestrator.evaluation.kits.kit import Kit

KITS = {"evalscope": "evalscope", "lmms-eval": "lmms_eval"}
"""Modules beside this one, each with a ``KIT``."""


def kit_of(name: str) -> Kit:
    """The kit of a name.

    Raises:
        RefusedInput: there is none.
    """
    if name not in KITS:
        raise RefusedInput(f"kit = {name!r}: expected one of {', '.join(KITS)}")
    return import_module(f"{__package__}.{KITS[name]}").KIT


def asks_kit(argv: Sequence[str]) -> bool:
    """Whether a command line is one of a kit's."""
    return any(word.partition("=")[0] == "--kit" for word in argv)
