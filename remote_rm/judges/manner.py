"""How a judge is asked and its words are read: as ours, or as the R1-Reward release did."""

from collections.abc import Callable
from dataclasses import dataclass

from remote_rm.judges.replies import verdict_of
from remote_rm.judges.request import ROOM, RequestShape
from remote_rm.judges.rubric import RUBRIC_VERSION
from remote_rm.schema import Verdict
from remote_rm.scorers.compat import released_verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """One way to have a verdict."""

    rubric_version: str
    """Differs between manners: what one reads as a verdict, the other may not."""
    read: Callable[[str], Verdict]
    most_asks: int
    """Times a judge is asked until its reply can be read."""
    shape: RequestShape


STRICT = Manner(rubric_version=RUBRIC_VERSION, read=verdict_of, most_asks=1, shape=RequestShape())
COMPAT = Manner(
    rubric_version=f"{RUBRIC_VERSION}-released",
    read=released_verdict,
    most_asks=3,
    # It may say what it likes, and another time something else.
    shape=RequestShape(tokens=ROOM, temperature=0.1, is_constrained=False),
)
