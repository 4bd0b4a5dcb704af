"""What is moved between phases: gradients, optimizer state, weights, and what the driver handles itself."""

import math

from orchestrator.cluster.roofline.phase import Phase, phase_of
from orchestrator.cluster.roofline.question import StepQuestion
from orchestrator.cluster.roofline.work import Work, scattered

_ADAM_BYTES = 30
"""Of one number that learns: master and two moments read and written (24), a float32 gradient read (4), a 16-bit weight
written (2); Rajbhandari et al. 2020, section 3.1, https://arxiv.org/abs/1910.02054."""
_BUCKET = 500_000_000
"""Numbers of one reduction (DeepSpeed's ``reduce_bucket_size``)."""


def gradients(asked: StepQuestion, update: Phase) -> Phase:
    """Gradients added up over the ranks, and weights made whole again after a step, as far as the update does not hide
    it: at best all but what takes longer than the update.

    Our plan hides nothing below ZeRO stage 3, whose ``overlap_comm`` is off; from stage 2 on it adds up after every
    micro-batch. Stage 3 gathers weights within the update, where they are counted.
    """
    stage, steps = asked.config.policy.zero_stage, len(asked.updates) * asked.epochs
    numbers = asked.trained.trainable(asked.shape.parts())
    once = scattered(
        numbers * asked.width,
        gpus=asked.ranks,
        gpus_per_node=asked.machine.gpus_per_node,
        calls=math.ceil(numbers / _BUCKET),
    )
    numbers_of = range(len(asked.updates))
    batches = sum(max(map(len, asked.planned(number, asked.ranks))) for number in numbers_of) * asked.epochs
    best = once * (2 * steps)  # reduce-scatter and all-gather
    ours = once * (batches if stage >= 2 else steps) + once * (0 if stage == 3 else steps)
    whole = phase_of("gradients", best, ours, asked.machine, asked.reach, gpus=asked.ranks)
    hidden = update.ours_s if stage == 3 else 0.0
    return Phase(
        name=whole.name, best=best, ours=ours, gpus=whole.gpus, bound_by=whole.bound_by,
        peak_s=max(0.0, whole.peak_s - update.peak_s),
        bound_s=max(0.0, whole.bound_s - update.bound_s),
        ours_s=max(0.0, whole.ours_s - hidden),
    )  # fmt: skip


def optimizer(asked: StepQuestion) -> Phase:
    """AdamW over what learns: at best each number on one GPU alone."""
    numbers = asked.trained.trainable(asked.shape.parts())
    steps = len(asked.updates) * asked.epochs
    shard = asked.ranks if asked.config.policy.zero_stage >= 1 else 1
    best = Work(memory=_ADAM_BYTES * numbers / asked.best_gpus("policy")) * steps
    ours = Work(memory=_ADAM_BYTES * numbers / shard) * steps
    if asked.config.policy.offload_optimizer:
        # Gradients down, weights up, which can pass each other; what the host's own memory takes is not counted.
        ours = Work(host=4.0 * numbers / shard) * steps
    return phase_of("optimizer", best, ours, asked.machine, asked.reach, gpus=asked.ranks)


def sync_bytes(asked: StepQuestion) -> float:
    """Weights that travel to an engine after the first sync: of every part in which anything learns, merged."""
    parts = asked.shape.parts()
    return float(sum(part.weights for name, part in parts.items() if asked.trained.learns(name)) * asked.width)


def sync(asked: StepQuestion) -> Phase:
    """New weights in every engine; digests and the probes' forwards are part of ours, but only digests are counted.

    At best each GPU of an engine takes its share over the fastest way that there is. Ours gathers under ZeRO-3 and
    reads every tensor on the host, for its digest; then one rank broadcasts (NCCL), or every engine reads from its own
    GPU (IPC) or from the machine's memory.
    """
    size, tp, per_node = sync_bytes(asked), asked.config.rollout.tensor_parallel_size, asked.machine.gpus_per_node
    ranks = asked.ranks
    colocated = asked.config.placement.layout == "colocated"
    once = scattered(size, gpus=ranks, gpus_per_node=per_node, calls=asked.shape.large_tensors)
    whole = once if asked.config.policy.zero_stage == 3 else Work()
    receivers = 1 + asked.engine_gpus
    sent = Work(network=size if receivers > per_node else 0.0, link=size)
    best = Work(memory=2 * size / tp) if colocated else sent
    by_backend = {
        "ipc": Work(memory=2 * size + 2 * size / tp, host=size),
        "nccl": sent + Work(host=size, messages=math.ceil(math.log2(receivers)) * asked.shape.large_tensors),
        "shared_memory": Work(host=2 * size),
    }
    # One after the other: the next begins when the one before has been proved.
    ours = whole + by_backend[asked.backend]
    return phase_of("sync", best, ours, asked.machine, asked.reach, gpus=max(ranks, asked.engine_gpus))


def sleep(asked: StepQuestion) -> Phase | None:
    """Engines on the policy's GPUs put their weights into the host's memory and take them back: vLLM's level 1.

    Nothing, where the sync that follows brings all of them: level 2, which lets them go. At best, too.
    """
    if asked.config.placement.layout != "colocated":
        return None
    tp = asked.config.rollout.tensor_parallel_size
    learned = (asked.trained.weight_products(name) for name, part in asked.shape.parts().items() if part.weights)
    all_come = all(learned)
    moved = Work() if all_come else Work(host=2.0 * asked.shape.num_params * asked.width / tp)
    return phase_of("sleep and wake", Work(), moved, asked.machine, asked.reach, gpus=asked.engine_gpus)


def driver(asked: StepQuestion) -> Phase:
    """One core's time for completions, as far as it does not pass while engines sample; at best none."""
    answers = [n for a in asked.lengths for n in a.answers]
    cost = asked.driver
    spent = (cost.fixed_s * len(answers) + cost.token_s * sum(answers)) * (1 - cost.hidden)
    return Phase(
        name="driver", best=Work(), ours=Work(messages=float(len(answers))), gpus=0, peak_s=0.0, bound_s=0.0,
        ours_s=spent, bound_by="driver",
    )  # fmt: skip
