"""What the memory of every role comes to: on one GPU, on one node, and in lines for a person."""

from collections.abc import Mapping

from orchestrator.cluster.memory_plan import RoleMemory
from orchestrator.cluster.resources import GIB


def describe_memory(roles: Mapping[str, RoleMemory], *, colocated: bool, gpu_memory_gib: float | None) -> list[str]:
    """Lines for a person: each role, and whether the fullest moment of a GPU fits."""
    lines = [_held(name, role) for name, role in roles.items()]
    tenants = [name for name, role in roles.items() if role.shares]
    if tenants:
        saved = sum(roles[name].shares for name in tenants)
        each = "; ".join(f"{roles[name].shares / GIB:.1f} GiB of weights for {name}" for name in tenants)
        lines.append(f"shared base: every policy worker saves {each}, {saved / GIB:.1f} GiB in all")
    if gpu_memory_gib is None:
        return lines
    for name, peak in gpu_peaks(roles, colocated=colocated).items():
        verdict = "fits" if peak <= gpu_memory_gib * GIB else "DOES NOT FIT"
        lines.append(f"GPU in the {name}'s turn: {peak / GIB:.1f} of {gpu_memory_gib:g} GiB, {verdict}")
    return lines


def gpu_peaks(roles: Mapping[str, RoleMemory], *, colocated: bool) -> dict[str, float]:
    """Bytes that one GPU holds in the turn of each role."""
    together = {"policy", *(name for name, role in roles.items() if role.shares)}
    return {
        name: sum(role.gpu.values())
        + sum(
            other.resident
            for beside, other in roles.items()
            if beside != name and (colocated or {name, beside} <= together)
        )
        for name, role in roles.items()
    }


def node_peak(roles: Mapping[str, RoleMemory], workers: Mapping[str, int], *, on_gpus: bool) -> tuple[str, float]:
    """Role in whose turn a node's own memory is fullest, and the bytes that its workers hold then.

    Args:
        workers: Of each role on the node.
        on_gpus: Their weights are elsewhere; without GPUs all is in the node's memory.
    """
    host = sum(workers.get(name, 0) * sum(role.host.values()) for name, role in roles.items())
    if on_gpus:
        return "policy", host
    turns = {
        name: host
        + workers.get(name, 0) * sum(role.gpu.values())
        + sum(workers.get(beside, 0) * other.resident for beside, other in roles.items() if beside != name)
        for name, role in roles.items()
    }
    fullest = max(turns, key=lambda name: turns[name])
    return fullest, turns[fullest]


def _terms(parts: dict[str, float]) -> str:
    told = " + ".join(f"{name} {amount / GIB:.1f}" for name, amount in parts.items())
    return f"{told} = {sum(parts.values()) / GIB:.1f} GiB"


def _held(name: str, role: RoleMemory) -> str:
    where = f"{name} in a policy worker" if role.shares else f"one {name} worker"
    return f"memory of {where}: {_terms(role.gpu)}{_host(role)}"


def _host(role: RoleMemory) -> str:
    return f"; on the host {_terms(role.host)}" if role.host else ""
