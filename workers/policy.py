"""The policy: one rank of the sharded model that scores, learns and publishes its weights."""

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.records import PLAIN, SamplingDistribution, Sequence
from workers.columns import Slots
from workers.models.loading import load_model
from workers.models.lora import without_adapters
from workers.models.policy_module import (
    CritiqueRewardModule,
    PolicyModule,
    RewardModule,
    reward_scores,
    token_scores,
)
from workers.models.reward_head import load_reward_head
from workers.models.shared_base import SharedBase
from workers.multimodal.collate import as_slots
from workers.trained_rank import RankSpec, TrainedRank
from workers.weight_sync.manifest import Backend, WeightManifest
from workers.weight_sync.senders import Broadcaster, Lender, SharedMemorySender, WeightSender


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec(RankSpec):
    """Everything one policy rank needs to start."""

    shares_base: bool = False
    """Other roles stand on the same base; see ``admit``."""


class PolicyWorker(TrainedRank):
    """Learns from what it is told, says how likely tokens are, and hands its weights to the engines."""

    loss_figure = "policy/loss"

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        spec: PolicySpec,
        num_threads: int,
        name: str | None = None,
        board: Any = None,
    ) -> None:
        load = SharedBase() if spec.shares_base else load_model
        super().__init__(
            rank=rank, world_size=world_size, spec=spec, num_threads=num_threads, name=name, board=board, load=load
        )
        self._sender: WeightSender | None = None
        self._tenants: dict[str, Any] = {}

    def admit(self, role: str, kind: type[Any], spec: Any) -> None:
        """Take a worker of another role into this process, in place of any it has, with its model on this rank's base.

        Args:
            kind: Its class, a rank's or a frozen role's.
            spec: What it starts on.
        """
        rank: dict[str, Any] = {}
        if issubclass(kind, TrainedRank):
            rank = {"rank": self._rank, "world_size": self._world_size}
        self._tenants[role] = kind(spec=spec, num_threads=torch.get_num_threads(), load=self._load, **rank)

    def of_tenant(self, role: str, method: str, *args: Any, **options: Any) -> Any:
        """What a worker that was admitted says."""
        return getattr(self._tenants[role], method)(*args, **options)

    def score(
        self, microbatches: Seq[Seq[Sequence]], *, sampling: SamplingDistribution = PLAIN, adapters: bool = True
    ) -> Slots:
        """Log-probs under the current weights: one float32 ``[T]`` array per sequence, in the order given.

        Args:
            sampling: The distribution whose log-probs are asked for.
            adapters: False asks the base alone, the reference of a policy that learns through adapters.
        Raises:
            ValueError: the base alone is asked for, and the policy has no adapters.
        """
        if not adapters and self._spec.lora is None:
            raise ValueError(
                "adapters = False asks for the base alone, but the policy has no adapters: set model.lora_rank"
            )
        scored: list[np.ndarray] = []
        with torch.no_grad(), nullcontext() if adapters else without_adapters(self._engine.module):
            for sequences in microbatches:
                batch = self._collate(sequences)
                scored += as_slots(sequences, batch.split(token_scores(self._forward(batch, sampling)).logprobs))
        return Slots(scored, [s.prompt_len for sequences in microbatches for s in sequences])

    def rewards(self, microbatches: Seq[Seq[Sequence]]) -> list[float]:
        """The reward of each sequence under a model that has a scalar head, in the order given."""
        rewards: list[float] = []
        with torch.no_grad():
            for sequences in microbatches:
                rewards += reward_scores(self._forward(self._collate(sequences))).tolist()
        return rewards

    def greedy_hits(self, microbatches: Seq[Seq[Sequence]]) -> list[int]:
        """How many completion tokens of each sequence are the likeliest where they stand, in the order given."""
        hits: list[int] = []
        with torch.no_grad():
            for sequences in microbatches:
                batch = self._collate(sequences)
                hits += [int(piece.sum()) for piece in batch.split(token_scores(self._forward(batch)).greedy)]
        return hits

    def open_sender(self, *, backend: Backend, run_id: str, address: str, port: int, group_size: int) -> None:
        """Choose how weights travel; for NCCL it returns once every engine worker has joined the group."""
        if backend == "shared_memory":
            # Opened again after an engine was replaced; the others still have the file mapped, and memory is scarce.
            if self._sender is None:
                self._sender = SharedMemorySender(rank=self._rank, run_id=run_id)
            return
        # Deferred: it imports vLLM, which a CPU trainer has no use for.
        from workers.weight_sync.device_senders import IpcSender, NcclSender

        if backend == "ipc":
            self._sender = IpcSender()
        else:
            self._sender = NcclSender(rank=self._rank, master_address=address, master_port=port, group_size=group_size)

    def publish(self, *, policy_version: int, full: bool) -> WeightManifest | None:
        """Announce the weights for the engines; None where another rank announces for all."""
        self._collate.forget_untouched()
        # Engines on this device sample next, and a later step has other images, or has them in another epoch.
        self._features.clear()

        trained: list[str] = []

        def named() -> Iterator[tuple[str, Tensor]]:
            trained.clear()
            for name, tensor, changes in self._named():
                if changes:
                    trained.append(name)
                if full or changes:
                    yield name, tensor.to(self._spec.model.torch_dtype)

        assert self._sender is not None
        manifest = self._sender.publish(named, policy_version=policy_version, full=full)
        return None if manifest is None else replace(manifest, trained=tuple(trained))

    def send(self) -> None:
        """Move what was published, while the engines receive; of a transport that needs it."""
        assert isinstance(self._sender, Broadcaster)
        self._sender.send()

    def release(self) -> None:
        """Every engine has received; of a transport that kept a copy for them."""
        assert isinstance(self._sender, Lender)
        self._sender.release()

    def _module(self, model: Any, *, lockstep: bool) -> nn.Module:
        spec = self._spec
        if spec.head is None:
            return PolicyModule(model, lockstep=lockstep)
        head = load_reward_head(
            Path(spec.lora.saved if spec.lora is not None and spec.lora.saved is not None else spec.model.path),
            model.config.get_text_config().hidden_size,
            dtype=spec.model.torch_dtype,
            kind=spec.head.kind,
            bias=spec.head.bias,
        )
        of_kind = CritiqueRewardModule if spec.head.keeps_language else RewardModule
        return of_kind(model, head, lockstep=lockstep)
