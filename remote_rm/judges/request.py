"""What a request to a judge holds besides its messages, and how it changes when an endpoint refuses part of it."""

import json
import re
from dataclasses import dataclass, replace
from typing import Any

CONSISTENT, INCONSISTENT = "1", "0"
"""All that a judge is to say."""
ROOM = 4096
"""Tokens for a judge that thinks before it answers, or that nothing keeps to one character."""
_BOUNDS = ("max_tokens", "max_completion_tokens")
_CONSTRAINT = "structured_outputs"
_OURS = (*_BOUNDS, "temperature", _CONSTRAINT)
_MORE_ROOM = "more room"
"""Named where the bound is taken, but not one as low as ours."""
# As the wire has it, in camel case, or in words.
_SPELLED = {
    name: re.compile(rf"(?<![a-z0-9]){name.replace('_', '[_ -]?')}(?![a-z0-9])", re.IGNORECASE) for name in _OURS
}
_ANY_BOUND = re.compile(r"max[_ -]?(?:(?:completion|output|new)[_ -]?)?tokens", re.IGNORECASE)
_TOO_LOW = re.compile(r"minimum|at least|>=|too (?:small|low)|higher|limit was reached", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShape:
    """The parameters of a request. Each refusal takes one away for good, so only so many can follow."""

    tokens: int = 1
    bound: str | None = _BOUNDS[0]
    """Name under which the endpoint takes the bound on tokens; None where it takes none."""
    temperature: float | None = 0.0
    is_constrained: bool = True
    """vLLM's constrained decoding: the only tokens it may choose from."""

    def parameters(self) -> dict[str, Any]:
        """As the endpoint is sent them."""
        sent: dict[str, Any] = {}
        if self.bound is not None:
            sent[self.bound] = self.tokens
        if self.temperature is not None:
            sent["temperature"] = self.temperature
        if self.is_constrained:
            sent[_CONSTRAINT] = {"choice": [INCONSISTENT, CONSISTENT]}
        return sent

    def without(self, named: set[str]) -> "RequestShape | None":
        """The request without the parameters an endpoint has named; None where it named none that could go.

        What is least common goes first and alone: an endpoint that names it may name beside it all that it does take,
        or name only those. One that does not take the one name of a bound may take the other.
        """
        if _CONSTRAINT in named and self.is_constrained:
            return self._unconstrained()
        if _MORE_ROOM in named and self.tokens < ROOM:
            return replace(self, tokens=ROOM)
        shape = self
        if named & set(_BOUNDS) and self.bound is not None:
            shape = replace(shape, bound=_BOUNDS[1] if self.bound == _BOUNDS[0] else None)
        if "temperature" in named:
            shape = replace(shape, temperature=None)
        if shape == self and named and self.is_constrained:
            return self._unconstrained()
        return shape if shape != self else None

    def _unconstrained(self) -> "RequestShape":
        return replace(self, is_constrained=False, tokens=ROOM)


def refused_parameters(body: bytes) -> set[str]:
    """Which of our parameters an endpoint's refusal names: in a field made for that, or else in its words."""
    text = body.decode(errors="replace")
    try:
        fields = set(_named_in(json.loads(text)))
    except (ValueError, RecursionError):
        fields = set()
    room = {_MORE_ROOM} if _ANY_BOUND.search(text) and _TOO_LOW.search(text) else set[str]()
    if found := fields & set(_OURS):
        return found | room
    return {name for name, spelled in _SPELLED.items() if spelled.search(text)} | room


def _named_in(error: Any) -> list[str]:
    """Values of ``param``, as OpenAI has it, and the names in ``loc``, as pydantic has it, wherever they stand."""
    if isinstance(error, list):
        return [name for part in error for name in _named_in(part)]
    if not isinstance(error, dict):
        return []
    named = [error.get("param"), *(error["loc"] if isinstance(error.get("loc"), list) else [])]
    return [n for n in named if isinstance(n, str)] + [name for part in error.values() for name in _named_in(part)]
