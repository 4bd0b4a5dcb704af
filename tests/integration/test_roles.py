"""Two roles that the repository does not know, in a real pool: asked together and apart, lost, and started again."""

from collections.abc import Iterator

import numpy as np
import pytest
import ray
import ray.exceptions

from algorithms.records import Sequence
from orchestrator.cluster.placement import RoleRequest, plan_placement
from orchestrator.cluster.pool import PoolSpec, WorkerPool
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.cluster.roles import ROLES
from orchestrator.cluster.waits import WorkerFailed, WorkerLost
from tests.toy_roles import COUNT, LENGTH

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def pool(cluster: None) -> Iterator[WorkerPool]:
    cpus = ClusterResources(nodes=(NodeResources(name="here", cpus=4.0),))
    asked = [
        RoleRequest(role=role.name, num_workers=2, gpus_per_worker=0, cpus_per_worker=1.0) for role in (LENGTH, COUNT)
    ]
    with pytest.MonkeyPatch.context() as patch:
        for role in (LENGTH, COUNT):
            patch.setitem(ROLES, role.name, role)
        plan = plan_placement(cpus, asked, layout="colocated")
        pool = WorkerPool(plan, PoolSpec(tokens_per_microbatch=64, share_prompts=False, num_threads=1))
        yield pool
        pool.close()


def _sequences(*lengths: int) -> list[Sequence]:
    return [
        Sequence(uid=str(n), sample_index=0, input_ids=np.zeros(length, np.int64), prompt_len=1, media=())
        for n, length in enumerate(lengths)
    ]


def test_frozen_workers_that_are_lost_are_started_again_and_asked_once_more(pool: WorkerPool) -> None:
    workers, sequences = pool.role("length"), _sequences(8, 60, 3, 40, 21)
    workers.start(0.5)
    assert workers.shared("called", "I am", deadline_s=60.0) == ["I am length-0", "I am length-1"]
    wanted = [4.0, 30.0, 1.5, 20.0, 10.5]
    assert workers.each("rewards", sequences, deadline_s=60.0) == wanted
    ray.kill(workers.actors[1])
    # It takes a moment, in which a quick question would still be answered.
    with pytest.raises(ray.exceptions.RayActorError):
        for _ in range(1000):
            ray.get(workers.actors[1].called.remote("are you there,"), timeout=60.0)
    before = list(workers.actors)
    assert workers.each("rewards", sequences, deadline_s=60.0) == wanted
    assert not set(before) & set(workers.actors)
    with pytest.raises(WorkerFailed, match=r"^length-0, length-1: length: rewards: .*unsupported operand"):
        workers.each("rewards", sequences, deadline_s=60.0, plus="nothing")


def test_ranks_meet_and_the_loss_of_one_is_told(pool: WorkerPool) -> None:
    ranks = pool.role("count")
    ranks.start("fresh")
    assert ranks.update([[[]], [[], []]], deadline_s=60.0) == [(0, 1, True), (1, 2, True)]
    # Of one sequence only one rank has something, and both take part.
    assert ranks.each("values", _sequences(5), deadline_s=60.0) in ([1], [2])
    assert pool.trained[-1] is ranks
    ranks.actors[1].end.remote()
    with pytest.raises(WorkerLost) as lost:
        ranks.shared("setup", "", 0, deadline_s=60.0)
    assert lost.value.role == "count"
