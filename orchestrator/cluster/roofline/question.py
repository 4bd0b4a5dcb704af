"""What the bound of a step follows from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.cluster.roles import ROLES, shares_base
from orchestrator.cluster.roofline.hardware import Machine, Reach
from orchestrator.cluster.roofline.layout import Answered, Laid, answered, microbatches, packed_layout, padded_layout
from orchestrator.cluster.roofline.lengths import Lengths
from orchestrator.cluster.roofline.passes import Trained
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.config.schema import TrainConfig

_BYTES = {"float32": 4, "bfloat16": 2}
Batches = list[list[Laid]]
"""For each rank its micro-batches."""


@dataclass(frozen=True, kw_only=True)
class DriverCost:
    """Seconds of one core for one completion."""

    fixed_s: float = 0.38e-3
    token_s: float = 0.43e-6
    """For each of its tokens. Both fitted to "The driver at scale" in benchmarks/results.md: 15.9 s for 32,768
    completions of 250 tokens, 26.7 s for those of 1,000."""
    hidden: float = 0.4
    """Share of it that passes while engines sample; from the same table."""


@dataclass(frozen=True, kw_only=True)
class StepQuestion:
    """One online step of a run."""

    config: TrainConfig
    """Its number format is settled."""
    shape: ModelCounts
    """Of the policy."""
    machine: Machine
    lengths: Lengths
    backend: str
    """How weights travel; see ``cluster.choices.sync_backend``."""
    shares: bool
    """Sequences of one prompt share a row."""
    others: Mapping[str, ModelCounts] = field(default_factory=dict)
    """Models of other roles, by role, where they are not the policy's."""
    reach: Reach = field(default_factory=Reach)
    driver: DriverCost = field(default_factory=DriverCost)

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return _BYTES[self.config.model.dtype]

    @property
    def trained(self) -> Trained:
        """What of the policy learns."""
        return Trained(self.config.model.freeze, self.config.model.lora_rank is not None)

    @property
    def ranks(self) -> int:
        """Of the policy, one GPU each."""
        return self.config.policy.num_ranks

    @property
    def engine_gpus(self) -> int:
        """Of all engines."""
        return self.config.rollout.num_engines * self.config.rollout.tensor_parallel_size

    def role_gpus(self, name: str) -> int:
        """GPUs that a role's workers have in this plan; a role on the policy's base has the policy's."""
        role = ROLES[name]
        return self.ranks if shares_base(self.config, role) else role.count(self.config) * role.gpus(self.config)

    def best_gpus(self, name: str) -> int:
        """GPUs that a role could have: all that share with others, or its own."""
        if self.config.placement.layout == "separate":
            return self.role_gpus(name)
        return max(self.role_gpus(n) for n, role in ROLES.items() if role.in_run(self.config))

    @cached_property
    def epochs(self) -> int:
        """Times that the policy goes through the samples."""
        return self.config.learner.epochs_at(self.config.run.steps)

    @cached_property
    def updates(self) -> list[list[Answered]]:
        """The samples of each optimizer step of one epoch: whole prompts, about equally many."""
        number = self.config.updates_per_epoch
        dealt: list[list[Answered]] = [[] for _ in range(number)]
        for sample in answered(self.lengths):
            dealt[sample.number * number // len(self.lengths)].append(sample)
        return [samples for samples in dealt if samples]

    def batches(self, samples: list[Answered], num_ranks: int) -> Batches:
        """What our plan makes of some samples on so many workers."""
        budget = self.config.policy.tokens_per_microbatch
        lay = packed_layout if self.shares else padded_layout
        plan = microbatches(samples, share_prompts=self.shares, num_ranks=num_ranks, token_budget=budget)
        return [[lay(self.shape, [samples[i] for i in batch]) for batch in batches] for batches in plan]
