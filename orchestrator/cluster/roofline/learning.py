"""What the trainer's GPUs do: log-probs of what was sampled, values, updates."""

from dataclasses import replace

from orchestrator.cluster.roofline.layout import Laid, best_layout
from orchestrator.cluster.roofline.lengths import Lengths
from orchestrator.cluster.roofline.passes import (
    FLASH_BACKWARD,
    Flops,
    Trained,
    backward_flops,
    forward_flops,
    recomputed_flops,
    total,
    without_tower,
)
from orchestrator.cluster.roofline.phase import Phase, phase_of
from orchestrator.cluster.roofline.question import Batches, StepQuestion
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.cluster.roofline.work import Work, scattered

_NEEDED_TWICE = 2.0
"""Backward FLOPs of attention that need be, forward FLOPs: with its scores kept, none is computed again."""


def asks_first(asked: StepQuestion) -> bool:
    """Whether the policy is asked for the log-probs of what was sampled before it learns; see ``online_step``."""
    return len(asked.updates) * asked.epochs != 1 or asked.config.reference_workers > 0


def old_logprobs(asked: StepQuestion) -> Phase | None:
    """A forward over all samples. At best over those of no first update, whose own forward finds them."""
    if not asks_first(asked):
        return None
    later = 1.0 if asked.epochs > 1 else 1 - 1 / len(asked.updates)
    return _scored(asked, "old log-probs", "policy", asked.shape, needed=later if len(asked.updates) > 1 else 0.0)


def reference(asked: StepQuestion) -> Phase | None:
    """A forward over all samples by the reference, or a teacher."""
    if not asked.config.reference_workers:
        return None
    return _scored(asked, "reference", "reference", asked.others.get("reference", asked.shape))


def scalar_rewards(asked: StepQuestion) -> Phase | None:
    """A forward over all samples by a reward model, of whose head nothing is counted."""
    if "scalar_reward" not in asked.others:
        return None
    return _scored(asked, "scalar rewards", "scalar_reward", _headless(asked.others["scalar_reward"]))


def values(asked: StepQuestion) -> Phase | None:
    """A forward over all samples by the critic."""
    if "critic" not in asked.others:
        return None
    return _scored(asked, "values", "critic", _headless(asked.others["critic"]))


def update(asked: StepQuestion) -> Phase:
    """Every optimizer step of the policy, forward and backward."""
    return _learned(asked, "update", asked.shape, epochs=asked.epochs)


def critic_update(asked: StepQuestion) -> Phase | None:
    """Every optimizer step of the critic."""
    critic = asked.config.needs.critic
    if critic is None or "critic" not in asked.others:
        return None
    return _learned(asked, "critic's update", _headless(asked.others["critic"]), epochs=critic.epochs)


def gathered(asked: StepQuestion, shape: ModelCounts, *, calls: int) -> Work:
    """Weights made whole under ZeRO-3, so many times."""
    num_bytes, per_node = shape.num_params * asked.width, asked.machine.gpus_per_node
    once = scattered(num_bytes, gpus=asked.ranks, gpus_per_node=per_node, calls=shape.large_tensors)
    return once * (calls if asked.config.policy.zero_stage == 3 else 0)


def best_tower(asked: StepQuestion, shape: ModelCounts, forward: Flops, *, here: bool) -> Flops:
    """A frozen tower is needed once a step: in one of the passes, which is the update."""
    frozen = shape is asked.shape and not asked.trained.learns("vision")
    return without_tower(forward) if frozen and not here else forward


def _scored(asked: StepQuestion, name: str, role: str, shape: ModelCounts, *, needed: float = 1.0) -> Phase:
    """A forward over all samples, of which the best plan needs a share."""
    everything = [sample for samples in asked.updates for sample in samples]
    workers, best_gpus = asked.role_gpus(role), asked.best_gpus(role)
    batches = asked.batches(everything, workers)
    best = best_tower(asked, shape, forward_flops(shape, best_layout(shape, asked.lengths)), here=False)
    costs = [[total(forward_flops(shape, laid)) for laid in own] for own in batches]
    read, calls = shape.num_params * asked.width, max(map(len, batches))
    sharded = gathered(asked, shape, calls=calls) if role in ("policy", "critic") else Work()
    ours = Work(flops=waited(costs, lockstep=bool(sharded)), memory=calls * read) + sharded
    least = Work(flops=total(best) / best_gpus, memory=float(read))
    return phase_of(name, least * needed, ours, asked.machine, asked.reach, gpus=workers)


def _learned(asked: StepQuestion, name: str, shape: ModelCounts, *, epochs: int) -> Phase:
    trained, width = asked.trained, asked.width
    batches = [asked.batches(samples, asked.ranks) for samples in asked.updates]
    costs = [[[_learning(asked, shape, laid, trained) for laid in own] for own in shares] for shares in batches]
    excess = _excess(asked, shape, batches, costs, trained)
    lockstep = asked.config.policy.zero_stage >= 2
    flops = sum(waited([[sum(c.values()) for c in own] for own in shares], lockstep=lockstep) for shares in costs)
    least = least_learning(asked, shape, asked.lengths, trained)
    passes = 3 if asked.config.model.gradient_checkpointing else 2
    calls = sum(max(map(len, shares)) for shares in batches)
    read = shape.num_params * width
    best = Work(flops=least / asked.best_gpus("policy"), memory=2.0 * read * len(batches))
    ours = Work(flops=flops, memory=float(calls * passes * read)) + gathered(asked, shape, calls=2 * calls)
    scaled = {reason: amount * epochs for reason, amount in excess.items()}
    return phase_of(name, best * epochs, ours * epochs, asked.machine, asked.reach, gpus=asked.ranks, excess=scaled)


def least_learning(asked: StepQuestion, shape: ModelCounts, lengths: Lengths, trained: Trained) -> float:
    """FLOPs of forward and backward over a step laid out as well as can be, on all GPUs together."""
    laid = best_layout(shape, lengths)
    forward = best_tower(asked, shape, forward_flops(shape, laid), here=True)
    return total(forward) + total(backward_flops(shape, laid, trained, attention=_NEEDED_TWICE))


def waited(costs: list[list[float]], *, lockstep: bool) -> float:
    """What the ranks spend, who wait for each other at the end or, in lockstep, after each micro-batch."""
    if not lockstep:
        return max(map(sum, costs), default=0.0)
    return sum(map(max, zip(*costs, strict=True)))


def _learning(asked: StepQuestion, shape: ModelCounts, laid: Laid, trained: Trained) -> dict[str, float]:
    """FLOPs of one of our micro-batches: what is needed, and what is computed again."""
    forward = forward_flops(shape, laid)
    backward = backward_flops(shape, laid, trained, attention=_NEEDED_TWICE)
    again = FLASH_BACKWARD - _NEEDED_TWICE
    return {
        "needed": total(forward) + total(backward),
        "layers again": recomputed_flops(shape, laid, trained) if asked.config.model.gradient_checkpointing else 0.0,
        "scores again": again * forward["attention"],
        "head again": forward["head"] if _in_pieces(shape, laid) else 0.0,
    }


def _in_pieces(shape: ModelCounts, laid: Laid) -> bool:
    """Whether logits are cut into pieces that the backward pass computes again."""
    from workers.models.policy_module import LOGITS_AT_ONCE  # deferred: it imports torch

    return laid.predicted * shape.head / shape.hidden > LOGITS_AT_ONCE


def _excess(
    asked: StepQuestion,
    shape: ModelCounts,
    batches: list[Batches],
    costs: list[list[list[dict[str, float]]]],
    trained: Trained,
) -> dict[str, float]:
    """FLOPs on the GPU that is waited for which the best plan has not: why they are there."""
    every = [c for shares in costs for own in shares for c in own]
    mean = {reason: sum(c[reason] for c in every) / asked.ranks for reason in ("needed", *_AGAIN)}
    lockstep = asked.config.policy.zero_stage >= 2
    waits = sum(waited([[sum(c.values()) for c in own] for own in shares], lockstep=lockstep) for shares in costs)
    least = least_learning(asked, shape, asked.lengths, trained) / asked.ranks
    filled = mean["needed"] - least
    found = {"filling, and prompts more than once": filled} | {reason: mean[reason] for reason in _AGAIN}
    return {**found, "waiting for the slowest rank": waits - sum(mean.values())}


_AGAIN = ("layers again", "scores again", "head again")


def _headless(shape: ModelCounts) -> ModelCounts:
    """A model with one column in place of its head."""
    return replace(shape, head=0)
