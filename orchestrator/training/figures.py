"""Every figure of a run, gathered from where each is computed: its manifest tells them, its report draws them.

docs/metrics.md is written from the same declarations.
"""

from fnmatch import fnmatchcase

from algorithms.figures import Figure
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.while_training import meaning_of
from orchestrator.rewards import asking, pairwise, reward, rubric
from orchestrator.run import mirror
from orchestrator.run.alarms import ALARMS
from orchestrator.run.metrics import MEMORY_PREFIX, NONFINITE
from orchestrator.training import offline, online_metrics, refills, session, staleness, updates

_NOT_BETTER = ("loss", "unreadable", "shuffled", "first_position", "yes_ratio")
"""In names of figures that are no better for being larger."""
EVERY_STEP = (
    *updates.FIGURES,
    Figure("time/step_s", "seconds of the whole step"),
    Figure("time/*", "seconds of each phase of the step, e.g. `time/train_s`: learning, and what it waits for"),
    Figure(
        f"{MEMORY_PREFIX}*", "resident memory of each role's largest process, and the driver's, at its last sign, GiB"
    ),
    Figure(NONFINITE, "metrics of this row that were not finite and are therefore missing"),
    ALARMS,
    *mirror.FIGURES,
)
ONLINE = (
    *session.JUDGED, *reward.FIGURES, online_metrics.BY_SOURCE, *online_metrics.FIGURES, *online_metrics.ANSWERS,
    *asking.FIGURES, *pairwise.FIGURES, *rubric.FIGURES, *refills.FIGURES, *staleness.FIGURES,
)  # fmt: skip
"""Besides, of a run that samples."""
OFFLINE = offline.FIGURES
"""Besides, of a run on stored responses."""


def check_best(config: TrainConfig) -> None:
    """Refuse an ``eval.best`` that no evaluation of this run will have.

    Raises:
        RefusedInput: with those that there are.
    """
    measured = [figure.name for figure in figures_of(config) if figure.name.startswith("eval/")]
    known, best = [name for name in measured if _may_be_best(name)], config.eval.best
    if best is not None and not (_may_be_best(best) and any(fnmatchcase(best, name) for name in known)):
        raise RefusedInput(f"eval.best = {best!r} is no figure of this run's evaluations: {', '.join(known)}")


def _may_be_best(name: str) -> bool:
    """By its first words: a category may be called anything."""
    return not any(word in part for part in name.split("/")[1:3] for word in _NOT_BETTER)


def of_benchmark(name: str) -> Figure:
    """All figures of a benchmark that a run is measured on; which they are, its file says."""
    return Figure(f"eval/{name}/*", meaning_of(name))


def figures_of(config: TrainConfig) -> tuple[Figure, ...]:
    """All of a run, in the order in which its report draws them; each name once."""
    learner = config.learner.figures
    if config.online:
        found = (*ONLINE, *EVERY_STEP, *learner)
    elif config.offline:
        found = (*learner, *OFFLINE, *EVERY_STEP)
    else:
        found = (*session.JUDGED, *EVERY_STEP, *learner)
    found = (*found, *(of_benchmark(one.name) for one in config.eval.benchmark))
    return tuple({figure.name: figure for figure in reversed(found)}.values())[::-1]
