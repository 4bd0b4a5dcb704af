"""The live worker pool: actors on their placement groups, addressed by role. The only module that creates actors."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from algorithms.algorithm import Sample
from algorithms.records import PLAIN, SamplingDistribution
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.feed import engine_name, split_prompts
from orchestrator.cluster.health import Health, ended
from orchestrator.cluster.microbatches import SampleSize, group_cost, plan_microbatches, plan_samples
from orchestrator.cluster.placement import PlacementPlan, WorkerPlacement
from orchestrator.cluster.waits import WorkerCannotStart, WorkerFailed, WorkerLost, get
from orchestrator.cluster.worker_environment import worker_environment
from workers.critique_reward import CritiqueRewardSpec, CritiqueRewardWorker
from workers.models.loading import ModelSpec
from workers.policy import PolicySpec, PolicyWorker
from workers.reference import ReferenceWorker
from workers.rollout.spec import EngineSpec
from workers.rollout.worker import RolloutWorker
from workers.types import Completion, GenerationRequest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """What runs in the pool; where it runs is the placement plan's business."""

    engine: EngineSpec | None
    """None where nothing is sampled."""
    engine_kind: str
    tokens_per_microbatch: int
    share_prompts: bool
    num_threads: int
    start_deadline_s: float = 600.0
    silent_after_s: float = 60.0
    """A worker that has not been heard of for so long is lost."""


class WorkerPool:
    """Policy ranks, rollout engines and reference workers of one run."""

    def __init__(self, plan: PlacementPlan, spec: PoolSpec) -> None:
        self.plan, self._spec = plan, spec
        self._groups: dict[str, PlacementGroup] = {}
        self.engines: list[Any] = []
        self.replaced: set[int] = set()
        """Engines that are not the first of their index."""
        self.policy: list[Any] = []
        self.reference: list[Any] = []
        self.critics: list[Any] = []
        self._start_again: dict[str, Callable[[], None]] = {}
        self.health = Health(silent_after_s=spec.silent_after_s, start_within_s=spec.start_deadline_s)
        for group in plan.groups:
            handle = placement_group(bundles=[dict(b.resources) for b in group.bundles], strategy=group.strategy)
            self._groups[group.name] = handle
            get(handle.ready(), name=f"placement group {group.name}", deadline_s=60.0)

    @property
    def engine_spec(self) -> EngineSpec:
        """How every rollout engine is built."""
        assert self._spec.engine is not None
        return self._spec.engine

    def start_engines(self) -> None:
        """Start every rollout engine; returns before they are up, calls queue behind construction."""
        self.engines = [self._start_engine(i) for i in range(len(self.plan.workers_of("rollout")))]

    def start_policy(self, spec: PolicySpec) -> None:
        """Start the policy ranks on ``spec``, replacing any that run."""
        for actor in self.policy:
            ray.kill(actor)
        places = self.plan.workers_of("policy")
        actor_class = ray.remote(PolicyWorker)
        self.policy = [
            self._place(actor_class, place).remote(
                rank=place.index, world_size=len(places), spec=spec, **self._common(f"policy-{place.index}")
            )
            for place in places
        ]
        address, port = get(
            self.policy[0].rendezvous.remote(),
            name="policy: rank 0 start",
            deadline_s=self._spec.start_deadline_s,
            workers=["policy-0"],
        )
        self.policy_call("setup", address, port, deadline_s=self._spec.start_deadline_s)

    def start_reference(self, spec: ModelSpec) -> None:
        """Start the reference workers, where the plan has any, on the model the run started from."""
        for actor in self.reference:
            ray.kill(actor)
        self._start_again["reference"] = lambda: self.start_reference(spec)
        actor_class = ray.remote(ReferenceWorker)
        self.reference = [
            self._place(actor_class, place).remote(spec=spec, **self._common(f"reference-{place.index}"))
            for place in self.plan.workers_of("reference")
        ]

    def start_critics(self, spec: CritiqueRewardSpec) -> None:
        """Start the critique reward workers that the plan has."""
        for actor in self.critics:
            ray.kill(actor)
        self._start_again["critic"] = lambda: self.start_critics(spec)
        actor_class = ray.remote(CritiqueRewardWorker)
        self.critics = [
            self._place(actor_class, place).remote(spec=spec, **self._common(f"critic-{place.index}"))
            for place in self.plan.workers_of("critic")
        ]

    def replace_engine(self, index: int) -> None:
        """Kill a rollout engine and start a fresh one in its place; it holds no weights until the next full sync."""
        ray.kill(self.engines[index])
        self.engines[index] = self._start_engine(index)
        self.replaced.add(index)

    def policy_call(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> list[Any]:
        """Call a method on every policy rank together and wait; results in rank order."""
        refs = [getattr(actor, method).remote(*args, **kwargs) for actor in self.policy]
        return self._results("policy", refs, name=f"policy: {method}", deadline_s=deadline_s)

    def microbatches(self, sequences: Sequence[TokenSequence], *, num_ranks: int) -> list[list[list[int]]]:
        """Micro-batches of ``sequences`` for each of ``num_ranks`` ranks, as indices."""
        return plan_samples(
            [SampleSize(s.uid, s.prompt_len, len(s.input_ids)) for s in sequences],
            share_prompts=self._spec.share_prompts,
            num_ranks=num_ranks,
            token_budget=self._spec.tokens_per_microbatch,
        )

    def group_microbatches(self, groups: Sequence[Sample], *, num_ranks: int) -> list[list[list[int]]]:
        """Micro-batches of ``groups``, each of which stays whole, for each of ``num_ranks`` ranks, as indices."""
        costs = [
            group_cost(
                group.sequences[0].prompt_len,
                [len(s.input_ids) - s.prompt_len for s in group.sequences],
                share_prompts=self._spec.share_prompts,
            )
            for group in groups
        ]
        return plan_microbatches(costs, num_ranks=num_ranks, token_budget=self._spec.tokens_per_microbatch)

    def policy_update(self, per_rank: Sequence[Sequence[Sequence[Any]]], *, deadline_s: float) -> list[Any]:
        """Run one optimizer step, each rank on its own micro-batches."""
        refs = [actor.update.remote(batches) for actor, batches in zip(self.policy, per_rank, strict=True)]
        return self._results("policy", refs, name="policy: update", deadline_s=deadline_s)

    def policy_score(
        self,
        sequences: Sequence[TokenSequence],
        *,
        deadline_s: float,
        sampling: SamplingDistribution = PLAIN,
        adapters: bool = True,
    ) -> list[np.ndarray]:
        """Log-probs under the current policy, in the order given; without its adapters, under the base it started from.

        Raises:
            ValueError: without adapters, of a policy that has none.
        """
        options = {"sampling": sampling, "adapters": adapters}
        return self._each("policy", self.policy, "score", sequences, deadline_s, options)

    def policy_greedy_hits(self, sequences: Sequence[TokenSequence], *, deadline_s: float) -> list[int]:
        """Completion tokens of each sequence that the current policy finds the likeliest, in the order given."""
        return self._each("policy", self.policy, "greedy_hits", sequences, deadline_s)

    def policy_rewards(self, sequences: Sequence[TokenSequence], *, deadline_s: float) -> list[float]:
        """The reward of each sequence under the current policy, which has a scalar head, in the order given."""
        return self._each("policy", self.policy, "rewards", sequences, deadline_s)

    def reference_score(
        self, sequences: Sequence[TokenSequence], *, deadline_s: float, sampling: SamplingDistribution = PLAIN
    ) -> list[np.ndarray]:
        """Log-probs under the reference, in the order given; a reference that is lost is started again, once."""
        asked = {"sampling": sampling}
        return self._twice(lambda: self._each("reference", self.reference, "score", sequences, deadline_s, asked))

    def write_critiques(self, requests: Sequence[GenerationRequest], *, deadline_s: float) -> list[Completion]:
        """A critique for each request, in the order given; lost critique reward workers are started again, once."""

        def write() -> list[Completion]:
            shares = split_prompts(requests, num_parts=len(self.critics))
            refs = [critic.write.remote(share) for critic, share in zip(self.critics, shares, strict=True)]
            written = self._results("critic", refs, name="critic: write", deadline_s=deadline_s)
            by_request = {(c.uid, c.sample_index): c for some in written for c in some}
            return [by_request[r.uid, r.sample_index] for r in requests]

        return self._twice(write)

    def critique_rewards(self, sequences: Sequence[TokenSequence], *, deadline_s: float) -> list[float]:
        """The reward that follows each critique, in the order given; lost workers likewise."""
        return self._twice(lambda: self._each("critic", self.critics, "rewards", sequences, deadline_s))

    def close(self) -> None:
        """Kill every actor and give the placement groups back."""
        for actor in (*self.policy, *self.engines, *self.reference, *self.critics, self.health.board):
            ray.kill(actor)
        for handle in self._groups.values():
            remove_placement_group(handle)

    def _twice(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """What frozen workers say; where one is lost, all of its role are started again and asked once more."""
        try:
            return ask()
        except WorkerCannotStart:
            raise
        except WorkerLost as lost:
            _log.warning("%s is started again: %s", lost.role, lost)
            self._start_again[lost.role]()
        try:
            return ask()
        except WorkerCannotStart as lost:
            # It did before; what its predecessor left behind may be in its way.
            raise WorkerLost(lost.workers, lost.reason, told=lost.told) from lost

    def _results(self, role: str, refs: Sequence[Any], *, name: str, deadline_s: float) -> list[Any]:
        """Wait for one result of each worker of a role.

        Raises:
            WorkerLost: one of them was lost. The error that its peers then meet in a collective is not the cause.
        """
        workers = [f"{role}-{index}" for index in range(len(refs))]
        try:
            return get(refs, name=name, deadline_s=deadline_s, workers=workers)
        except WorkerFailed as error:
            dead = ended({"policy": self.policy, "reference": self.reference, "critic": self.critics}[role])
            if not dead:
                raise
            raise WorkerLost([f"{role}-{index}" for index in dead], f"{name}: its process has ended") from error

    def _each(
        self,
        role: str,
        actors: list[Any],
        method: str,
        sequences: Sequence[TokenSequence],
        deadline_s: float,
        options: dict[str, Any] | None = None,
    ) -> list[Any]:
        """What the workers' ``method`` says of every sequence, in the order given."""
        plan = self.microbatches(sequences, num_ranks=len(actors))
        if role != "policy":  # Only its ranks wait for each other.
            plan = [[batch for batch in batches if batch] for batches in plan]
        refs = [
            getattr(actor, method).remote([[sequences[i] for i in batch] for batch in batches], **(options or {}))
            for actor, batches in zip(actors, plan, strict=True)
        ]
        scored: list[Any] = [None] * len(sequences)
        results = self._results(role, refs, name=f"{role}: {method}", deadline_s=deadline_s)
        for batches, rows in zip(plan, results, strict=True):
            for index, row in zip((i for batch in batches for i in batch), rows, strict=True):
                scored[index] = row
        return scored

    def _start_engine(self, index: int) -> Any:
        place = self.plan.workers_of("rollout")[index]
        return self._place(ray.remote(RolloutWorker), place).remote(
            engine=self._spec.engine_kind, spec=self._spec.engine, **self._common(engine_name(index))
        )

    def _common(self, name: str) -> dict[str, Any]:
        """What every worker is told, whatever its role."""
        self.health.expect(name)
        return {"name": name, "num_threads": self._spec.num_threads, "board": self.health.board}

    def _place(self, actor_class: Any, place: WorkerPlacement) -> Any:
        environment = worker_environment(self._spec.num_threads, gpu=place.num_gpus > 0)
        spans = len(place.bundle_indices) > 1
        if spans:
            # vLLM places the workers of a tensor-parallel engine itself, on the bundles it is told.
            environment["VLLM_RAY_BUNDLE_INDICES"] = ",".join(map(str, place.bundle_indices))
            environment["VLLM_RAY_PER_WORKER_GPUS"] = str(place.num_gpus)
        return actor_class.options(
            num_cpus=place.num_cpus,
            num_gpus=0 if spans else place.num_gpus,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=self._groups[place.group], placement_group_bundle_index=place.bundle_indices[0]
            ),
            runtime_env={"env_vars": environment},
        )
