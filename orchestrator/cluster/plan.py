"""Which workers a run asks for, and where they go."""

from typing import Literal

from orchestrator.cluster.choices import sync_backend
from orchestrator.cluster.placement import PlacementPlan, RoleRequest, plan_placement
from orchestrator.cluster.resources import ClusterResources, available_cluster, load_cluster_file
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


def role_requests(config: TrainConfig, cluster: ClusterResources) -> list[RoleRequest]:
    """The workers a run asks for; on a cluster without GPUs they ask for CPUs alone."""
    gpu = 1 if any(node.gpus for node in cluster.nodes) else 0
    counts = {"policy": config.policy.num_ranks}
    if config.reference_workers:
        counts["reference"] = config.reference_workers
    requests = [
        RoleRequest(role=role, num_workers=count, gpus_per_worker=gpu, cpus_per_worker=1.0)
        for role, count in counts.items()
    ]
    if config.offline and not config.generates_critiques:
        return requests
    if config.reward.critique.weight:
        critics = config.reward.critique.num_workers
        requests.append(RoleRequest(role="critic", num_workers=critics, gpus_per_worker=gpu, cpus_per_worker=1.0))
    width = config.rollout.tensor_parallel_size * gpu
    return [
        *requests,
        RoleRequest(role="rollout", num_workers=config.rollout.num_engines, gpus_per_worker=width, cpus_per_worker=1.0),
    ]


def single_role_plan(
    config: TrainConfig,
    role: Literal["reference", "critic", "rollout"],
    num_workers: int,
    cluster: ClusterResources | None = None,
) -> PlacementPlan:
    """Workers of one role alone, for what is done before or after training.

    Args:
        cluster: Where; None looks at what there is, as ``plan_run`` does.
    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = cluster or _cluster_of(config)
    gpu = 1 if any(node.gpus for node in cluster.nodes) else 0
    width = config.rollout.tensor_parallel_size if role == "rollout" else 1
    request = RoleRequest(role=role, num_workers=num_workers, gpus_per_worker=width * gpu, cpus_per_worker=1.0)
    return plan_placement(cluster, [request], layout=config.placement.layout)


def plan_run(config: TrainConfig) -> tuple[ClusterResources, PlacementPlan]:
    """Place the run on the described cluster, on the one Ray reports, or on this machine.

    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = _cluster_of(config)
    plan = plan_placement(cluster, role_requests(config, cluster), layout=config.placement.layout)
    sync_backend(config, plan)
    if config.model.quantize is not None:
        _check_quantize(plan)
    return cluster, plan


def _cluster_of(config: TrainConfig) -> ClusterResources:
    return load_cluster_file(config.placement.cluster) if config.placement.cluster else available_cluster()


def _check_quantize(plan: PlacementPlan) -> None:
    from workers.models.loading import check_quantize  # deferred: it imports transformers

    try:
        check_quantize(has_gpu=all(worker.num_gpus for worker in plan.workers_of("policy")))
    except ValueError as error:
        raise RefusedInput(str(error)) from error
