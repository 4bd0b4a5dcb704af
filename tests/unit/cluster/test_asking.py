"""Workers are asked, and waited for when it suits; those that are started again meanwhile are asked again."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.pool import PoolSpec, RoleWorkers, WorkerPool
from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.waits import WorkerLost
from orchestrator.config import load_config
from orchestrator.rewards.reward import Reward
from orchestrator.training.learning import rollouts_of
from orchestrator.training.online_metrics import Sampled
from workers.types import Completion, Completions, GenerationRequest


class _Pool(WorkerPool):
    """Workers answer with their number for every sequence; what it is asked and waited for is written down."""

    def __init__(self) -> None:
        self.log, self.dead, self.started = list[str](), set[int](), 0
        self._roles = {name: RoleWorkers(role, self) for name, role in ROLES.items()}
        self.plan: Any = SimpleNamespace(workers_of=lambda name: (SimpleNamespace(index=0),))
        self.spec = PoolSpec(tokens_per_microbatch=64, share_prompts=True, num_threads=1)

    def start_worker(self, role: Any, index: int, spec: Any) -> Any:
        self.started += 1
        number = self.started

        def ask(batches: Any, **_: Any) -> tuple[str, int, list[Any]]:
            self.log.append(f"ask {role.name}")
            return role.name, number, [np.full(len(s.input_ids), number, np.float32) for b in batches for s in b]

        return SimpleNamespace(score=SimpleNamespace(remote=ask), values=SimpleNamespace(remote=ask))

    def results(self, refs: Sequence[Any], **_: Any) -> list[Any]:
        self.log.append(f"wait {refs[0][0]}")
        if dead := [number for _, number, _ in refs if number in self.dead]:
            raise WorkerLost(["reference-0"], f"{dead} is gone")
        return [answer for *_, answer in refs]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> _Pool:
    monkeypatch.setattr("ray.kill", lambda actor: None)
    return _Pool()


def _sequence(uid: str) -> TokenSequence:
    return TokenSequence(uid=uid, sample_index=0, input_ids=np.arange(5), prompt_len=2, media=())


def test_what_was_asked_of_workers_that_are_gone_is_asked_of_their_successors(pool: _Pool) -> None:
    workers = pool.role("reference")
    workers.start("spec")
    first, second = (workers.begin_each("score", [_sequence(uid)], deadline_s=1.0) for uid in "ab")
    pool.dead = {1}
    assert [row[0] for row in (*first(), *second())] == [2.0, 2.0]
    assert pool.started == 2, "the second answer does not start them once more"


@pytest.mark.parametrize("layout", ["separate", "colocated"])
def test_roles_with_processors_of_their_own_are_asked_side_by_side(layout: str, pool: _Pool) -> None:
    for name in ("reference", "critic"):
        pool.role(name).actors = [pool.start_worker(ROLES[name], 0, None)]
    pool.role("policy").actors = [pool.start_worker(ROLES["policy"], 0, None)]
    config, _ = load_config(["--algo", "ppo", "--placement.layout", layout])
    session = SimpleNamespace(pool=pool, config=config, deadline_s=1.0)
    answering: Any = SimpleNamespace(session=session, sampling=None, ask=None)
    request = GenerationRequest(
        uid="a", sample_index=0, engine_prompt_ids=(1,), prompt_ids=(1, 1), media=(), seed=0, max_new_tokens=4,
        temperature=1.0,
    )  # fmt: skip
    completion = Completion(
        uid="a", sample_index=0, completion_ids=np.array([5, 6], np.int32), finish_reason="stop", policy_version=0,
        rollout_logprobs=np.array([-1.0, -2.0], np.float32), engine="e",
    )  # fmt: skip
    reward = Reward(value=1.0, status="scored")
    sampled = Sampled(requests=(request,), completions=Completions.of([completion]), rewards=(reward,), texts={})
    (rollout,) = rollouts_of(answering, sampled, ask_first=True)
    roles = ("policy", "reference", "critic")
    if layout == "separate":
        assert pool.log == [*(f"ask {role}" for role in roles), *(f"wait {role}" for role in roles)]
    else:
        assert pool.log == [f"{word} {role}" for role in roles for word in ("ask", "wait")]
    assert rollout.old_logprobs is not None and rollout.old_logprobs[0] == 3.0
    assert rollout.ref_logprobs is not None and rollout.ref_logprobs[0] == 1.0
    assert rollout.values is not None and rollout.values[0] == 2.0
