"""What every scorer is: it says what it cannot be asked, starts what it needs, and turns questions into predictions.

asking.py  which questions are open ──► Scorer ──► predictions ──► kept shard by shard
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction

Ask = Callable[[Sequence[Asked]], list[Prediction]]
"""From questions to a prediction for each of their samples, in whatever order."""


class Scorer(Protocol):
    """A model, wherever it runs."""

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
        """Its workers, for as long as the block lasts; within ``ray_cluster`` where it has some.

        Args:
            config: As it stands after whatever restarts there were.
        """
        ...
