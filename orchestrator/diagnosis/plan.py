"""The models of a run, where its workers would go, and what they would hold there."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from orchestrator.cluster.memory_told import gpu_peaks, node_peak
from orchestrator.cluster.plan import plan_memory
from orchestrator.cluster.resources import ClusterResources
from orchestrator.diagnosis.finding import GIB, Finding, Patient
from orchestrator.pipeline.run import check_files, check_measured
from orchestrator.pipeline.several import check_stage
from orchestrator.pipeline.stages import stages_of
from orchestrator.preflight import (
    check_critique_model,
    check_model,
    check_other_models,
    check_processors,
    check_trackers,
)
from workers.models.folder import read_model_config

EMBEDDED = "the embedded task's small model, which the run makes"
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_CROWDED = 0.8
"""Share of memory above which what the plan does not count may be too much: processes, buffers, fragments."""


def files(patient: Patient) -> Iterator[Finding]:
    """Files that the options name, trackers, and benchmarks."""
    check_files(patient.known)
    check_trackers(patient.config)
    check_measured(patient.config)
    yield Finding("ok", "all that the options name is there")


def models(patient: Patient) -> Iterator[Finding]:
    """Whether every model of the run can be loaded and used as asked."""
    config, known = patient.config, patient.known
    if known.model.path is not None:
        check_model(known)
    if known.reward.critique == config.reward.critique:
        check_critique_model(known)
    check_other_models(config, known)
    check_processors(known)
    path = known.model.path
    yield Finding("ok", EMBEDDED if path is None else f"{read_model_config(path)['model_type']} in {path}")


def measure(patient: Patient) -> Iterator[Finding]:
    """What a stage asks that measures a model and trains none."""
    run = patient.run
    assert run.measure is not None
    told = check_stage(run, run.measure, list(patient.runs))
    yield Finding("ok", "; ".join(told))


def placed(patient: Patient) -> Iterator[Finding]:
    """Whether the cluster has room for every worker, of every stage."""
    cluster, plan = patient.placed
    stages_of(patient.config, cluster)
    cpus, num_gpus = sum(node.cpus for node in cluster.nodes), sum(node.gpus for node in cluster.nodes)
    offer = f"{len(cluster.nodes)} nodes with {num_gpus} GPUs and {cpus:g} CPUs"
    asked = ", ".join(f"{role} {count}" for role, count in Counter(one.role for one in plan.workers).items())
    yield Finding("ok", f"{asked}, {plan.layout}, on {offer}")


def memory(patient: Patient) -> Iterator[Finding]:
    """Whether the workers fit where they go, by the sum that a dry run tells."""
    cluster, plan = patient.placed
    config = patient.settled
    if config.model.path is None:
        yield Finding("ok", EMBEDDED)
        return
    gpu_memory_gib = _gpu_memory_gib(cluster, here=config.placement.cluster is None)
    roles = plan_memory(config, plan, gpu_memory_gib=gpu_memory_gib)
    on_gpus = any(worker.num_gpus for worker in plan.workers)
    if gpu_memory_gib is not None and on_gpus:
        peaks = gpu_peaks(roles, colocated=plan.layout == "colocated")
        turn = max(peaks, key=lambda name: peaks[name])
        yield judge_memory(f"a GPU in the {turn}'s turn", peaks[turn] / GIB, gpu_memory_gib, on_gpus=True)
    homes = {(group.name, i): bundle.node for group in plan.groups for i, bundle in enumerate(group.bundles)}
    for node in cluster.nodes:
        here = Counter(w.role for w in plan.workers if homes[w.group, w.bundle_indices[0]] == node.name)
        has = node.memory_gib or (this_memory_gib() if config.placement.cluster is None else None)
        if here and has is not None:
            turn, peak = node_peak(roles, here, on_gpus=on_gpus)
            yield judge_memory(f"{node.name} in the {turn}'s turn", peak / GIB, has, on_gpus=on_gpus)


def judge_memory(where: str, need_gib: float, has_gib: float, *, on_gpus: bool) -> Finding:
    """Whether the plan's sum fits."""
    told = f"{where} holds {need_gib:.1f} of {has_gib:.1f} GiB"
    if need_gib <= _CROWDED * has_gib:
        return Finding("ok", told)
    todo = "lower policy.tokens_per_microbatch, " + (
        "raise policy.zero_stage, or set policy.offload_optimizer or model.lora_rank"
        if on_gpus
        else "take fewer workers, or set model.lora_rank"
    )
    if need_gib > has_gib:
        return Finding("FAIL", f"{told}, which does not fit", todo)
    return Finding("warn", f"{told}, beside which little is left for what no plan counts", todo)


def this_memory_gib() -> float:
    """Of this machine, or as much of it as this container may take."""
    import psutil

    whole = float(psutil.virtual_memory().total)
    try:
        bound = float(_CGROUP.read_text())
    except (OSError, ValueError):  # no such file, or "max"
        bound = whole
    return min(whole, bound) / GIB


def _gpu_memory_gib(cluster: ClusterResources, *, here: bool) -> float | None:
    """Of the smallest GPU; None where nothing says it."""
    told = [node.gpu_memory_gib for node in cluster.nodes if node.gpu_memory_gib is not None]
    if told or not here or "RAY_ADDRESS" in os.environ:
        return min(told, default=None)
    import torch

    sizes = [torch.cuda.get_device_properties(i).total_memory / GIB for i in range(torch.cuda.device_count())]
    return min(sizes, default=None)
