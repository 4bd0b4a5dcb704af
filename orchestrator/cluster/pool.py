"""The live worker pool: actors on their placement groups, addressed by role. The only module that creates actors."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from algorithms.algorithm import Sample
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.health import Health, ended
from orchestrator.cluster.microbatches import Deal, GroupSize, SampleSize, Shares, plan_groups, plan_samples
from orchestrator.cluster.placement import PlacementPlan, WorkerPlacement
from orchestrator.cluster.roles import ROLES, Role
from orchestrator.cluster.row_work import TOKENS_ALONE, RowWeights
from orchestrator.cluster.tenants import Tenant
from orchestrator.cluster.waits import WorkerCannotStart, WorkerFailed, WorkerLost, get, start_of
from workers.columns import Microbatches
from workers.rollout.spec import EngineSpec

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSpec:
    """What is the same for every role of the pool; where each runs is the placement plan's business."""

    tokens_per_microbatch: int
    share_prompts: bool
    num_threads: int
    weights: RowWeights = TOKENS_ALONE
    """What makes a row of the trainer's forwards slow."""
    max_pixels: int | None = None
    fixed_side: int | None = None
    """Pixels; see ``fixed_side`` of the processor."""
    start_deadline_s: float = 600.0
    silent_after_s: float = 60.0
    """A worker that has not been heard of for so long is lost."""


class WorkerPool:
    """The workers of one run or stage."""

    def __init__(self, plan: PlacementPlan, spec: PoolSpec) -> None:
        self.plan, self.spec = plan, spec
        self._groups: dict[str, PlacementGroup] = {}
        self._roles = {name: RoleWorkers(role, self) for name, role in ROLES.items()}
        self.health = Health(silent_after_s=spec.silent_after_s, start_within_s=spec.start_deadline_s)
        for group in plan.groups:
            handle = placement_group(bundles=[dict(b.resources) for b in group.bundles], strategy=group.strategy)
            self._groups[group.name] = handle
            get(handle.ready(), name=f"placement group {group.name}", deadline_s=60.0)

    def role(self, name: str) -> "RoleWorkers":
        """The workers of a role; none of a role that was not started."""
        return self._roles[name]

    @property
    def trained(self) -> "list[RoleWorkers]":
        """Those that learn, and so are part of a checkpoint."""
        return [workers for workers in self._roles.values() if workers.role.trainable and workers.actors]

    @property
    def engine_spec(self) -> EngineSpec:
        """How every rollout engine is built."""
        spec = self.role("rollout").spec
        assert isinstance(spec, EngineSpec)
        return spec

    def microbatches(self, items: Sequence[TokenSequence], *, num_ranks: int) -> Shares:
        """Micro-batches of sequences for each of ``num_ranks`` ranks, as indices."""
        return plan_samples(
            [SampleSize(s.uid, s.prompt_len, len(s.input_ids), self._patches(s)) for s in items],
            share_prompts=self.spec.share_prompts,
            num_ranks=num_ranks,
            token_budget=self.spec.tokens_per_microbatch,
            weights=self.spec.weights,
        )

    def group_microbatches(self, groups: Sequence[Sample], *, num_ranks: int) -> Shares:
        """Micro-batches of ``groups``, each of which stays whole, for each of ``num_ranks`` ranks, as indices."""
        sizes = [
            GroupSize(
                group.sequences[0].prompt_len,
                tuple(len(s.input_ids) - s.prompt_len for s in group.sequences),
                self._patches(group.sequences[0]),
            )
            for group in groups
        ]
        return plan_groups(
            sizes,
            share_prompts=self.spec.share_prompts,
            num_ranks=num_ranks,
            token_budget=self.spec.tokens_per_microbatch,
            weights=self.spec.weights,
        )

    def _patches(self, sequence: TokenSequence) -> int:
        spec = self.spec
        if not spec.weights.patch:
            return 0
        sizes = [(ref.width, ref.height) for ref in sequence.media]
        return spec.weights.patches_of(sizes, max_pixels=spec.max_pixels, fixed_side=spec.fixed_side)

    def start_worker(self, role: Role, index: int, spec: Any) -> Any:
        """Start one worker in its place; returns before it is up, calls queue behind its construction."""
        places, name = self.plan.workers_of(role.name), f"{role.name}-{index}"
        rank = {"rank": index, "world_size": len(places)} if role.trainable else {}
        self.health.expect(name)
        return self._place(ray.remote(role.actor_class()), places[index]).remote(
            name=name, spec=spec, num_threads=self.spec.num_threads, board=self.health.board, **rank
        )

    def results(self, refs: Sequence[Any], *, name: str, deadline_s: float, workers: Sequence[str]) -> list[Any]:
        """Wait for a result of each of ``workers``; see ``get``."""
        return get(refs, name=name, deadline_s=deadline_s, workers=workers)

    def close(self) -> None:
        """Kill every actor and give the placement groups back."""
        for workers in self._roles.values():
            workers.stop()
        ray.kill(self.health.board)
        for handle in self._groups.values():
            remove_placement_group(handle)

    def _place(self, actor_class: Any, place: WorkerPlacement) -> Any:
        environment = worker_environment(self.spec.num_threads, gpu=place.num_gpus > 0)
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


class RoleWorkers:
    """The workers of one role: started, asked, and started again as their record says."""

    def __init__(self, role: Role, pool: WorkerPool) -> None:
        self.role, self._pool = role, pool
        self.actors: list[Any] = []
        self.spec: Any = None
        """What they were started on."""
        self.replaced: set[int] = set()
        """Workers that are not the first of their index."""
        self.on: RoleWorkers | None = None
        """Those in whose processes, and on whose base, they are from their next start; None = in their own."""

    @property
    def names(self) -> list[str]:
        """Of those that the plan has, as they report their health."""
        if self.on is not None:
            return self.on.names
        return [f"{self.role.name}-{place.index}" for place in self._pool.plan.workers_of(self.role.name)]

    def start(self, spec: Any) -> None:
        """Start all that the plan has on ``spec``, in place of any that run.

        Ranks have met when this returns; of the others, calls queue behind construction.

        Raises:
            WorkerCannotStart: a rank said why.
        """
        self.stop()
        self.spec = spec
        if self.on is None:
            self.actors = [self._pool.start_worker(self.role, index, spec) for index in range(len(self.names))]
        else:
            deadline_s = self._pool.spec.start_deadline_s
            self.on.shared("admit", self.role.name, self.role.actor_class(), spec, deadline_s=deadline_s)
            self.actors = [Tenant(actor, self.role.name) for actor in self.on.actors]
        if self.role.trainable:
            with start_of(self.names):
                self._meet()

    def stop(self) -> None:
        """Kill those that run in processes of their own, and forget all."""
        for actor in self.actors:
            if not isinstance(actor, Tenant):
                ray.kill(actor)
        self.actors = []

    def replace(self, index: int) -> None:
        """Kill a worker and start a fresh one in its place."""
        ray.kill(self.actors[index])
        self.actors[index] = self._pool.start_worker(self.role, index, self.spec)
        self.replaced.add(index)

    def each(
        self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None, **options: Any
    ) -> list[Any]:
        """What ``method`` says of every item, in the order given; each worker is asked about its micro-batches.

        Args:
            deal: None takes the items for sequences, which fill micro-batches within their budget.
            options: Of ``method``.
        """
        return self.begin_each(method, items, deadline_s=deadline_s, deal=deal, **options)()

    def begin_each(
        self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None, **options: Any
    ) -> Callable[[], list[Any]]:
        """Ask as ``each`` does and go on; what is returned waits for the answers."""
        shares = (deal or self._pool.microbatches)(items, num_ranks=len(self.actors))
        if not self.role.trainable:  # Only ranks wait for each other.
            shares = [[batch for batch in batches if batch] for batches in shares]
        told = [Microbatches([items[i] for i in batch] for batch in batches) for batches in shares]

        def send() -> list[Any]:
            return [getattr(a, method).remote(mine, **options) for a, mine in zip(self.actors, told, strict=True)]

        asked, sent = self.actors, send()

        def ask() -> list[Any]:
            # Workers that were started again meanwhile have heard nothing of it.
            return self._results(sent if self.actors is asked else send(), method, deadline_s)

        def answers() -> list[Any]:
            order = [i for batches in shares for batch in batches for i in batch]
            by_item = dict(zip(order, chain.from_iterable(self._asked(ask)), strict=True))
            return [by_item[i] for i in range(len(items))]

        return answers

    def shared(self, method: str, *args: Any, deadline_s: float, **kwargs: Any) -> list[Any]:
        """Call ``method`` on every worker together and wait; results in rank order."""

        def ask() -> list[Any]:
            refs = [getattr(actor, method).remote(*args, **kwargs) for actor in self.actors]
            return self._results(refs, method, deadline_s)

        return self._asked(ask)

    def update(self, per_rank: Iterable[Sequence[Sequence[Any]]], *, deadline_s: float) -> list[Any]:
        """Run one optimizer step, each rank on its own micro-batches."""
        refs = [
            actor.update.remote(Microbatches(batches)) for actor, batches in zip(self.actors, per_rank, strict=True)
        ]
        return self._results(refs, "update", deadline_s)

    def _meet(self) -> None:
        """Let the ranks form a group, which the first of them leads; those on another role's base are in its group."""
        if self.on is not None:
            self.shared("setup", "", 0, deadline_s=self._pool.spec.start_deadline_s)
            return
        deadline_s, leader = self._pool.spec.start_deadline_s, self.names[:1]
        name = f"{self.role.name}: rank 0 start"
        ((address, port),) = self._pool.results(
            [self.actors[0].rendezvous.remote()], name=name, deadline_s=deadline_s, workers=leader
        )
        self.shared("setup", address, port, deadline_s=deadline_s)

    def _asked(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """What workers say; where one is lost and its record says so, all are started again and asked once more."""
        if self.role.on_loss != "role_restarts" or self.on is not None:
            return ask()
        try:
            return ask()
        except WorkerCannotStart:
            raise
        except WorkerLost as lost:
            _log.warning("%s is started again: %s", self.role.name, lost)
            self.start(self.spec)
        try:
            return ask()
        except WorkerCannotStart as lost:
            # It did before; what its predecessor left behind may be in its way.
            raise WorkerLost(lost.workers, lost.reason, told=lost.told) from lost

    def _results(self, refs: Sequence[Any], method: str, deadline_s: float) -> list[Any]:
        """Wait for one result of each worker.

        Raises:
            WorkerLost: one of them was lost. The error that its peers then meet in a collective is not the cause.
        """
        name, workers = f"{self.role.name}: {method}", self.names
        try:
            return self._pool.results(refs, name=name, deadline_s=deadline_s, workers=workers)
        except WorkerFailed as error:
            dead = ended(self.actors)
            if not dead:
                raise
            raise WorkerLost([workers[index] for index in dead], f"{name}: its process has ended") from error
