"""The seam between the service and whoever judges."""

from dataclasses import dataclass
from typing import Protocol

from remote_rm.schema import Verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the words it was read from."""

    verdict: Verdict
    raw: str


class JudgeError(Exception):
    """No answer could be had from the judge; the message says why."""


class JudgeUnavailable(JudgeError):
    """Unreachable, too slow or overloaded: another attempt may succeed."""

    def __init__(self, told: str, *, wait_s: float = 0.0) -> None:
        """``wait_s`` is how long it asked to be left alone."""
        super().__init__(told)
        self.wait_s = wait_s


class Judge(Protocol):
    """Says whether the end of a reasoning and an answer mean the same."""

    @property
    def id(self) -> str:
        """Names whose verdicts these are, in the cache and in ``/healthz``."""
        ...

    @property
    def rubric_version(self) -> str:
        """Changes whenever the same input may be judged differently."""
        ...

    async def judge(self, tail: str, answer: str) -> Judgement:
        """Judge one pair.

        Raises:
            JudgeError: no answer could be had. An answer that cannot be read is the verdict ``unknown`` instead.
        """
        ...

    async def probe(self) -> None:
        """Return when the judge can be asked now.

        Raises:
            JudgeError: it cannot.
        """
        ...

    async def close(self) -> None:
        """Drop connections."""
        ...
