"""Two roles that are not in the repository, each a record and a tiny worker: a frozen one, and one that learns."""

import json
import os
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any

from algorithms.records import Sequence
from orchestrator.cluster.memory_plan import RoleMemory
from orchestrator.cluster.roles import Role
from workers.actor_base import WorkerBase


class LengthWorker(WorkerBase):
    """Finds a sequence as good as it is long."""

    def __init__(self, *, spec: float, num_threads: int, name: str, board: Any = None) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._worth, self._name = spec, name

    def rewards(self, microbatches: Seq[Seq[Sequence]], *, plus: float = 0.0) -> list[float]:
        return [self._worth * len(s.input_ids) + plus for sequences in microbatches for s in sequences]

    def called(self, greeting: str) -> str:
        return f"{greeting} {self._name}"


class CountWorker(WorkerBase):
    """A rank whose only weight is the number of its updates."""

    def __init__(
        self, *, rank: int, world_size: int, spec: str, num_threads: int, name: str, board: Any = None
    ) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._rank, self._world_size, self._greeting = rank, world_size, spec
        self.met, self.updates, self.num_steps = False, 0, -1

    def setup(self, address: str, port: int) -> None:
        self.met = True

    def update(self, microbatches: Seq[Seq[Any]]) -> tuple[int, int, bool]:
        self.updates += len(microbatches)
        return self._rank, self.updates, self.met

    def values(self, microbatches: Seq[Seq[Sequence]]) -> list[int]:
        return [self.updates for sequences in microbatches for _ in sequences]

    def save(self, folder: str) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"rank_{self._rank}.json").write_text(json.dumps({"updates": self.updates}))

    def load_state(self, folder: str, *, num_steps: int) -> None:
        self.updates = json.loads((Path(folder) / f"rank_{self._rank}.json").read_text())["updates"]
        self.num_steps = num_steps

    def end(self) -> None:
        os._exit(1)


def _memory(weights: float) -> RoleMemory:
    return RoleMemory({"weights": weights}, {}, weights)


LENGTH = Role(
    name="length",
    actor="tests.toy_roles:LengthWorker",
    count=lambda config: 2,
    in_run=lambda config: True,
    memory=lambda asked: _memory(2.0**31),
    on_loss="role_restarts",
    spec=lambda config, engine, saved: 0.5,
)
COUNT = Role(
    name="count",
    actor="tests.toy_roles:CountWorker",
    count=lambda config: config.policy.num_ranks,
    in_run=lambda config: True,
    memory=lambda asked: _memory(2.0**30),
    on_loss="run_restarts",
    spec=lambda config, engine, saved: "fresh" if saved is None else saved.name,
    saved_in="count",
)
