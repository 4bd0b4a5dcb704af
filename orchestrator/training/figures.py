"""Every figure of a run, gathered from where each is computed: its manifest tells them, its report draws them.

docs/metrics.md is written from the same declarations.
"""

from fnmatch import fnmatchcase

from algorithms.figures import Figure
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.rewards import asking, pairwise, reward, rubric
from orchestrator.run.metrics import MEMORY_PREFIX, NONFINITE
from orchestrator.training import offline, online_metrics, refills, session, updates

_NOT_BETTER = ("loss", "unreadable", "shuffled", "first_position")
"""In names of figures that are no better for being larger."""
EVERY_STEP = (
    *updates.FIGURES,
    Figure("time/step_s", "seconds of the whole step"),
    Figure("time/*", "seconds of each phase of the step, e.g. `time/train_s`: learning, and what it waits for"),
    Figure(
        f"{MEMORY_PREFIX}*", "resident memory of each role's largest process, and the driver's, at its last sign, GiB"
    ),
    Figure(NONFINITE, "metrics of this row that were not finite and are therefore missing"),
)
ONLINE = (
    *session.JUDGED, *reward.FIGURES, online_metrics.BY_SOURCE, *online_metrics.FIGURES, *asking.FIGURES,
    *pairwise.FIGURES, *rubric.FIGURES, *refills.FIGURES,
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
    known = [name for name in measured if not any(word in name for word in _NOT_BETTER)]
    if config.eval.best is not None and not any(fnmatchcase(config.eval.best, name) for name in known):
        raise RefusedInput(
            f"eval.best = {config.eval.best!r} is no figure of this run's evaluations: {', '.join(known)}"
        )


def figures_of(config: TrainConfig) -> tuple[Figure, ...]:
    """All of a run, in the order in which its report draws them; each name once."""
    learner = config.learner.figures
    if config.online:
        found = (*ONLINE, *EVERY_STEP, *learner)
    elif config.offline:
        found = (*learner, *OFFLINE, *EVERY_STEP)
    else:
        found = (*session.JUDGED, *EVERY_STEP, *learner)
    return tuple({figure.name: figure for figure in reversed(found)}.values())[::-1]
