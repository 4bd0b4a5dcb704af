"""Which parts a reward has, and how a rulebook makes one number of them: ours, or the release's for comparison."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from remote_rm.parts import ACCURACY, CONSISTENCY, FORMAT, Part, Rule

PARTS: dict[str, Part] = {
    "format": FORMAT,
    "accuracy": ACCURACY,
    "consistency": CONSISTENCY,
}
"""Every part by its name, lower-case words joined by ``_``, in the order in which they are found."""

Parts = Mapping[str, float | None]
"""What a reward is made of, by name; None where a part was not looked at or could not be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """One way to score: a rule for each part, and what the parts come to."""

    name: Literal["strict", "compat"]
    """What ``--scoring`` calls it."""
    formula: Callable[[Parts], float]
    asks_judge: Callable[[Parts], bool]
    """Whether a verdict can matter beside the parts that are known without one."""

    def rules(self) -> dict[str, Rule]:
        """How it finds each part."""
        return {
            name: part.compat if self.name == "compat" and part.compat is not None else part.strict
            for name, part in PARTS.items()
        }

    def reward(self, parts: Parts) -> float:
        """The scalar reward."""
        return self.formula(parts) + sum(part.weight * (parts[name] or 0.0) for name, part in PARTS.items())


def r1_reward(parts: Parts) -> float:
    """R = 0.5 F + Acc (1 + 0.5 C), in [0, 2]; F and Acc in {0, 1}, C in {−1, 0, +1}.

    C may be None only where Acc is 0 and it cannot matter. Source: R1-Reward, arXiv 2505.02835.
    """
    shape, accuracy, consistency = parts["format"], parts["accuracy"], parts["consistency"]
    assert shape is not None and accuracy is not None, "these are known of every response with a label"
    if accuracy == 0.0:
        return 0.5 * shape
    assert consistency is not None, "a right answer needs a consistency value"
    return 0.5 * shape + accuracy * (1.0 + 0.5 * consistency)


def _is_right(parts: Parts) -> bool:
    return parts["accuracy"] != 0.0


STRICT = Rulebook(name="strict", formula=r1_reward, asks_judge=_is_right)
COMPAT = Rulebook(name="compat", formula=r1_reward, asks_judge=_is_right)
