"""What a run's figures say has gone wrong although nothing failed: told when it begins, and where it still stands.

One set of rules (``alarm_rules.py``) serves the console, the trackers, the guard ``run.alarms`` and the report.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from algorithms.figures import Figure
from orchestrator.errors import GuardStop
from orchestrator.run.alarm_rules import RULES, Row, Watched

ALARMS = Figure("guard/alarms", "alarms that stand after the step, each told on the console and in log.jsonl")
_HEAD, _TAIL = 64, 1024
"""Rows that rules look at: what a run began with, and the last."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that has gone wrong."""

    name: str
    told: str
    """One sentence: the figure, and what to try."""
    begun: int
    """Step after which it was first so."""


class Alarms:
    """The steps of a run as they come, and what stands after each."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._rows: list[Row] = []
        self.standing: dict[str, Alarm] = {}
        """By name, as they stand after the last step."""
        self.past: list[Alarm] = []
        """Those that are over."""
        self.begun: list[Alarm] = []
        """Those that began with the last step."""

    def after(self, step: int, row: Row) -> list[Alarm]:
        """Take the figures of a finished step; the alarms that begin with it."""
        self._rows.append(row)
        del self._rows[_HEAD : max(_HEAD, len(self._rows) - _TAIL)]
        found = {name: told for name, rule in RULES.items() if (told := rule(self._rows, self._watched)) is not None}
        before = self.standing
        self.past += [alarm for name, alarm in before.items() if name not in found]
        self.standing = {
            name: Alarm(name, told, before[name].begun if name in before else step) for name, told in found.items()
        }
        self.begun = [alarm for name, alarm in self.standing.items() if name not in before]
        return self.begun

    def lines(self) -> list[str]:
        """What there was, for people: what stands, then what is over."""
        stand = [f"Alarm since step {one.begun}: {one.told}" for one in self.standing.values()]
        return stand + [f"Alarm of step {one.begun}, over since: {one.told}" for one in self.past]

    def stop(self) -> None:
        """Stop the run where an alarm began with the last step; one that a resumed run begins with does not.

        Raises:
            GuardStop: with what it says.
        """
        if self.begun:
            told = "; ".join(alarm.told for alarm in self.begun)
            raise GuardStop(f"{told} (run.alarms = 'stop'; the same command goes on from here)")


def replayed(rows: Iterable[Row], watched: Watched) -> Alarms:
    """The alarms of the steps that a run has behind it."""
    alarms = Alarms(watched)
    for row in rows:
        alarms.after(row["step"], row)
    return alarms


def rows_in(text: str) -> list[Row]:
    """Rows of ``metrics.jsonl``, without a line that a crash tore."""
    found: list[Row] = []
    for line in text.splitlines():
        try:
            row: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            found.append(row)
    return found


def told_at_the_end(metrics: str, config: Mapping[str, Any]) -> list[str]:
    """The alarms of a run as its folder tells them, for its last lines.

    Args:
        metrics: Text of ``metrics.jsonl``.
        config: As ``Watched.of`` takes it.
    """
    return replayed(rows_in(metrics), Watched.of(config)).lines()
