"""Critique reward workers as they run: vLLM in one, two behind a pool, one of them killed."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.placement import RoleRequest, plan_placement
from orchestrator.cluster.pool import PoolSpec, RoleWorkers, WorkerPool
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.rewards.critique_judge import CritiqueCache, Question
from tests.critique_models import CRITIQUE, WorkersHere, critique_reward_spec, judge_of, write_critique_model
from tests.tiny_prompts import picture_prompts
from workers.types import Prompt

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(900)]

RESPONSES = ("it is one because the image shows one .", "it is one .", "it is two .", "no digit to see .")


@pytest.fixture(scope="module")
def critique_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critique_model(tmp_path_factory.mktemp("critique_model") / "model")


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    return picture_prompts(tmp_path, {"a": 1, "b": 1, "c": 1}, text="which digit ?")


def _questions(prompts: list[Prompt]) -> list[Question]:
    return [Question(prompt=prompt, response=text) for prompt in prompts for text in RESPONSES]


@pytest.fixture
def rewards_here(critique_model: Path, prompts: list[Prompt], tmp_path: Path) -> list[float | None]:
    """What one worker with transformers' engine says, in this process."""
    with CritiqueCache(tmp_path / "here.sqlite") as cache:
        answers = judge_of(WorkersHere(critique_reward_spec(critique_model)), critique_model, cache).judge(
            _questions(prompts)
        )
    assert {(a.critique, a.status) for a in answers} == {(CRITIQUE, "ok")}
    return [a.reward for a in answers]


@contextmanager
def _pool(num_workers: int) -> Iterator[WorkerPool]:
    plan = plan_placement(
        ClusterResources(nodes=(NodeResources(name="here", cpus=4.0),)),
        [RoleRequest(role="critique_reward", num_workers=num_workers, gpus_per_worker=0, cpus_per_worker=1.0)],
        layout="colocated",
    )
    spec = PoolSpec(tokens_per_microbatch=512, share_prompts=True, num_threads=1)
    pool = WorkerPool(plan, spec)
    try:
        yield pool
    finally:
        pool.close()


def test_a_lost_worker_is_started_again_and_everybody_gets_the_same_rewards(
    critique_model: Path, prompts: list[Prompt], rewards_here: list[float | None], tmp_path: Path, cluster: None
) -> None:
    with _pool(2) as pool, CritiqueCache(tmp_path / "pool.sqlite") as cache:
        workers = pool.role("critique_reward")
        workers.start(critique_reward_spec(critique_model))
        judge = judge_of(workers, critique_model, cache)
        first = judge.judge(_questions(prompts[:2]))
        os.kill(ray.get(workers.actors[1].ping.remote()), signal.SIGKILL)
        rest = judge.judge(_questions(prompts[2:]))
    assert [a.reward for a in (*first, *rest)] == pytest.approx(rewards_here, abs=1e-5)


def test_with_vllm_four_responses_are_four_requests_and_the_same_rewards(
    critique_model: Path, prompts: list[Prompt], rewards_here: list[float | None], tmp_path: Path, cluster: None
) -> None:
    with _pool(1) as pool, CritiqueCache(tmp_path / "vllm.sqlite") as cache:
        workers, asked = pool.role("critique_reward"), 0
        workers.start(critique_reward_spec(critique_model, kind="vllm"))

        def counted(method: str, items: Sequence[Any], **options: Any) -> list[Any]:
            nonlocal asked
            asked += len(items) if method == "write" else 0
            return RoleWorkers.each(workers, method, items, **options)

        workers.each = counted  # type: ignore[method-assign]
        judge = judge_of(workers, critique_model, cache)
        first = judge.judge(_questions(prompts[:1]))
        assert asked == len(RESPONSES)
        answers = judge.judge(_questions(prompts))
    assert asked == 3 * len(RESPONSES)
    assert answers[:4] == first
    assert {(a.critique, a.status) for a in answers} == {(CRITIQUE, "ok")}
    assert [a.reward for a in answers] == pytest.approx(rewards_here, abs=1e-4)
