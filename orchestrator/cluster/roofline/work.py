"""FLOPs, bytes and messages of a piece of work on one GPU, and how long a machine takes for them at least."""

import math
from dataclasses import astuple, dataclass, fields

from orchestrator.cluster.roofline.hardware import Machine, Reach

_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """On one GPU."""

    flops: float = 0.0
    memory: float = 0.0
    """Bytes to and from its own memory: weights, keys and values, optimizer; what activations move is not counted."""
    link: float = 0.0
    """Bytes sent to GPUs of its node."""
    network: float = 0.0
    """Bytes sent to other nodes."""
    host: float = 0.0
    """Bytes to or from the memory of its machine, whichever way has more."""
    messages: float = 0.0
    """Rounds of collectives, one after the other."""

    def __add__(self, other: "Work") -> "Work":
        return Work(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})

    def __mul__(self, times: float) -> "Work":
        return Work(**{f.name: getattr(self, f.name) * times for f in fields(self)})

    def __bool__(self) -> bool:
        return any(astuple(self))


def resource_seconds(work: Work, machine: Machine, reach: Reach) -> dict[str, float]:
    """Seconds that each resource is busy."""
    gpu = machine.gpu
    return {
        "flops": work.flops / (gpu.tflops * _TERA * reach.flops),
        "memory": work.memory / (gpu.memory_gb_s * _GIGA * reach.memory),
        "link": work.link / (gpu.link_gb_s * _GIGA * reach.links),
        "network": work.network / (machine.network_gb_s * _GIGA * reach.links),
        "host": work.host / (gpu.host_gb_s * _GIGA * reach.links),
        "messages": work.messages * reach.message_s,
    }


def seconds(work: Work, machine: Machine, reach: Reach) -> float:
    """The busiest resource's: all others work at the same time, which is why it is a bound."""
    return max(resource_seconds(work, machine, reach).values())


def busiest(work: Work, machine: Machine, reach: Reach) -> str:
    """The resource that bounds it; empty for no work."""
    each = resource_seconds(work, machine, reach)
    return max(each, key=lambda name: each[name]) if work else ""


def scattered(num_bytes: float, *, gpus: int, gpus_per_node: int, calls: float = 1.0) -> Work:
    """One reduce-scatter, all-gather or broadcast of so many bytes in all, as one GPU sees it.

    Every GPU sends all but its own part, once; of what leaves a node each of its GPUs sends a share. The rounds are
    those of a tree (Thakur et al. 2005, https://doi.org/10.1177/1094342005051521).

    Args:
        calls: Collectives that the bytes are sent in.
    """
    if gpus <= 1:
        return Work()
    nodes, inside = math.ceil(gpus / gpus_per_node), min(gpus, gpus_per_node)
    return Work(
        link=num_bytes * (gpus - 1) / gpus if inside > 1 else 0.0,
        network=num_bytes / inside * (nodes - 1) / nodes,
        messages=calls * math.ceil(math.log2(gpus)),
    )
