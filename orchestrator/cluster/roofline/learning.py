"""What the trainer's GPUs do: log-probs of what was sampled, values, updates."""

from dataclasses import replace

from orchestrator.cluster.roofline.layout import Laid, best_layout
from orchestrator.cluster.roofline.lengths import Lengths
from orchestrator.cluster.roofline.passes import (
    FLASH_BACKWARD,
    Trained,
    backward_flops,
    forward_flops,
    recomputed_flops,
    total,
    without_tower,
)
from orchestrator.cluster.roofline.phase import Phase, phase_of
from orchestrator.cluster.roofline.question import StepQuestion
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.cluster.roofline.work import Work, scattered

_LEARNING = ("policy", "critic")
_NEEDED_TWICE = 2.0
"""Backward FLOPs of attention that need be, forward FLOPs: with its scores kept, none is computed again."""


def old_logprobs(asked: StepQuestion) -> Phase | None:
    """A forward over all samples. At best over those of no first update, whose own forward finds them."""
    if not asked.asks_first:
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
    return _learned(asked, "update", "policy", asked.shape, epochs=asked.epochs)


def critic_update(asked: StepQuestion) -> Phase | None:
    """Every optimizer step of the critic."""
    critic = asked.config.needs.critic
    if critic is None or "critic" not in asked.others:
        return None
    return _learned(asked, "critic's update", "critic", _headless(asked.others["critic"]), epochs=critic.epochs)


def gathered(asked: StepQuestion, shape: ModelCounts, *, calls: int) -> Work:
    """Weights made whole under ZeRO-3, so many times."""
    num_bytes, per_node = shape.num_params * asked.width, asked.machine.gpus_per_node
    once = scattered(num_bytes, gpus=asked.ranks, gpus_per_node=per_node, calls=shape.large_tensors)
    return once * (calls if asked.config.policy.zero_stage == 3 else 0)


def _scored(asked: StepQuestion, name: str, role: str, shape: ModelCounts, *, needed: float = 1.0) -> Phase:
    """A forward over all samples, of which the best plan needs a share; of a frozen tower's, in the first pass, all."""
    workers, best_gpus = asked.role_gpus(role), asked.best_gpus(role)
    batches = asked.scored(role, shape)
    forward = forward_flops(shape, best_layout(shape, asked.lengths))
    frozen = not asked.trained.learns("vision")
    again = frozen and role != "policy" and asked.has_policys_model(role)  # the policy's features are there
    once = forward["vision"] if frozen and role in _LEARNING and not again else 0.0
    rest = total(without_tower(forward) if again or once else forward)
    costs = [[total(forward_flops(shape, laid)) for laid in own] for own in batches]
    read, calls = shape.num_params * asked.width, max(map(len, batches))
    sharded = gathered(asked, shape, calls=calls) if role in _LEARNING else Work()
    ours = Work(flops=waited(costs, lockstep=bool(sharded)), memory=calls * read) + sharded
    least = Work(flops=(rest * needed + once) / best_gpus, memory=read * needed)
    return phase_of(name, least, ours, asked.machine, asked.reach, gpus=workers)


def _learned(asked: StepQuestion, name: str, role: str, shape: ModelCounts, *, epochs: int) -> Phase:
    trained, width = asked.trained, asked.width
    scored = asked.asks_first if role == "policy" else True
    batches = asked.learned(role, shape, epochs=epochs, scored=scored)
    costs = [[[_learning(asked, shape, laid, trained) for laid in own] for own in shares] for shares in batches]
    least = least_learning(asked, shape, asked.lengths, trained, epochs=epochs, scored=scored)
    excess = _excess(asked, costs, least)
    lockstep = asked.config.policy.zero_stage >= 2
    flops = sum(waited([[sum(c.values()) for c in own] for own in shares], lockstep=lockstep) for shares in costs)
    passes = 3 if asked.config.model.gradient_checkpointing else 2
    calls = sum(max(map(len, shares)) for shares in batches)
    read = shape.num_params * width
    best = Work(flops=least / asked.best_gpus("policy"), memory=2.0 * read * len(batches))
    ours = Work(flops=flops, memory=float(calls * passes * read)) + gathered(asked, shape, calls=2 * calls)
    return phase_of(name, best, ours, asked.machine, asked.reach, gpus=asked.ranks, excess=excess)


def least_learning(
    asked: StepQuestion, shape: ModelCounts, lengths: Lengths, trained: Trained, *, epochs: int = 1, scored: bool
) -> float:
    """FLOPs of forward and backward over a step laid out as well as can be, on all GPUs together.

    Args:
        scored: A forward over all samples came before, in which a frozen tower has seen the images.
    """
    laid = best_layout(shape, lengths)
    forward, tower = forward_flops(shape, laid), 0.0
    if not trained.learns("vision"):
        tower, forward = 0.0 if scored else forward["vision"], without_tower(forward)
    return tower + epochs * (total(forward) + total(backward_flops(shape, laid, trained, attention=_NEEDED_TWICE)))


def waited(costs: list[list[float]], *, lockstep: bool) -> float:
    """What the ranks spend, who wait for each other at the end or, in lockstep, after each micro-batch."""
    if not lockstep:
        return max(map(sum, costs), default=0.0)
    return sum(map(max, zip(*costs, strict=True)))


def _learning(asked: StepQuestion, shape: ModelCounts, laid: Laid, trained: Trained) -> dict[str, float]:
    """FLOPs of one of our micro-batches: what is needed, and what is computed again."""
    forward = forward_flops(shape, laid)
    backward = total(backward_flops(shape, laid, trained, attention=_NEEDED_TWICE))
    checkpoints = asked.config.model.gradient_checkpointing
    return {
        "needed": total(forward) + backward,
        "layers again": recomputed_flops(shape, laid, trained) if checkpoints else 0.0,
        "scores again": total(backward_flops(shape, laid, trained, attention=FLASH_BACKWARD)) - backward,
        "head again": forward["head"] if _in_pieces(asked, shape, laid) else 0.0,
    }


def _in_pieces(asked: StepQuestion, shape: ModelCounts, laid: Laid) -> bool:
    """Whether logits are too many to be kept until the backward pass, which then computes them again."""
    from workers.models.fused_head import BYTES_KEPT  # deferred: it imports torch

    learns = asked.trained.weight_products("language") > 0
    apart = asked.config.policy.zero_stage == 3  # whose frozen head is together for its own passes alone
    return (learns or apart) and laid.predicted * shape.head / shape.hidden * asked.width > BYTES_KEPT["cuda"]


def _excess(asked: StepQuestion, costs: list[list[list[dict[str, float]]]], least: float) -> dict[str, float]:
    """FLOPs on the GPU that is waited for which the best plan has not: why they are there.

    Args:
        costs: Of each update, rank and micro-batch.
        least: Of the best plan, on all GPUs together.
    """
    every = [c for shares in costs for own in shares for c in own]
    mean = {reason: sum(c[reason] for c in every) / asked.ranks for reason in ("needed", *_AGAIN)}
    lockstep = asked.config.policy.zero_stage >= 2
    waits = sum(waited([[sum(c.values()) for c in own] for own in shares], lockstep=lockstep) for shares in costs)
    filling = "prompts and images more than once" if asked.shares else "filling, and prompts more than once"
    found = {filling: mean["needed"] - least / asked.ranks} | {reason: mean[reason] for reason in _AGAIN}
    return {**found, "waiting for the slowest rank": waits - sum(mean.values())}


_AGAIN = ("layers again", "scores again", "head again")


def _headless(shape: ModelCounts) -> ModelCounts:
    """A model with one column in place of its head."""
    return replace(shape, head=0)
