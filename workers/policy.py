"""The policy: one rank of the sharded model that scores, learns, publishes its weights and saves itself."""

import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workers.actor_base import WorkerBase
from workers.backends.schedule import OptimizerSpec
from workers.models.export import export_folder
from workers.models.loading import ModelSpec, freeze_modules, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Batch, Collator, as_slots
from workers.objectives import LossSpec, UpdateStats, pair_objective, token_objective
from workers.types import PreferenceGroup, Sequence, TrainSample
from workers.weight_sync.manifest import Backend, WeightManifest
from workers.weight_sync.senders import SharedMemorySender, WeightSender

Microbatch = Seq[TrainSample] | Seq[PreferenceGroup]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """Everything one policy rank needs to start."""

    model: ModelSpec
    source: str
    """Model folder whose configuration and processor every checkpoint carries. Not ``model.path``, which may be a
    checkpoint that this run removes."""
    optimizer: OptimizerSpec
    loss: LossSpec
    freeze: tuple[str, ...]
    gradient_checkpointing: bool


class PolicyWorker(WorkerBase):
    """One rank. Methods that communicate (all but ``ping``) must be called on every rank together."""

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
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._rank, self._world_size, self._spec = rank, world_size, spec
        self._sender: WeightSender | None = None
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def setup(self, master_address: str, master_port: int) -> int:
        """Join the process group, load the model and shard it; return the number of trainable tensors."""
        # Deferred: the driver describes a policy without DeepSpeed.
        from workers.backends.deepspeed_engine import DeepSpeedEngine, init_process_group

        os.environ.update(RANK=str(self._rank), WORLD_SIZE=str(self._world_size), LOCAL_RANK="0")
        init_process_group(self._rank, self._world_size, master_address, master_port)
        model, self._adapter = load_model(self._spec.model)
        trainable = freeze_modules(model, self._adapter, self._spec.freeze)
        if self._spec.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            _train_without_dropout(model)
        lockstep = self._world_size > 1
        self._collate = Collator(
            self._spec.model.path,
            dtype=self._spec.model.torch_dtype,
            share_prompts=self._spec.model.share_prompts,
            always_an_image=lockstep,
            trust_remote_code=self._spec.model.trust_remote_code,
        )
        self._engine = DeepSpeedEngine(
            PolicyModule(model, lockstep=lockstep),
            self._spec.optimizer,
            bf16=self._spec.model.torch_dtype == torch.bfloat16,
            world_size=self._world_size,
        )
        return trainable

    def score(self, microbatches: Seq[Seq[Sequence]]) -> list[np.ndarray]:
        """Log-probs under the current weights: one float32 ``[T]`` array per sequence, in the order given."""
        scored: list[np.ndarray] = []
        with torch.no_grad():
            for sequences in microbatches:
                batch = self._collate(sequences)
                logprobs, _ = self._forward(batch)
                scored += as_slots(sequences, batch.split(logprobs))
        return scored

    def update(self, microbatches: Seq[Microbatch]) -> UpdateStats:
        """One optimizer step over this rank's micro-batches; none when any rank met something that is not finite."""
        stats = UpdateStats(lr=self._engine.lr)
        for index, samples in enumerate(microbatches):
            before = len(stats.nonfinite)
            loss = self._loss(samples, stats)
            finite = self._engine.backward(loss, last=index == len(microbatches) - 1)
            if not finite and len(stats.nonfinite) == before:
                stats.nonfinite += tuple(s.uid for s in samples)
        if self._any_rank(bool(stats.nonfinite)):
            self._engine.discard()
            return stats
        stats.grad_norm = self._engine.step()
        return stats

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

        def named() -> Iterator[tuple[str, Tensor]]:
            for name, tensor, trainable in self._named():
                if full or trainable:
                    yield name, tensor.to(self._spec.model.torch_dtype)

        assert self._sender is not None
        return self._sender.publish(named, policy_version=policy_version, full=full)

    def send(self) -> None:
        """Move what was published, while the engines receive."""
        assert self._sender is not None
        self._sender.send()

    def release(self) -> None:
        """Every engine has received."""
        assert self._sender is not None
        self._sender.release()

    def save(self, folder: str) -> None:
        """Write ``policy/`` (a plain model folder, rank 0) and this rank's optimizer state under ``folder``."""
        tensors = {name: tensor.cpu().clone() for name, tensor, _ in self._named() if self._rank == 0}
        if self._rank == 0:
            export_folder(tensors, source=self._spec.source, target=Path(folder) / "policy")
        state = Path(folder) / "state"
        state.mkdir(parents=True, exist_ok=True)
        save_file(self._engine.state_tensors(), state / f"rank_{self._rank:05d}.safetensors")

    def load_state(self, folder: str, *, num_steps: int) -> None:
        """Restore optimizer state saved by the same rank of an equally sharded run.

        Raises:
            ValueError: the run was sharded differently.
        """
        file = Path(folder) / "state" / f"rank_{self._rank:05d}.safetensors"
        if not file.is_file():
            raise ValueError(f"checkpoint {folder} holds no optimizer state of rank {self._rank}")
        self._engine.load_state_tensors(load_file(file), num_steps=num_steps)

    def _named(self):
        prefix = "model."
        for name, tensor in self._engine.full_parameters():
            trainer_name = name.removeprefix(prefix)
            trainable = self._adapter.module_of(trainer_name) not in self._spec.freeze
            yield self._adapter.checkpoint_name(trainer_name), tensor, trainable

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self._engine.forward(batch.to(self._device))

    def _loss(self, samples: Microbatch, stats: UpdateStats) -> Tensor:
        groups = [s for s in samples if isinstance(s, PreferenceGroup)]
        tokens = [s for s in samples if isinstance(s, TrainSample)]
        batch = self._collate([*(s for g in groups for s in g.sequences), *(s.sequence for s in tokens)])
        logprobs, entropy = self._forward(batch)
        if groups:
            return pair_objective(groups, batch.split(logprobs), entropy, self._spec.loss, stats)
        return token_objective(tokens, batch.split(logprobs), entropy, self._spec.loss, stats)

    def _any_rank(self, flag: bool) -> bool:
        if self._world_size == 1:
            return flag
        value = torch.tensor([float(flag)], device=self._device)
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        return bool(value.item())


def _train_without_dropout(model: torch.nn.Module) -> None:
    """transformers checkpoints activations only in training mode; dropout would make log-probs incomparable."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for rate in ("attention_dropout", "dropout"):  # of attention, which is a function and no module
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
