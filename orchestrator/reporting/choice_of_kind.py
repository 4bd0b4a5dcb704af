"""Which kind of run a record is of."""

from pathlib import Path

from algorithms.preference_registry import PREFERENCE_ALGORITHMS

from orchestrator.reporting.offline_run import offline_run
from orchestrator.reporting.online_run import COLD_START, ONLINE
from orchestrator.reporting.run_kind import RunKind
from orchestrator.reporting.run_record import RunRecord


def kind_of(record: RunRecord) -> RunKind:
    """The kind that the algorithm's name tells; ``sft`` is two, told apart by what it learns from."""
    algorithm = PREFERENCE_ALGORITHMS.get(record.algo)
    if algorithm is None:
        return ONLINE
    if record.algo == "sft" and not _learns_from_store(record):
        return COLD_START
    return offline_run(algorithm)


def _learns_from_store(record: RunRecord) -> bool:
    # The rows know best: the store may have been moved since, the folder read from elsewhere.
    if record.names("data/") or record.names("eval/token_"):
        return True
    form, path = record.setting("data", "format"), record.setting("data", "path")
    if record.setting("data", "reader") is not None:
        return True
    return form not in (None, "r1_reward") or (not record.rows and isinstance(path, str) and Path(path).is_dir())
