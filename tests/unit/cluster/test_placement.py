"""Placement on clusters small enough to check by hand."""

from pathlib import Path

import pytest

from orchestrator.cluster.placement import RoleRequest, describe_plan, plan_placement
from orchestrator.cluster.resources import GIB, ClusterResources, NodeResources, cluster_of_nodes, load_cluster_file
from orchestrator.errors import RefusedInput


def _role(
    role: str, num_workers: int, gpus: int = 0, cpus: float = 1.0, memory_gib: float | None = None
) -> RoleRequest:
    return RoleRequest(
        role=role, num_workers=num_workers, gpus_per_worker=gpus, cpus_per_worker=cpus, memory_gib=memory_gib
    )


def _cluster(*nodes: tuple[str, float, int], memory_gib: float | None = None) -> ClusterResources:
    return ClusterResources(
        nodes=tuple(NodeResources(name=name, cpus=cpus, gpus=gpus, memory_gib=memory_gib) for name, cpus, gpus in nodes)
    )


def test_colocated_workers_with_one_index_share_a_bundle() -> None:
    plan = plan_placement(_cluster(("a", 2, 0)), [_role("policy", 1), _role("rollout", 1)], layout="colocated")
    (group,) = plan.groups
    assert [dict(bundle.resources) for bundle in group.bundles] == [{"CPU": 1.0}]
    assert [(w.role, w.bundle_indices, w.num_gpus, w.num_cpus) for w in plan.workers] == [
        ("policy", (0,), 0.0, 0.5),
        ("rollout", (0,), 0.0, 0.5),
    ]


def test_separate_roles_get_groups_of_their_own() -> None:
    plan = plan_placement(_cluster(("a", 8, 4)), [_role("policy", 2, 1), _role("rollout", 2, 1)], layout="separate")
    assert [(group.name, group.strategy, len(group.bundles)) for group in plan.groups] == [
        ("policy", "PACK", 2),
        ("rollout", "PACK", 2),
    ]
    assert {(w.num_gpus, w.num_cpus) for w in plan.workers} == {(1.0, 1.0)}


def test_three_sharers_round_down_so_that_ray_can_place_them() -> None:
    roles = [_role(name, 1, 1) for name in ("policy", "reference", "rollout")]
    plan = plan_placement(_cluster(("a", 4, 1)), roles, layout="colocated")
    assert [w.num_gpus for w in plan.workers] == [0.3333] * 3


def test_a_tensor_parallel_engine_stays_on_one_node() -> None:
    roles = [_role("policy", 4, 1), _role("rollout", 2, 2)]
    plan = plan_placement(_cluster(("a", 8, 2), ("b", 8, 2)), roles, layout="colocated")
    assert [(group.strategy, {bundle.node for bundle in group.bundles}) for group in plan.groups] == [
        ("STRICT_PACK", {"a"}),
        ("STRICT_PACK", {"b"}),
    ]
    assert [(w.group, w.bundle_indices) for w in plan.workers_of("rollout")] == [
        ("shared-0", (0, 1)),
        ("shared-1", (0, 1)),
    ]


def test_a_shared_bundle_is_as_large_as_its_largest_worker() -> None:
    policy = RoleRequest(role="policy", num_workers=1, gpus_per_worker=0, cpus_per_worker=4.0)
    plan = plan_placement(_cluster(("a", 4, 0)), [policy, _role("rollout", 1)], layout="colocated")
    assert dict(plan.groups[0].bundles[0].resources) == {"CPU": 4.0}
    assert [w.num_cpus for w in plan.workers] == [2.0, 0.5]


def test_an_engine_takes_the_same_share_of_each_gpu_it_spans() -> None:
    # Its first GPU is shared with the policy, its second is its own: half of each is what it can count on.
    roles = [_role("policy", 1, 1), _role("rollout", 1, 2)]
    plan = plan_placement(_cluster(("a", 8, 2)), roles, layout="colocated")
    assert [(w.role, w.num_gpus) for w in plan.workers] == [("policy", 0.5), ("rollout", 0.5)]


def test_a_role_without_workers_takes_no_place() -> None:
    plan = plan_placement(_cluster(("a", 1, 0)), [_role("policy", 1), _role("reference", 0)], layout="separate")
    assert plan.workers_of("reference") == ()
    assert [group.name for group in plan.groups] == ["policy"]


def test_refusal_shows_the_sum_of_separate_roles() -> None:
    with pytest.raises(RefusedInput) as caught:
        plan_placement(_cluster(("a", 16, 4)), [_role("policy", 2, 1), _role("rollout", 4, 1)], layout="separate")
    assert str(caught.value) == "policy 2 x 1 GPU + rollout 4 x 1 GPU = 6 GPUs, the cluster has 4 (node a: 4)"


def test_refusal_shows_the_sum_of_colocated_roles() -> None:
    with pytest.raises(RefusedInput) as caught:
        plan_placement(
            _cluster(("a", 8, 1), ("b", 8, 2)), [_role("policy", 2, 1), _role("rollout", 4, 1)], layout="colocated"
        )
    assert str(caught.value) == (
        "policy 2 x 1 GPU shared with rollout 4 x 1 GPU = 4 GPUs, the cluster has 3 (node a: 1, node b: 2)"
    )


def test_more_workers_than_a_plan_can_hold_are_refused_before_one_is_made_for_each() -> None:
    with pytest.raises(RefusedInput, match=r"rollout 100000000 x 1 .* more than the 20000 that a plan can hold"):
        plan_placement(_cluster(("a", 10**12, 0)), [_role("rollout", 10**8)], layout="colocated")


def test_memory_of_colocated_workers_adds_up() -> None:
    roles = [_role("policy", 1, memory_gib=20), _role("rollout", 1, memory_gib=15)]
    plan = plan_placement(_cluster(("a", 2, 0), memory_gib=40), roles, layout="colocated")
    assert plan.groups[0].bundles[0].resources["memory"] == 35 * GIB
    with pytest.raises(RefusedInput) as caught:
        plan_placement(_cluster(("a", 2, 0), memory_gib=30), roles, layout="colocated")
    assert str(caught.value) == "policy 1 x 20 GiB + rollout 1 x 15 GiB = 35 GiB, the cluster has 30 (node a: 30)"


def test_an_engine_larger_than_any_node_is_refused_though_the_sum_fits() -> None:
    with pytest.raises(RefusedInput) as caught:
        plan_placement(_cluster(("a", 8, 2), ("b", 8, 2)), [_role("rollout", 1, 3)], layout="separate")
    assert str(caught.value) == (
        "group rollout-0 needs 3 GPUs + 1 CPU on one node, but what is left is a: 2 GPUs, 8 CPUs; b: 2 GPUs, 8 CPUs"
    )


def test_worker_sizes_that_do_not_divide_each_other_cannot_be_colocated() -> None:
    with pytest.raises(RefusedInput, match="3 is not a multiple"):
        plan_placement(_cluster(("a", 9, 9)), [_role("policy", 1, 2), _role("rollout", 1, 3)], layout="colocated")


def test_the_plan_reads_bundle_by_bundle() -> None:
    plan = plan_placement(_cluster(("a", 8, 2)), [_role("policy", 2, 1), _role("rollout", 1, 1)], layout="colocated")
    assert describe_plan(plan) == [
        "layout colocated: workers 3, placement groups 1",
        "group shared (PACK)",
        "  bundle 0 on a, 1 GPU + 1 CPU: policy 0 (0.5 GPUs, 0.5 CPUs), rollout 0 (0.5 GPUs, 0.5 CPUs)",
        "  bundle 1 on a, 1 GPU + 1 CPU: policy 1 (1 GPU, 1 CPU)",
    ]


def test_cluster_file_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text('[[nodes]]\nname = "a"\ncpus = 64\ngpus = 8\nmemory_gib = 512\n[[nodes]]\nname = "b"\ncpus = 4\n')
    assert load_cluster_file(str(file)) == ClusterResources(
        nodes=(NodeResources(name="a", cpus=64, gpus=8, memory_gib=512), NodeResources(name="b", cpus=4))
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nodes = []", "nodes = []: a cluster needs at least one node"),
        ('[[nodes]]\nname = "a"\ncpus = -1', "nodes.0.cpus = -1: must be at least 0.0"),
        ('[[nodes]]\nname = "a"\ncpus = 1\ngpu = 1', "nodes.0.gpu = 1: no such key"),
        ('[[nodes]]\nname = "a"', "nodes.0.cpus is not set"),
        (
            '[[nodes]]\nname = "a"\ncpus = 1\n[[nodes]]\nname = "a"\ncpus = 1',
            "nodes.name = 'a' is used 2 times: every node needs its own",
        ),
    ],
)
def test_a_bad_cluster_file_is_refused_in_one_line(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    with pytest.raises(RefusedInput) as caught:
        load_cluster_file(str(file))
    assert str(caught.value) == f"placement.cluster = {str(file)!r}: {reason}"


def test_a_missing_cluster_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedInput, match="No such file or directory"):
        load_cluster_file(str(tmp_path / "absent.toml"))


def test_the_cluster_ray_reports_is_its_living_nodes_in_a_stable_order() -> None:
    def node(address: str, alive: bool, **resources: float) -> dict[str, object]:
        return {"NodeManagerAddress": address, "NodeID": address, "Alive": alive, "Resources": resources}

    cluster = cluster_of_nodes(
        [
            node("10.0.0.2", True, CPU=16.0, GPU=8.0, memory=4.0 * GIB),
            node("10.0.0.3", False, CPU=16.0, GPU=8.0, memory=4.0 * GIB),
            node("10.0.0.1", True, CPU=4.0),
        ]
    )
    assert cluster.nodes == (
        NodeResources(name="10.0.0.1", cpus=4.0),
        NodeResources(name="10.0.0.2", cpus=16.0, gpus=8, memory_gib=4.0),
    )
