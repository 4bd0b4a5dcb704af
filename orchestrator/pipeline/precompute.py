"""The reference's log-probs of a whole store, before the first step: shard by shard, on whichever worker is free.

A killed pass loses the shards it was in; the next one makes those that are missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import ray

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.waits import WorkerLost, get, silent_workers, waiting
from orchestrator.data.records import Instruction
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore

_LOOK_EVERY_S = 2.0
Encode = Callable[[Instruction], Sequence[TokenSequence]]
"""The responses of an instruction that could be learned from."""


def fill_table(
    table: SideTable,
    store: PreferenceStore,
    encode: Encode,
    pool: WorkerPool,
    *,
    deadline_s: float,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make the missing shards of ``table`` with the pool's reference workers; return how many were missing.

    Args:
        deadline_s: Longest wait for a single shard, seconds.
        on_shard: Called with the shards that exist and those there will be.
    Raises:
        WorkerLost: a worker died or fell silent; what is finished stays.
    """
    missing = table.missing_shards()
    count = len(missing)
    running: dict[Any, _Job] = {}
    with waiting("reference: shards", deadline_s) as wait:
        free = list(range(len(pool.role("reference").actors)))
        while missing or running:
            while missing and free:
                job = _Job.of(missing.pop(0), free.pop(), store, encode)
                running[job.start(pool)] = job
            ready, _ = ray.wait(list(running), num_returns=1, timeout=_LOOK_EVERY_S)
            lost = silent_workers([job.worker_name for job in running.values()])
            if lost:
                raise WorkerLost(list(lost), next(iter(lost.values())))
            wait.check()
            for ref in ready:
                job = running.pop(ref)
                job.write(table, get(ref, name="reference: shard", deadline_s=deadline_s, workers=[job.worker_name]))
                free.append(job.worker)
                on_shard(table.num_shards - len(missing) - len(running), table.num_shards)
                wait.progress(f"{len(missing) + len(running)} to go")
    return count


@dataclass(slots=True, kw_only=True)
class _Job:
    """One shard on one worker."""

    shard: int
    worker: int
    rows: list[Instruction]
    sequences: list[Sequence[TokenSequence]]
    """Of each row."""
    order: list[int] = field(default_factory=list)
    """In which the worker is asked, as indices of all sequences one after the other."""

    @classmethod
    def of(cls, shard: int, worker: int, store: PreferenceStore, encode: Encode) -> Self:
        rows = store.read_group(shard)
        return cls(shard=shard, worker=worker, rows=rows, sequences=[encode(row) for row in rows])

    @property
    def worker_name(self) -> str:
        return f"reference-{self.worker}"

    def start(self, pool: WorkerPool) -> Any:
        flat = [s for some in self.sequences for s in some]
        (plan,) = pool.microbatches(flat, num_ranks=1) if flat else ([],)
        self.order = [i for batch in plan for i in batch]
        return pool.role("reference").actors[self.worker].score.remote([[flat[i] for i in batch] for batch in plan])

    def write(self, table: SideTable, scored: Sequence[np.ndarray]) -> None:
        in_order = iter([scored[at] for at in np.argsort(self.order)])
        with table.begin(self.shard) as writer:
            for row, some in zip(self.rows, self.sequences, strict=True):
                values = {s.sample_index: next(in_order)[s.prompt_len :] for s in some}
                for index in range(len(row.responses)):
                    writer.add(row.uid, index, values.get(index, np.empty(0, np.float32)))
