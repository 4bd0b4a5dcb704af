"""A worker with an engine on frozen weights: requests in, completions out, until all are written."""

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

from workers.actor_base import WorkerBase
from workers.rollout.spec import EngineSpec
from workers.rollout.worker import build_engine
from workers.types import Completions, GenerationRequest, joined

_COLLECT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WritingSpec:
    """What such a worker needs to start."""

    engine: EngineSpec
    timeout_s: float
    """Longest time in which the engine finishes nothing, seconds."""


class WritingWorker(WorkerBase):
    """A frozen model that writes: a judge, say, on one device."""

    def __init__(self, *, spec: WritingSpec, num_threads: int, name: str, board: Any = None) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._timeout_s = spec.timeout_s
        self._engine = build_engine(name, spec.engine)

    def write(self, microbatches: Seq[Seq[GenerationRequest]]) -> Completions:
        """A completion for each request, in the order given; the engine makes batches of its own.

        Raises:
            RuntimeError: the engine has finished nothing for ``timeout_s``.
        """
        requests = [request for batch in microbatches for request in batch]
        self._engine.submit(requests)
        parts: list[Completions] = []
        last = time.monotonic()
        while sum(map(len, parts)) < len(requests):
            done = self._engine.collect(_COLLECT_S)
            if done:
                parts.append(done)
                last = time.monotonic()
            if time.monotonic() - last > self._timeout_s:
                raise RuntimeError(f"nothing was finished within {self._timeout_s:g} s")
        return joined(parts, ((r.uid, r.sample_index) for r in requests))
