"""The feed keeps going when an engine lives, answers, and finishes nothing: real actors, no model."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import ray

from orchestrator.cluster.feed import build_requests, generate
from orchestrator.cluster.waits import WorkerLost
from orchestrator.errors import GuardStop
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("cluster")]
_DEADLINE_S = 2.5


@ray.remote(num_cpus=0)
class Engine:
    """Finishes what it is given at once, or never."""

    def __init__(self, *, stuck: bool) -> None:
        self._stuck, self._held = stuck, []

    def started(self) -> None:
        """Answered once there is a process, which on a busy machine may take longer than the feed waits."""

    def submit(self, requests: list[GenerationRequest]) -> None:
        self._held += requests

    def collect(self, max_wait_s: float) -> Completions:
        if self._stuck:
            time.sleep(0.2)
            return Completions.of([])
        held, self._held = self._held, []
        return Completions.of(
            Completion(
                uid=r.uid,
                sample_index=r.sample_index,
                completion_ids=np.array([r.seed], np.int32),
                rollout_logprobs=np.zeros(1, np.float32),
                finish_reason="stop",
                policy_version=0,
                engine="fake",
            )
            for r in held
        )


class Keeper:
    """Says who was lost, and brings a successor when there is nobody left."""

    def __init__(self, *, successor_stuck: bool) -> None:
        self.lost_engines: list[tuple[int, str]] = []
        self._stuck = successor_stuck

    def lost(self, index: int, reason: str) -> None:
        self.lost_engines.append((index, reason))

    def revive(self) -> Mapping[int, Any]:
        return {index: _engine(stuck=self._stuck) for index, _ in self.lost_engines}


def _engine(*, stuck: bool) -> Any:
    engine = Engine.remote(stuck=stuck)
    ray.get(engine.started.remote())
    return engine


def _requests(count: int) -> list[GenerationRequest]:
    prompts = [EncodedPrompt(uid=f"p{i:03d}", engine_prompt_ids=(1,), prompt_ids=(1,), media=()) for i in range(count)]
    return build_requests(
        prompts, samples_per_prompt=2, seed_of=lambda uid, k: int(uid[1:]) * 10 + k, max_new_tokens=1,
        temperature=1.0, top_p=1.0,
    )  # fmt: skip


def test_what_a_stuck_engine_held_is_sampled_elsewhere_with_the_same_seeds() -> None:
    requests, keeper = _requests(200), Keeper(successor_stuck=False)
    engines = {0: _engine(stuck=True), 1: _engine(stuck=False)}
    done = generate(engines, requests, deadline_s=_DEADLINE_S, keeper=keeper)
    assert [index for index, _ in keeper.lost_engines] == [0]
    assert "rollout: completions" in keeper.lost_engines[0][1]
    assert [(c.uid, c.sample_index) for c in done] == [(r.uid, r.sample_index) for r in requests]
    assert [int(c.completion_ids[0]) for c in done] == [r.seed for r in requests]


def test_the_only_engine_is_revived_and_what_holds_up_its_successor_too_stops_the_run() -> None:
    keeper = Keeper(successor_stuck=True)
    with pytest.raises(GuardStop, match="prompt p000 was being sampled on two engines when they were lost"):
        generate({0: _engine(stuck=True)}, _requests(3), deadline_s=_DEADLINE_S, keeper=keeper)
    assert len(keeper.lost_engines) == 1


def test_without_a_keeper_the_loss_surfaces() -> None:
    with pytest.raises(WorkerLost, match="rollout-0"):
        generate({0: _engine(stuck=True)}, _requests(3), deadline_s=_DEADLINE_S)
