"""Which kind of run a record is of."""

from pydantic import ValidationError

from algorithms.algorithm import Needs
from algorithms.registry import ALGORITHMS, algorithm_class
from orchestrator.config.data_folders import is_store
from orchestrator.config.formats import FORMATS
from orchestrator.reporting.offline_run import offline_run
from orchestrator.reporting.online_run import ANSWERING, COLD_START, COLD_START_ANSWERING, ONLINE, judges
from orchestrator.reporting.run_kind import RunKind
from orchestrator.reporting.run_record import RunRecord


def kind_of(record: RunRecord) -> RunKind:
    """The kind that the algorithm's needs tell; supervised learning is two, told apart by what it learns from.

    An algorithm that is not of this repository is not run to be asked: its rows tell.
    """
    needs = _needs(record) or _seen(record)
    if "prompts" in needs.data:
        return ONLINE if judges(record) else ANSWERING
    if "demonstrations" in needs.data and not _learns_from_store(record):
        return COLD_START if judges(record) else COLD_START_ANSWERING
    return offline_run(needs)


def _needs(record: RunRecord) -> Needs | None:
    """By the run's own settings, or by the defaults where these cannot be read."""
    if record.algo not in ALGORITHMS:
        return None
    of_kind = algorithm_class(record.algo)
    try:
        settings = {name: kind.model_validate(record.config.get(name, {})) for name, kind in of_kind.sections.items()}
    except ValidationError:
        settings = {name: kind() for name, kind in of_kind.sections.items()}
    return of_kind(record.algo, settings).needs


def _seen(record: RunRecord) -> Needs:
    if not record.names("data/") or record.names("length/"):
        return Needs(data=("prompts",))
    if record.names("eval/token_"):
        return Needs(data=("preferences",), responses="best")
    return Needs(data=("preferences",), responses="pairs", reference=bool(record.names("time/reference_s")))


def _learns_from_store(record: RunRecord) -> bool:
    # The rows know best: the store may have been moved since, the folder read from elsewhere.
    if record.names("data/") or record.names("eval/token_"):
        return True
    form, path = record.setting("data", "format"), record.setting("data", "path")
    if record.setting("data", "reader") is not None:
        return True
    of_prompts = [name for name, one in FORMATS.items() if "prompts" in one.serves]
    return form not in (None, *of_prompts) or (not record.rows and isinstance(path, str) and is_store(path))
