"""The machines a run may use, as placement sees them."""

import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from orchestrator.cluster.roofline.hardware import GPU_KINDS, NETWORK_GB_S, GpuKind, gpu_kind, kind_of_device
from orchestrator.errors import RefusedInput, refusal
from workers.given_files import UnusableFile, read_toml

GIB = 2**30
_SEPARATOR = "#"
_KIND = "accelerator_type:"
"""Ray's name for a node's kind of GPU follows it."""


class NodeResources(BaseModel):
    """What one machine offers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field(min_length=1)
    cpus: float = Field(ge=0)
    gpus: int = Field(default=0, ge=0)
    memory_gib: float | None = Field(default=None, gt=0)
    """None = not stated, so not checked."""
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    """Of one GPU; None = not stated, so not checked."""

    def offer(self) -> dict[str, float]:
        """Amounts under Ray's names, memory in bytes; infinite where it is not stated."""
        memory = math.inf if self.memory_gib is None else self.memory_gib * GIB
        return {"GPU": float(self.gpus), "CPU": self.cpus, "memory": memory}


class ClusterResources(BaseModel):
    """The machines a run may use."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    nodes: tuple[NodeResources, ...] = Field(strict=False)
    gpu: Annotated[GpuKind | None, BeforeValidator(gpu_kind)] = None
    """Of every node, a kind by its name or its numbers; None = not stated, so nothing is said of a step's time."""
    network_gb_s: float = Field(default=NETWORK_GB_S, gt=0)
    """Of one GPU to other nodes, one direction, 10^9 bytes/s."""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if not self.nodes:
            raise ValueError("nodes = []: a cluster needs at least one node")
        names = [node.name for node in self.nodes]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"nodes.name = {name!r} is used {names.count(name)} times: every node needs its own")
        return self


def load_cluster_file(path: str) -> ClusterResources:
    """Read a cluster from TOML: one ``[[nodes]]`` table a machine with the fields of ``NodeResources``, and before
    them the other fields of ``ClusterResources``.

    Raises:
        RefusedInput: the file is missing, is not TOML, or has a wrong key or value.
    """
    try:
        return ClusterResources.model_validate(read_toml(path))
    except UnusableFile as error:
        raise RefusedInput(f"placement.cluster = {path!r} {error}") from error
    except ValidationError as error:
        raise RefusedInput(f"placement.cluster = {path!r}: {refusal(error)}") from error


def cluster_of_nodes(nodes: Iterable[Mapping[str, Any]]) -> ClusterResources:
    """The machines among ``ray.nodes()`` that are alive, in an order that does not depend on when they joined.

    Several Ray nodes on one machine share its address and are told apart by a number after it.
    """
    found: list[NodeResources] = []
    taken: Counter[str] = Counter()
    kinds: set[str] = set()
    for node in sorted(nodes, key=lambda node: (node["NodeManagerAddress"], node["NodeID"])):
        if node["Alive"]:
            offer, address = node["Resources"], node["NodeManagerAddress"]
            taken[address] += 1
            kinds |= {name.removeprefix(_KIND) for name in offer if name.startswith(_KIND)}
            found.append(
                NodeResources(
                    name=address if taken[address] == 1 else f"{address}{_SEPARATOR}{taken[address]}",
                    cpus=float(offer.get("CPU", 0.0)),
                    gpus=int(offer.get("GPU", 0)),
                    memory_gib=float(offer["memory"]) / GIB if "memory" in offer else None,
                )
            )
    return ClusterResources(nodes=tuple(found), gpu=GPU_KINDS.get(kinds.pop()) if len(kinds) == 1 else None)


def machine_of(node: str) -> str:
    """The machine a node of ``cluster_of_nodes`` is on."""
    return node.split(_SEPARATOR)[0]


def ray_is_running() -> bool:
    """True inside a Ray job, or where an address of a cluster is set."""
    return "RAY_ADDRESS" in os.environ


def available_cluster() -> ClusterResources:
    """The machines of the running Ray cluster, else this machine."""
    if not ray_is_running():
        return this_machine()
    import ray  # deferred: most refusals need no cluster

    ray.init(logging_level=logging.WARNING, log_to_driver=False)
    try:
        return cluster_of_nodes(ray.nodes())
    finally:
        ray.shutdown()


def this_machine() -> ClusterResources:
    """This machine's processors and GPUs."""
    import torch  # deferred: configuration errors are answered before torch is loaded

    gpus = torch.cuda.device_count()
    node = NodeResources(name="this machine", cpus=float(os.cpu_count() or 1), gpus=gpus)
    return ClusterResources(nodes=(node,), gpu=kind_of_device(torch.cuda.get_device_name()) if gpus else None)
