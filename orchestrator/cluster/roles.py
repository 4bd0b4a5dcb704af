"""The roles of a run, one record each: placement, the memory plan, the pool, restarts and checkpoints read them alone.

A role more is its worker and its record here. A worker is made with ``name``, ``spec``, ``num_threads`` and ``board``
(see ``WorkerBase``). One of a trainable role is a rank and is told ``rank`` and ``world_size`` too; ranks meet by
``setup(address, port)``, write themselves by ``save(folder)`` and go on by ``load_state(folder, num_steps=)``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from algorithms.records import PLAIN
from orchestrator.cluster import memory_plan
from orchestrator.cluster.memory_plan import MemoryQuestion, RoleMemory
from orchestrator.config.schema import TrainConfig

if TYPE_CHECKING:  # it imports torch, and a dry run places roles without
    from workers.rollout.spec import EngineSpec

Number = Callable[[TrainConfig], int]
OnLoss = Literal["run_restarts", "role_restarts", "worker_replaced"]
"""What the loss of a worker means: the run goes back to its last checkpoint; all workers of the role are started again
and asked once more; that worker is replaced, and given verified weights before it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """What the workers of one role are."""

    name: str
    actor: str
    """``MODULE:CLASS``, imported where a worker is started."""
    count: Number
    """Workers, wherever there are any."""
    in_run: Callable[[TrainConfig], bool]
    """Whether a run has them for its whole length; else they come and go with a stage of their own."""
    memory: Callable[[MemoryQuestion], RoleMemory]
    """Of one worker."""
    on_loss: OnLoss
    spec: Callable[[TrainConfig, "EngineSpec | None", Path | None], Any] | None = None
    """What a training run starts them on, given how its engines are built and the folder they are saved in where it
    goes on from a checkpoint; None for those that are started by whoever asks them."""
    gpus: Number = lambda config: 1
    """Of one worker, on machines that have any."""
    cpus: float = 1.0
    """Of one worker."""
    tenant: bool = False
    """They can be in the policy's processes, on its base; see ``shares_base``."""
    saved_in: str | None = None
    """Folder within a checkpoint that they save themselves in; None = they are frozen."""

    @property
    def trainable(self) -> bool:
        """They are ranks of one group, and part of every checkpoint."""
        return self.saved_in is not None

    def actor_class(self) -> type[Any]:
        """What one worker is."""
        module, _, kind = self.actor.partition(":")
        found: type[Any] = getattr(import_module(module), kind)
        return found


def shares_base(config: TrainConfig, role: Role) -> bool:
    """Whether the role has an adapter on the policy's base, and no process, place or weights of its own."""
    return config.placement.share_base and role.tenant and role.in_run(config)


def _has_engines(config: TrainConfig) -> bool:
    return not config.offline or config.generates_critiques


def _policy_spec(config: TrainConfig, engine: "EngineSpec | None", saved: Path | None) -> Any:
    from orchestrator.cluster.specs import policy_spec, sampled_from  # deferred: it imports torch

    sampling = PLAIN
    if config.online:
        assert engine is not None, "an online run starts its engines first"
        sampling = sampled_from(config, engine.banned_token_ids)
    return policy_spec(config, str(saved / "policy") if saved else None, sampling)


def _reference_spec(config: TrainConfig, engine: "EngineSpec | None", saved: Path | None) -> Any:
    from orchestrator.cluster.specs import reference_spec  # deferred: it imports torch

    return reference_spec(config)


def _critic_spec(config: TrainConfig, engine: "EngineSpec | None", saved: Path | None) -> Any:
    from orchestrator.cluster.specs import critic_spec  # deferred: it imports torch

    return critic_spec(config, str(saved / "policy") if saved else None)


def _scalar_reward_spec(config: TrainConfig, engine: "EngineSpec | None", saved: Path | None) -> Any:
    from orchestrator.cluster.specs import base_spec, model_spec  # deferred: it imports torch
    from workers.scalar_reward import ScalarRewardSpec

    assert config.reward.scalar_path is not None
    of_model = base_spec if config.placement.share_base else model_spec
    return ScalarRewardSpec(model=of_model(config, config.reward.scalar_path))


_ALL = (
    Role(
        name="policy",
        actor="workers.policy:PolicyWorker",
        count=lambda config: config.policy.num_ranks,
        in_run=lambda config: True,
        memory=memory_plan.of_policy,
        on_loss="run_restarts",
        spec=_policy_spec,
        saved_in=".",
    ),
    Role(
        name="critic",
        actor="workers.critic:CriticWorker",
        count=lambda config: config.policy.num_ranks,
        in_run=lambda config: config.online and config.needs.critic is not None,
        memory=memory_plan.of_critic,
        tenant=True,
        on_loss="run_restarts",
        spec=_critic_spec,
        saved_in="critic",
    ),
    Role(
        name="reference",
        actor="workers.reference:ReferenceWorker",
        count=lambda config: config.reference.num_ranks,
        in_run=lambda config: config.reference_workers > 0,
        memory=memory_plan.of_reference,
        tenant=True,
        on_loss="role_restarts",
        spec=_reference_spec,
    ),
    Role(
        name="critique_reward",
        actor="workers.critique_reward:CritiqueRewardWorker",
        count=lambda config: config.reward.critique.num_workers,
        in_run=lambda config: _has_engines(config) and bool(config.reward.critique.weight),
        memory=memory_plan.of_critique_reward,
        on_loss="role_restarts",
    ),
    Role(
        name="judge",
        actor="workers.writing:WritingWorker",
        count=lambda config: config.reward.judge_workers,
        in_run=lambda config: config.online and config.reward.judge_path is not None,
        memory=memory_plan.of_judge,
        on_loss="role_restarts",
    ),
    Role(
        name="scalar_reward",
        actor="workers.scalar_reward:ScalarRewardWorker",
        count=lambda config: config.reward.scalar_workers,
        in_run=lambda config: config.online and config.reward.scalar_path is not None,
        memory=memory_plan.of_scalar_reward,
        tenant=True,
        on_loss="role_restarts",
        spec=_scalar_reward_spec,
    ),
    Role(
        name="rollout",
        actor="workers.rollout.worker:RolloutWorker",
        count=lambda config: config.rollout.num_engines,
        in_run=_has_engines,
        gpus=lambda config: config.rollout.tensor_parallel_size,
        memory=memory_plan.of_engine,
        on_loss="worker_replaced",
    ),
)
ROLES = {role.name: role for role in _ALL}
"""In the order in which they are placed and told."""
