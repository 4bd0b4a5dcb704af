"""What ``--functions`` names, how much it counts, and its options: ``FILE.py:NAME`` or ``number?weight=0.5``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from remote_rm.scorers import SCORERS

_PART = re.compile(r"[a-z][a-z0-9_]{0,63}")
TAKEN = (
    "mean", "pairwise", "critique", "uid", "sample_index", "prompt_text", "media", "media_paths", "completion_text",
    "completion_ids", "rollout_logprobs", "reward", "reward_status", "label", "verdict", "answer_right",
    "finish_reason", "seed", "policy_version", "oldest_version", "source",
)  # fmt: skip
"""``reward/mean`` is the whole reward's, two are added by others, the rest are columns of a run's rollout files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionSpec:
    """One function of a reward."""

    target: str
    """``MODULE:NAME`` of one that is built in, ``FILE.py:NAME`` of a user's."""
    name: str
    """Of its part of the reward, in replies, metrics and files."""
    weight: float = 1.0
    """The reward is the sum of the parts, each times its weight."""
    options: dict[str, str]
    """Further keyword arguments, as they were written."""


def function_specs(texts: Sequence[str]) -> tuple[FunctionSpec, ...]:
    """Read what was written, in its order.

    Raises:
        ValueError: in one sentence that names the text.
    """
    specs = tuple(_spec(text) for text in texts)
    for index, spec in enumerate(specs):
        if any(spec.name == other.name for other in specs[:index]):
            raise ValueError(f"--functions: {spec.name!r} is there twice; give one of them another ?name=")
    return specs


def _spec(text: str) -> FunctionSpec:
    target, _, query = text.partition("?")
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError as error:
        raise ValueError(f"--functions {text!r}: expected NAME=VALUE joined by & behind the ?") from error
    own = target.rpartition(":")[2]
    if target in SCORERS:
        target = SCORERS[target]
    elif not (target.rpartition(":")[0].endswith(".py") and own.isidentifier()):
        raise ValueError(f"--functions {text!r}: expected FILE.py:NAME or one of {', '.join(SCORERS)}")
    name = options.pop("name", text.partition("?")[0] if ":" not in text.partition("?")[0] else own)
    if not _PART.fullmatch(name) or name in TAKEN:
        raise ValueError(
            f"--functions {text!r}: a part cannot be called {name!r}; give it a ?name= of lower-case letters, digits "
            "and _"
        )
    written = options.pop("weight", "1")
    try:
        weight = float(written)
    except ValueError:
        weight = float("nan")
    if not abs(weight) < float("inf"):
        raise ValueError(f"--functions {text!r}: weight = {written!r} is no number")
    return FunctionSpec(target=target, name=name, weight=weight, options=options)
