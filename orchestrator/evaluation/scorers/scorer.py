"""What every scorer is: it says what it cannot be asked, starts what it needs, and turns questions into predictions.

asking.py  which questions are open ──► Scorer ──► predictions ──► kept shard by shard
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, TypeVar

from orchestrator.cluster.launch import ray_cluster
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.run.folder import RunFolder
from orchestrator.run.recovery import with_restarts
from workers.types import UnusablePrompt

Ask = Callable[[Sequence[Asked]], list[Prediction]]
"""From questions to a prediction for each of their samples, in whatever order."""


class Scorer(Protocol):
    """A model, wherever it runs."""

    @property
    def config(self) -> TrainConfig:
        """The configuration, with what it leaves open settled for where the workers go."""
        ...

    @property
    def plan(self) -> PlacementPlan | None:
        """Where its workers go; None of a model that has none here."""
        ...

    @property
    def asks(self) -> Asks:
        """How items are put to it, for ``asked_of``."""
        ...

    def made_from(self) -> dict[str, object]:
        """All of the scorer that its answers depend on, as JSON has it."""
        ...

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Rows that it cannot be asked about, each with the reason; told before any process is started."""
        ...

    def opened(self, config: TrainConfig) -> AbstractContextManager[Ask]:
        """Its workers, for as long as the block lasts; see ``with_workers``.

        Args:
            config: As it stands after whatever restarts there were.
        """
        ...


def why_unusable(error: ValueError) -> str:
    """What keeps a prompt from being asked, without the name of its row."""
    return error.reason if isinstance(error, UnusablePrompt) else str(error)


_T = TypeVar("_T")


def with_workers(scorer: Scorer, folder: RunFolder, use: Callable[[Ask], _T]) -> _T:
    """What ``use`` makes of a scorer whose workers are up; they are started again, and it is called again, where one
    is lost.

    Args:
        folder: Its log keeps what is lost.
    Raises:
        GuardStop: see ``with_restarts``.
    """

    def once(config: TrainConfig) -> _T:
        with scorer.opened(config) as ask:
            return use(ask)

    with nullcontext() if scorer.plan is None else ray_cluster(scorer.plan):
        return with_restarts(once, scorer.config, folder)
