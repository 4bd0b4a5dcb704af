"""The proof of a sync, without a cluster: all engines are asked before one is waited for, and scored in one call."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import ray.exceptions

from orchestrator.cluster.sync import WeightSync
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest

_PROBE = [EncodedPrompt(uid="p", engine_prompt_ids=(1, 2), prompt_ids=(1, 2), media=())]
_WRONG_WEIGHTS, _WRONG_VERSION, _LOST = 3, 5, 7


class _Pool:
    """Sixty-four engines, all of which answer right but three."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.scored: list[Any] = []
        self.actors = [SimpleNamespace(answer=SimpleNamespace(remote=self._asked(index))) for index in range(64)]
        self.engine_spec = SimpleNamespace(banned_token_ids=(), sync_backend="shared_memory")

    def role(self, name: str) -> "_Pool":
        return self

    def each(self, method: str, items: list[Any], **options: Any) -> list[np.ndarray]:
        self.log.append("scored")
        self.scored = items
        return [np.full(len(s.input_ids), -1.0, np.float32) for s in items]

    def _asked(self, index: int) -> Callable[[list[GenerationRequest]], Callable[[], Completions]]:
        def ask(requests: list[GenerationRequest]) -> Callable[[], Completions]:
            self.log.append("asked")
            return lambda: self._said(index, requests)

        return ask

    def _said(self, index: int, requests: list[GenerationRequest]) -> Completions:
        self.log.append("waited")
        if index == _LOST:
            raise ray.exceptions.RayActorError
        return Completions.of(
            Completion(
                uid=r.uid,
                sample_index=0,
                completion_ids=np.array([8, 9 if index == _WRONG_WEIGHTS else 4], np.int32),
                rollout_logprobs=np.full(2, -1.5 if index == _WRONG_WEIGHTS else -1.0, np.float32),
                finish_reason="length",
                policy_version=0 if index == _WRONG_VERSION else 1,
                engine=f"engine-{index}",
            )
            for r in requests
        )


def test_all_engines_are_proven_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref())
    pool: Any = _Pool()
    sync = WeightSync(pool, run_id="proof", tolerance=0.1, deadline_s=1.0)
    faults, gap = sync._prove(range(64), 1, _PROBE)
    assert pool.log == ["asked"] * 64 + ["waited"] * 64 + ["scored"]
    assert sorted(faults) == [_WRONG_WEIGHTS, _WRONG_VERSION, _LOST]
    assert gap == np.inf
    assert "differ from the trainer's by 0.5 (limit 0.1)" in str(faults[_WRONG_WEIGHTS])
    assert "differ from the trainer's by inf" in str(faults[_WRONG_VERSION])
    assert len(pool.scored) == 2, "what engines say alike is scored once"
    well = [i for i in range(64) if i not in faults]
    assert sync._prove(well, 1, _PROBE) == ({}, 0.0) and len(pool.scored) == 1
