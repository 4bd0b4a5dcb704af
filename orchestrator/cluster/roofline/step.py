"""A step on paper: all its phases, and how long they take together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.cluster.roofline import learning, moving
from orchestrator.cluster.roofline.lengths import Asked, Lengths
from orchestrator.cluster.roofline.phase import Phase
from orchestrator.cluster.roofline.question import StepQuestion
from orchestrator.cluster.roofline.sampling import Engines, decode, prefill
from orchestrator.cluster.roofline.shape import ModelCounts

_WRITES = {"judge": "judge", "critique_reward": "critiques"}
"""Roles that write about what was sampled, and what that is called."""


@dataclass(frozen=True, slots=True)
class StepBound:
    """A step and its phases, in the order in which they are."""

    phases: tuple[Phase, ...]
    overlaps: bool
    """Sampling goes on while the policy learns, on GPUs of its own."""

    @property
    def peak_s(self) -> float:
        """At the data sheets' numbers."""
        return self._together([p.peak_s for p in self.phases])

    @property
    def bound_s(self) -> float:
        """At what anybody gets of them."""
        return self._together([p.bound_s for p in self.phases])

    @property
    def ours_s(self) -> float:
        """In our plan."""
        return self._together([p.ours_s for p in self.phases])

    def seconds(self, *names: str) -> tuple[float, float]:
        """Bound and ours of some phases together."""
        some = [p for p in self.phases if p.name in names]
        return sum(p.bound_s for p in some), sum(p.ours_s for p in some)

    def _together(self, each: Sequence[float]) -> float:
        if not self.overlaps:
            return sum(each)
        sampled = sum(s for p, s in zip(self.phases, each, strict=True) if p.name in _SAMPLING)
        return max(sampled, sum(each) - sampled)


_SAMPLING = ("prefill", "decode", "scalar rewards", *_WRITES.values())


def step_bound(asked: StepQuestion) -> StepBound:
    """All phases of an online step; with ``rollout.staleness`` sampling and learning overlap, on GPUs of their own."""
    engines, best_engines = engines_of(asked, "rollout", asked.shape)
    written = [phase for role, name in _WRITES.items() if (phase := _written(asked, role, name)) is not None]
    update = learning.update(asked)
    phases = (
        prefill(engines, asked.lengths, best_number=best_engines),
        decode(engines, asked.lengths, best_number=best_engines),
        learning.scalar_rewards(asked),
        *written,
        learning.old_logprobs(asked),
        learning.reference(asked),
        learning.values(asked),
        update,
        learning.critic_update(asked),
        moving.gradients(asked, update),
        moving.optimizer(asked),
        moving.sync(asked),
        moving.sleep(asked),
        moving.driver(asked),
    )
    overlaps = asked.config.rollout.staleness > 0 and asked.config.placement.layout == "separate"
    return StepBound(tuple(phase for phase in phases if phase is not None), overlaps)


def engines_of(asked: StepQuestion, role: str, shape: ModelCounts) -> tuple[Engines, float]:
    """Engines of a role as they are, and how many there could be."""
    rollout, own = asked.config.rollout, role == "rollout"
    tp = rollout.tensor_parallel_size if own else 1
    engines = Engines(
        shape=shape, machine=asked.machine, reach=asked.reach, width=asked.width, number=asked.role_gpus(role) / tp,
        tp=tp, slots=rollout.max_num_seqs, memory_share=rollout.gpu_memory_utilization,
    )  # fmt: skip
    return engines, asked.best_gpus(role) / tp


def _written(asked: StepQuestion, role: str, name: str) -> Phase | None:
    """What a model of ours writes about every answer, as long as the answer is or the role may write."""
    if role not in asked.others:
        return None
    engines, best_number = engines_of(asked, role, asked.others[role])
    lengths = judged(asked.lengths, _longest(asked, role))
    read = prefill(engines, lengths, best_number=best_number)
    wrote = decode(engines, lengths, best_number=best_number)
    return replace(
        wrote, name=name, best=read.best + wrote.best, ours=read.ours + wrote.ours, peak_s=read.peak_s + wrote.peak_s,
        bound_s=read.bound_s + wrote.bound_s, ours_s=read.ours_s + wrote.ours_s,
    )  # fmt: skip


def judged(lengths: Lengths, longest: int) -> Lengths:
    """One question about every answer, with its prompt before it."""
    return tuple(
        Asked(prompt=a.prompt + n, image=a.image, answers=(max(1, min(n, longest)),))
        for a in lengths
        for n in a.answers
    )


def _longest(asked: StepQuestion, role: str) -> int:
    reward = asked.config.reward
    return reward.critique.max_new_tokens if role == "critique_reward" else reward.judge_max_new_tokens
