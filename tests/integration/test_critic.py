"""Critique reward workers as they run: vLLM in one, two behind a pool, one of them killed."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from orchestrator.cluster.placement import RoleRequest, plan_placement
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.rewards.critique_judge import CritiqueCache, Question
from tests.critics import CRITIQUE, PoolHere, critic_spec, judge_of, write_critic
from tests.tiny_prompts import picture_prompts
from workers.types import Completion, GenerationRequest, Prompt

pytestmark = [pytest.mark.integration, pytest.mark.soak, pytest.mark.timeout(900)]

RESPONSES = ("it is one because the image shows one .", "it is one .", "it is two .", "no digit to see .")


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_critic(tmp_path_factory.mktemp("critic") / "model")


@pytest.fixture
def prompts(tmp_path: Path) -> list[Prompt]:
    return picture_prompts(tmp_path, {"a": 1, "b": 1, "c": 1}, text="which digit ?")


def _questions(prompts: list[Prompt]) -> list[Question]:
    return [Question(prompt=prompt, response=text) for prompt in prompts for text in RESPONSES]


@pytest.fixture
def rewards_here(critic: Path, prompts: list[Prompt], tmp_path: Path) -> list[float | None]:
    """What one worker with transformers' engine says, in this process."""
    with CritiqueCache(tmp_path / "here.sqlite") as cache:
        answers = judge_of(PoolHere(critic_spec(critic)), critic, cache).judge(_questions(prompts))
    assert {(a.critique, a.status) for a in answers} == {(CRITIQUE, "ok")}
    return [a.reward for a in answers]


@contextmanager
def _pool(num_workers: int) -> Iterator[WorkerPool]:
    plan = plan_placement(
        ClusterResources(nodes=(NodeResources(name="here", cpus=4.0),)),
        [RoleRequest(role="critic", num_workers=num_workers, gpus_per_worker=0, cpus_per_worker=1.0)],
        layout="colocated",
    )
    spec = PoolSpec(engine=None, engine_kind="vllm", tokens_per_microbatch=512, share_prompts=True, num_threads=1)
    pool = WorkerPool(plan, spec)
    try:
        yield pool
    finally:
        pool.close()


def test_a_lost_worker_is_started_again_and_everybody_gets_the_same_rewards(
    critic: Path, prompts: list[Prompt], rewards_here: list[float | None], tmp_path: Path, cluster: None
) -> None:
    with _pool(2) as pool, CritiqueCache(tmp_path / "pool.sqlite") as cache:
        pool.start_critics(critic_spec(critic))
        judge = judge_of(pool, critic, cache)
        first = judge.judge(_questions(prompts[:2]))
        os.kill(ray.get(pool.critics[1].ping.remote()), signal.SIGKILL)
        rest = judge.judge(_questions(prompts[2:]))
    assert [a.reward for a in (*first, *rest)] == pytest.approx(rewards_here, abs=1e-5)


def test_with_vllm_four_responses_are_four_requests_and_the_same_rewards(
    critic: Path, prompts: list[Prompt], rewards_here: list[float | None], tmp_path: Path, cluster: None
) -> None:
    with _pool(1) as pool, CritiqueCache(tmp_path / "vllm.sqlite") as cache:
        pool.start_critics(critic_spec(critic, kind="vllm"))
        asked = 0

        def counted(requests: Sequence[GenerationRequest], *, deadline_s: float) -> list[Completion]:
            nonlocal asked
            asked += len(requests)
            return WorkerPool.write_critiques(pool, requests, deadline_s=deadline_s)

        pool.write_critiques = counted  # type: ignore[method-assign]
        judge = judge_of(pool, critic, cache)
        first = judge.judge(_questions(prompts[:1]))
        assert asked == len(RESPONSES)
        answers = judge.judge(_questions(prompts))
    assert asked == 3 * len(RESPONSES)
    assert answers[:4] == first
    assert {(a.critique, a.status) for a in answers} == {(CRITIQUE, "ok")}
    assert [a.reward for a in answers] == pytest.approx(rewards_here, abs=1e-4)
