"""What a GPU and its links do at most, from data sheets, and how much of it anybody was seen to get."""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class GpuKind(BaseModel):
    """One kind of GPU, each number one way and of one GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    tflops: float = Field(gt=0)
    """Dense bfloat16, 10^12 FLOP/s, no sparsity."""
    memory_gb_s: float = Field(gt=0)
    """To its own memory, 10^9 bytes/s."""
    link_gb_s: float = Field(gt=0)
    """To the other GPUs of its node, one direction, 10^9 bytes/s."""
    host_gb_s: float = Field(gt=0)
    """To the memory of its machine, one direction, 10^9 bytes/s."""


GPU_KINDS = {
    "A100-80G": GpuKind(tflops=312.0, memory_gb_s=2039.0, link_gb_s=300.0, host_gb_s=32.0),
    "H100": GpuKind(tflops=989.0, memory_gb_s=3350.0, link_gb_s=450.0, host_gb_s=64.0),
    "H200": GpuKind(tflops=989.0, memory_gb_s=4800.0, link_gb_s=450.0, host_gb_s=64.0),
    "B200": GpuKind(tflops=2250.0, memory_gb_s=8000.0, link_gb_s=900.0, host_gb_s=64.0),
    "L40S": GpuKind(tflops=362.0, memory_gb_s=864.0, link_gb_s=32.0, host_gb_s=32.0),
}
"""By Ray's names; SXM boards except L40S, which has PCIe alone. From NVIDIA's data sheets: half of what they give for
both directions of NVLink and PCIe, and half of a B200's bfloat16, which is given with sparsity."""
NETWORK_GB_S = 50.0
"""Of one GPU to other nodes, one direction, where the cluster does not say: one adapter of 400 Gbit/s a GPU, as in
NVIDIA's DGX H100."""


def gpu_kind(told: Any) -> Any:
    """A kind by its name; anything else as it is.

    Raises:
        ValueError: no such name.
    """
    if not isinstance(told, str):
        return told
    if told not in GPU_KINDS:
        raise ValueError(
            f"no such kind; known: {', '.join(GPU_KINDS)}; or a table of {', '.join(GpuKind.model_fields)}"
        )
    return GPU_KINDS[told]


def kind_of_device(name: str) -> GpuKind | None:
    """The kind of a GPU by what its driver calls it; None for boards of other numbers, and for those not known."""
    if any(board in name for board in ("PCIe", "NVL", "GH200", "GB200", "MIG")):
        return None
    found = (kind for kind in GPU_KINDS if all(part in name for part in kind.removesuffix("G").split("-")))
    return GPU_KINDS.get(next(found, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Shares of the data sheets' numbers that a step is taken to get at best."""

    flops: float = 0.40
    """Llama 3 405B trained at 38 to 43 % (Dubey et al. 2024, table 4, https://arxiv.org/abs/2407.21783)."""
    memory: float = 0.90
    """A plain copy on a GPU gets about that; an assumption, not a measurement of ours."""
    links: float = 0.80
    """Collectives over NVLink, PCIe or a network; an assumption, not a measurement of ours."""
    message_s: float = 20e-6
    """Start of a collective; an assumption, not a measurement of ours."""


PEAK = Reach(flops=1.0, memory=1.0, links=1.0, message_s=0.0)
"""What no machine gets: a bound with nothing assumed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The GPUs of a run."""

    gpu: GpuKind
    gpus_per_node: int
    network_gb_s: float = NETWORK_GB_S
    gpu_memory_gib: float | None = None
    """Of one GPU; None = never what bounds the number of sequences that an engine runs."""
