"""Which workers a run asks for, and where they go."""

from orchestrator.cluster.choices import sync_backend
from orchestrator.cluster.memory_plan import MemoryQuestion, RoleMemory, on_base
from orchestrator.cluster.placement import PlacementPlan, RoleRequest, plan_placement
from orchestrator.cluster.resources import ClusterResources, available_cluster, load_cluster_file
from orchestrator.cluster.roles import ROLES, Role, shares_base
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


def role_requests(config: TrainConfig, cluster: ClusterResources) -> list[RoleRequest]:
    """The workers a run asks for; on a cluster without GPUs they ask for CPUs alone."""
    roles = (role for role in ROLES.values() if role.in_run(config) and not shares_base(config, role))
    return [_request(config, role, cluster) for role in roles]


def single_role_plan(config: TrainConfig, role: str, cluster: ClusterResources | None = None) -> PlacementPlan:
    """Workers of one role alone, for what is done before or after training.

    Args:
        cluster: Where; None looks at what there is, as ``plan_run`` does.
    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = cluster or _cluster_of(config)
    return plan_placement(cluster, [_request(config, ROLES[role], cluster)], layout=config.placement.layout)


def plan_memory(config: TrainConfig, plan: PlacementPlan, *, gpu_memory_gib: float | None) -> dict[str, RoleMemory]:
    """Memory of one worker of every role in the plan; engines take a share of their GPU and so need its size."""
    asked = MemoryQuestion(config=config, gpu_memory_gib=gpu_memory_gib)
    own = {name: role.memory(asked) for name, role in ROLES.items() if plan.workers_of(name)}
    tenants = {name: on_base(role.memory(asked), asked) for name, role in ROLES.items() if shares_base(config, role)}
    return own | tenants


def plan_run(config: TrainConfig) -> tuple[ClusterResources, PlacementPlan]:
    """Place the run on the described cluster, on the one Ray reports, or on this machine.

    Raises:
        RefusedInput: with the sum that does not fit.
    """
    cluster = _cluster_of(config)
    plan = plan_placement(cluster, role_requests(config, cluster), layout=config.placement.layout)
    sync_backend(config, plan)
    if config.rollout.staleness and plan.layout == "colocated" and any(w.num_gpus for w in plan.workers_of("rollout")):
        raise RefusedInput(
            f"rollout.staleness = {config.rollout.staleness} needs placement.layout = 'separate' on GPUs, not "
            "'colocated': engines sample while the policy learns"
        )
    if config.model.quantize is not None:
        _check_quantize(plan)
    if config.model.attention == "flex_attention" and not all(w.num_gpus for w in plan.workers_of("policy")):
        raise RefusedInput("model.attention = 'flex_attention' needs a GPU for every policy rank: it learns on no CPU")
    return cluster, plan


def _request(config: TrainConfig, role: Role, cluster: ClusterResources) -> RoleRequest:
    gpus = role.gpus(config) if any(node.gpus for node in cluster.nodes) else 0
    return RoleRequest(role=role.name, num_workers=role.count(config), gpus_per_worker=gpus, cpus_per_worker=role.cpus)


def _cluster_of(config: TrainConfig) -> ClusterResources:
    return load_cluster_file(config.placement.cluster) if config.placement.cluster else available_cluster()


def _check_quantize(plan: PlacementPlan) -> None:
    from workers.models.loading import check_quantize  # deferred: it imports transformers

    try:
        check_quantize(has_gpu=all(worker.num_gpus for worker in plan.workers_of("policy")))
    except ValueError as error:
        raise RefusedInput(str(error)) from error
