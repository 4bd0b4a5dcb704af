"""Where every worker runs: a pure function from (cluster, roles, layout) to placement groups.

A bundle holds one GPU (or, for a worker without GPU, its CPUs). A worker that spans several GPUs takes as many
neighbouring bundles, all in one group that must lie on one node.

    colocated   bundle 0: policy 0 + reference 0 + rollout 0     bundle 1: policy 1 + rollout 1     ...
    separate    policy:  bundles 0, 1, ...      rollout:  bundles 0, 1, ...      each role a group of its own

The plan assigns groups to nodes to prove that they fit; at run time Ray makes its own assignment.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from orchestrator.cluster.resources import GIB, ClusterResources
from orchestrator.errors import RefusedInput

Layout = Literal["colocated", "separate"]
_RAY_PRECISION = 10_000
"""Ray counts resources in steps of 1/10,000; shares are rounded down so that their sum never passes 1."""
_UNITS = ("GPU", "CPU", "memory")
_MOST_BUNDLES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRequest:
    """The workers one role asks for."""

    role: str
    num_workers: int
    gpus_per_worker: int
    """0 on a machine without GPUs; above 1 for tensor parallelism."""
    cpus_per_worker: float
    memory_gib: float | None = None
    """CPU memory of one worker; None = not planned."""

    def __post_init__(self) -> None:
        if self.num_workers < 0 or self.gpus_per_worker < 0 or self.cpus_per_worker < 0:
            raise ValueError(f"{self.role}: workers, GPUs and CPUs must be at least 0")
        if self.gpus_per_worker == 0 and self.cpus_per_worker == 0:
            raise ValueError(f"{self.role}: a worker without GPU needs more than 0 CPUs, as Ray has no empty bundles")

    @property
    def bundles_per_worker(self) -> int:
        """One for each GPU, one in all for a worker without."""
        return max(1, self.gpus_per_worker)


@dataclass(frozen=True, slots=True)
class Bundle:
    """One slice of a node."""

    resources: Mapping[str, float]
    """As Ray names them: ``GPU``, ``CPU``, and ``memory`` in bytes; no zero entries."""
    node: str
    """The node this plan found room on."""


@dataclass(frozen=True, slots=True)
class BundleGroup:
    """One placement group."""

    name: str
    strategy: Literal["PACK", "STRICT_PACK"]
    bundles: tuple[Bundle, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlacement:
    """Where one worker runs and what it takes there."""

    role: str
    index: int
    group: str
    bundle_indices: tuple[int, ...]
    num_gpus: float
    """Share of the GPU of *each* of its bundles; 0 without GPU."""
    num_cpus: float
    """CPUs taken from its first bundle."""


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """Groups, and the worker that goes into each bundle."""

    layout: Layout
    groups: tuple[BundleGroup, ...]
    workers: tuple[WorkerPlacement, ...]

    def workers_of(self, role: str) -> tuple[WorkerPlacement, ...]:
        """The role's workers in index order; empty for a role that was not asked for."""
        return tuple(worker for worker in self.workers if worker.role == role)


@dataclass(frozen=True, slots=True)
class _Tenant:
    """A worker's presence in one bundle."""

    request: RoleRequest
    index: int
    first: bool
    """True in the worker's first bundle, where its CPUs and memory are."""


@dataclass(frozen=True, slots=True)
class _Draft:
    """A placement group that has no node yet: the tenants of each bundle."""

    name: str
    one_node: bool
    bundles: tuple[tuple[_Tenant, ...], ...]


def plan_placement(cluster: ClusterResources, requests: Sequence[RoleRequest], *, layout: Layout) -> PlacementPlan:
    """Place every worker, or show the sum that does not fit.

    Colocated workers take turns, so they share a bundle's GPU and CPUs; their memory adds up.

    Raises:
        RefusedInput: the roles ask for more than the cluster has, in all or on one node.
    """
    asked = [request for request in requests if request.num_workers > 0]
    _refuse_hopeless(asked)
    sets = [asked] if layout == "colocated" else [[request] for request in asked]
    drafts = [draft for shared in sets if shared for draft in _drafts(shared)]
    for unit in _UNITS:
        _check_sum(cluster, asked, drafts, unit, layout)
    nodes = _assign(cluster, drafts)
    groups = tuple(
        BundleGroup(
            draft.name,
            "STRICT_PACK" if draft.one_node else "PACK",
            tuple(Bundle(_needs(tenants), nodes[draft.name, i]) for i, tenants in enumerate(draft.bundles)),
        )
        for draft in drafts
    )
    return PlacementPlan(layout, groups, tuple(worker for draft in drafts for worker in _workers(draft)))


def _refuse_hopeless(asked: Sequence[RoleRequest]) -> None:
    """Refuse more bundles of a role than any cluster has, before one is made for each of its workers."""
    for request in asked:
        if (count := request.num_workers * request.bundles_per_worker) > _MOST_BUNDLES:
            raise RefusedInput(
                f"{request.role} {request.num_workers} x {request.bundles_per_worker} GPUs or workers = {count}, more "
                f"than the {_MOST_BUNDLES} that a plan can hold"
            )


def describe_plan(plan: PlacementPlan) -> list[str]:
    """The plan as lines for a person: every bundle, the node it fits on, and who shares it."""
    lines = [f"layout {plan.layout}: workers {len(plan.workers)}, placement groups {len(plan.groups)}"]
    homes: dict[tuple[str, int], list[WorkerPlacement]] = {}
    for worker in plan.workers:
        for i in worker.bundle_indices:
            homes.setdefault((worker.group, i), []).append(worker)
    for group in plan.groups:
        lines.append(f"group {group.name} ({group.strategy})")
        for i, bundle in enumerate(group.bundles):
            tenants = homes.get((group.name, i), [])
            shares = ", ".join(f"{w.role} {w.index} ({_share(w, first=w.bundle_indices[0] == i)})" for w in tenants)
            size = " + ".join(_amount(bundle.resources[unit], unit) for unit in _UNITS if unit in bundle.resources)
            lines.append(f"  bundle {i} on {bundle.node}, {size}: {shares}")
    return lines


def _drafts(shared: Sequence[RoleRequest]) -> list[_Draft]:
    """Groups for roles that share bundles: one group, or one a node-bound stretch where a worker spans bundles."""
    stretch = max(request.bundles_per_worker for request in shared)
    for request in shared:
        if stretch % request.bundles_per_worker:
            raise RefusedInput(
                f"placement.layout = 'colocated': {request.role} workers of {request.gpus_per_worker} GPUs "
                f"cannot share GPUs with workers of {stretch}: {stretch} is not a multiple"
            )
    num_bundles = max(request.num_workers * request.bundles_per_worker for request in shared)
    bundles = tuple(
        tuple(
            _Tenant(request, slot // request.bundles_per_worker, slot % request.bundles_per_worker == 0)
            for request in shared
            if slot < request.num_workers * request.bundles_per_worker
        )
        for slot in range(num_bundles)
    )
    name = shared[0].role if len(shared) == 1 else "shared"
    if stretch == 1:
        return [_Draft(name, False, bundles)]
    starts = range(0, num_bundles, stretch)
    return [_Draft(f"{name}-{i}", True, bundles[start : start + stretch]) for i, start in enumerate(starts)]


def _needs(tenants: Sequence[_Tenant]) -> dict[str, float]:
    settled = [tenant.request for tenant in tenants if tenant.first]
    needs = {
        "GPU": 1.0 if any(tenant.request.gpus_per_worker for tenant in tenants) else 0.0,
        "CPU": max((request.cpus_per_worker for request in settled), default=0.0),
        "memory": sum((request.memory_gib or 0.0) * GIB for request in settled),
    }
    return {unit: amount for unit, amount in needs.items() if amount > 0}


def _workers(draft: _Draft) -> list[WorkerPlacement]:
    homes: dict[tuple[str, int], list[int]] = {}
    for i, tenants in enumerate(draft.bundles):
        for tenant in tenants:
            homes.setdefault((tenant.request.role, tenant.index), []).append(i)
    placed = []
    for tenant in (tenant for tenants in draft.bundles for tenant in tenants if tenant.first):
        indices = homes[tenant.request.role, tenant.index]
        gpu_sharers = max(sum(t.request.gpus_per_worker > 0 for t in draft.bundles[i]) for i in indices)
        cpu_sharers = sum(t.first for t in draft.bundles[indices[0]])
        placed.append(
            WorkerPlacement(
                role=tenant.request.role,
                index=tenant.index,
                group=draft.name,
                bundle_indices=tuple(indices),
                num_gpus=_part(1.0, gpu_sharers) if tenant.request.gpus_per_worker else 0.0,
                num_cpus=_part(tenant.request.cpus_per_worker, cpu_sharers),
            )
        )
    return placed


def _part(amount: float, sharers: int) -> float:
    return math.floor(amount / sharers * _RAY_PRECISION) / _RAY_PRECISION


def _check_sum(
    cluster: ClusterResources, asked: Sequence[RoleRequest], drafts: Sequence[_Draft], unit: str, layout: Layout
) -> None:
    needed = sum(_needs(tenants).get(unit, 0.0) for draft in drafts for tenants in draft.bundles)
    offered = sum(node.offer()[unit] for node in cluster.nodes)
    if needed <= offered:
        return
    terms = [(request, _per_worker(request)[unit]) for request in asked]
    joiner = " shared with " if layout == "colocated" and unit != "memory" else " + "
    total = joiner.join(f"{r.role} {r.num_workers} x {_amount(each, unit)}" for r, each in terms if each)
    nodes = ", ".join(f"node {node.name}: {_number(node.offer()[unit], unit)}" for node in cluster.nodes)
    raise RefusedInput(f"{total} = {_amount(needed, unit)}, the cluster has {_number(offered, unit)} ({nodes})")


def _assign(cluster: ClusterResources, drafts: Sequence[_Draft]) -> dict[tuple[str, int], str]:
    """Node of every bundle by (group, index): first fit, node-bound groups first, large before small."""
    pieces: list[tuple[_Draft, list[int]]] = []
    for draft in drafts:
        everything = list(range(len(draft.bundles)))
        pieces += [(draft, everything)] if draft.one_node else [(draft, [i]) for i in everything]
    sized = [(draft, indices, _total(draft, indices)) for draft, indices in pieces]
    sized.sort(key=lambda piece: (-len(piece[1]), *(-piece[2].get(unit, 0.0) for unit in _UNITS)))
    free = {node.name: node.offer() for node in cluster.nodes}
    nodes: dict[tuple[str, int], str] = {}
    for draft, indices, needs in sized:
        home = next((name for name, left in free.items() if all(left[u] >= needs[u] for u in needs)), None)
        if home is None:
            amounts = " + ".join(_amount(amount, unit) for unit, amount in needs.items())
            left = "; ".join(f"{name}: {', '.join(_amount(f[u], u) for u in needs)}" for name, f in free.items())
            raise RefusedInput(f"group {draft.name} needs {amounts} on one node, but what is left is {left}")
        for unit, amount in needs.items():
            free[home][unit] -= amount
        nodes |= {(draft.name, i): home for i in indices}
    return nodes


def _total(draft: _Draft, indices: Sequence[int]) -> dict[str, float]:
    needs = [_needs(draft.bundles[i]) for i in indices]
    return {unit: sum(n.get(unit, 0.0) for n in needs) for unit in _UNITS if any(unit in n for n in needs)}


def _per_worker(request: RoleRequest) -> dict[str, float]:
    return {
        "GPU": float(request.gpus_per_worker),
        "CPU": request.cpus_per_worker,
        "memory": (request.memory_gib or 0.0) * GIB,
    }


def _number(amount: float, unit: str) -> str:
    return f"{amount / GIB if unit == 'memory' else amount:g}"


def _amount(amount: float, unit: str) -> str:
    if unit == "memory":
        return f"{_number(amount, unit)} GiB"
    return f"{amount:g} {unit}" if amount == 1 else f"{amount:g} {unit}s"


def _share(worker: WorkerPlacement, *, first: bool) -> str:
    cpus = [_amount(worker.num_cpus, "CPU")] if first else []
    return ", ".join(([_amount(worker.num_gpus, "GPU")] if worker.num_gpus else []) + cpus)
