"""What the bound of a step follows from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orchestrator.cluster.roles import ROLES, shares_base
from orchestrator.cluster.roofline.hardware import Machine, Reach
from orchestrator.cluster.roofline.layout import (
    Answered,
    KeptFeatures,
    Laid,
    answered,
    microbatches,
    packed_layout,
    padded_layout,
)
from orchestrator.cluster.roofline.lengths import Lengths
from orchestrator.cluster.roofline.passes import Trained
from orchestrator.cluster.roofline.shape import ModelCounts
from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights
from orchestrator.config.schema import TrainConfig

_BYTES = {"float32": 4, "bfloat16": 2}
Batches = list[list[Laid]]
"""For each rank its micro-batches."""
Planned = list[list[list[Answered]]]
"""The same as samples."""


@dataclass(frozen=True, kw_only=True)
class DriverCost:
    """Seconds of one core for one completion."""

    fixed_s: float = 0.175e-3
    token_s: float = 0.25e-6
    """For each of its tokens. Both fitted to "The driver at scale" in benchmarks/results.md: 9.8 s for 32,768
    completions of 500 tokens, 13.9 s for those of 1,000."""
    hidden: float = 0.38
    """Share of it that passes on threads beside the driver's own; from the same table."""


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
    weights: RowWeights = TOKENS_ALONE
    """By which the driver balances micro-batches."""

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

    @cached_property
    def asks_first(self) -> bool:
        """Whether the policy is asked for the log-probs of what was sampled before it learns; see ``online_step``."""
        many, refers = len(self.updates) * self.epochs != 1, self.config.reference_workers > 0
        return many or refers or self.config.rollout.staleness > 0

    def has_policys_model(self, role: str) -> bool:
        """Whether a role's model is the policy's own, as it began."""
        return self.others.get(role, self.shape) is self.shape

    def planned(self, update: int | None, num_ranks: int) -> Planned:
        """What our plan makes of the samples of one update, or of all, on so many workers."""
        key = update, num_ranks
        if key not in self._plans:
            some = [s for samples in self.updates for s in samples] if update is None else self.updates[update]
            self._plans[key] = microbatches(
                some, share_prompts=self.shares, num_ranks=num_ranks,
                token_budget=self.config.policy.tokens_per_microbatch, weights=self.weights,
                patches_a_token=self.shape.patches_a_token,
            )  # fmt: skip
        return self._plans[key]

    def scored(self, role: str, shape: ModelCounts) -> Batches:
        """All samples in one forward of a role's workers."""
        plan = self.planned(None, self.role_gpus(role))
        kept = self._kept(role, shape, len(plan))
        if self.asks_first and self.has_policys_model(role) and shares_base(self.config, ROLES[role]):
            self._laid(plan, shape, kept)  # the policy's forward, whose tower it is
        return self._laid(plan, shape, kept)

    def learned(self, role: str, shape: ModelCounts, *, epochs: int, scored: bool) -> list[Batches]:
        """The samples of each update of each epoch.

        Args:
            scored: The same workers scored all samples before.
        """
        kept = self._kept(role, shape, self.ranks)
        if scored:
            self._laid(self.planned(None, self.ranks), shape, kept)
        numbers = [number for _ in range(epochs) for number in range(len(self.updates))]
        return [self._laid(self.planned(number, self.ranks), shape, kept) for number in numbers]

    @cached_property
    def _plans(self) -> dict[tuple[int | None, int], Planned]:
        return {}

    def _kept(self, role: str, shape: ModelCounts, num_workers: int) -> list[KeptFeatures | None]:
        """Of each worker, before it has seen an image of the step."""
        learns = role in ("policy", "critic") and self.trained.learns("vision")
        if learns or not shape.features_a_token:
            return [None] * num_workers
        return [KeptFeatures(shape, width=self.width) for _ in range(num_workers)]

    def _laid(self, plan: Planned, shape: ModelCounts, kept: list[KeptFeatures | None]) -> Batches:
        lay = packed_layout if self.shares else padded_layout
        return [[lay(shape, batch, own) for batch in batches] for batches, own in zip(plan, kept, strict=True)]
