"""Whatever is asked of whatever cluster: nothing is over-committed, nobody is left out, only a shortage refuses."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.placement import Layout, PlacementPlan, RoleRequest, plan_placement
from orchestrator.cluster.resources import ClusterResources, NodeResources
from orchestrator.errors import RefusedInput

_LAYOUTS = st.sampled_from(["colocated", "separate"])
_CLUSTERS = st.lists(st.tuples(st.sampled_from((0, 2, 40)), st.sampled_from((0, 1, 20))), min_size=1, max_size=4).map(
    lambda sizes: ClusterResources(
        nodes=tuple(NodeResources(name=f"n{i}", cpus=cpus, gpus=gpus) for i, (cpus, gpus) in enumerate(sizes))
    )
)


def _requests(widths: tuple[int, ...]) -> st.SearchStrategy[list[RoleRequest]]:
    sizes = st.tuples(st.integers(0, 5), st.sampled_from(widths), st.integers(1, 3))
    return st.lists(sizes, min_size=1, max_size=3).map(
        lambda rows: [
            RoleRequest(role=role, num_workers=n, gpus_per_worker=gpus, cpus_per_worker=cpus)
            for role, (n, gpus, cpus) in zip(("policy", "reference", "rollout"), rows, strict=False)
        ]
    )


def _plan(cluster: ClusterResources, requests: list[RoleRequest], layout: Layout) -> PlacementPlan | None:
    try:
        return plan_placement(cluster, requests, layout=layout)
    except RefusedInput:
        return None


@given(_CLUSTERS, _requests((0, 1, 2, 4)), _LAYOUTS)
def test_no_bundle_and_no_node_is_overcommitted(
    cluster: ClusterResources, requests: list[RoleRequest], layout: Layout
) -> None:
    plan = _plan(cluster, requests, layout)
    if plan is None:
        return
    used: dict[tuple[str, int], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for worker in plan.workers:
        used[worker.group, worker.bundle_indices[0]]["CPU"] += worker.num_cpus
        for index in worker.bundle_indices:
            used[worker.group, index]["GPU"] += worker.num_gpus
    on_node: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for group in plan.groups:
        for index, bundle in enumerate(group.bundles):
            for unit, amount in bundle.resources.items():
                on_node[bundle.node][unit] += amount
            for unit, amount in used[group.name, index].items():
                assert amount <= bundle.resources.get(unit, 0.0) + 1e-9
    for node in cluster.nodes:
        assert all(on_node[node.name][unit] <= node.offer()[unit] for unit in ("GPU", "CPU"))


@given(_CLUSTERS, _requests((0, 1, 2, 4)), _LAYOUTS)
def test_every_worker_is_placed_once_with_all_its_gpus(
    cluster: ClusterResources, requests: list[RoleRequest], layout: Layout
) -> None:
    plan = _plan(cluster, requests, layout)
    if plan is None:
        return
    bundles = {group.name: group.bundles for group in plan.groups}
    expected = Counter((r.role, i) for r in requests for i in range(r.num_workers))
    assert Counter((w.role, w.index) for w in plan.workers) == expected
    for request in requests:
        for i, worker in enumerate(plan.workers_of(request.role)):
            assert worker.index == i
            assert len(worker.bundle_indices) == request.bundles_per_worker
            homes = [bundles[worker.group][index] for index in worker.bundle_indices]
            assert len({home.node for home in homes}) == 1
            if request.gpus_per_worker:
                assert all(home.resources["GPU"] == 1.0 for home in homes) and worker.num_gpus > 0


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.booleans(),
    _LAYOUTS,
)
def test_one_sized_workers_are_refused_exactly_when_the_sum_does_not_fit(
    slots: list[int], workers: list[int], gpus: bool, layout: Layout
) -> None:
    cluster = ClusterResources(
        nodes=tuple(NodeResources(name=f"n{i}", cpus=n, gpus=n if gpus else 0) for i, n in enumerate(slots))
    )
    requests = [
        RoleRequest(role=f"r{i}", num_workers=n, gpus_per_worker=int(gpus), cpus_per_worker=1.0)
        for i, n in enumerate(workers)
    ]
    needed = max(workers) if layout == "colocated" else sum(workers)
    if needed <= sum(slots):
        assert len(plan_placement(cluster, requests, layout=layout).workers) == sum(workers)
    else:
        with pytest.raises(RefusedInput, match=f"= {needed} "):
            plan_placement(cluster, requests, layout=layout)
