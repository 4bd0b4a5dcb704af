"""The policy: one rank of the sharded model that scores, learns, publishes its weights and saves itself."""

import os
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from algorithms.algorithm import Objective, Sample, ScalarHead
from algorithms.figures import Sum, Tallies, added
from algorithms.records import PLAIN, SamplingDistribution, Sequence
from workers.actor_base import WorkerBase
from workers.backends.schedule import OptimizerSpec
from workers.models.export import copy_processor, export_folder
from workers.models.loading import ModelSpec, freeze_modules, load_model, train_without_dropout
from workers.models.lora import (
    LoraSpec,
    adapter_tensors,
    add_adapters,
    plain_parameters,
    save_adapter,
    without_adapters,
)
from workers.models.policy_module import (
    CritiqueRewardModule,
    PolicyModule,
    RewardModule,
    nothing,
    reward_scores,
    scores_of,
    token_scores,
)
from workers.models.reward_head import load_reward_head, save_reward_head
from workers.multimodal.collate import Batch, Collator, as_slots
from workers.types import RankUpdate
from workers.weight_sync.manifest import Backend, WeightManifest
from workers.weight_sync.senders import SharedMemorySender, WeightSender

_HEAD = "score."


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """Everything one policy rank needs to start."""

    model: ModelSpec
    source: str
    """Model folder whose configuration and processor every checkpoint carries. Not ``model.path``, which may be a
    checkpoint that this run removes."""
    optimizer: OptimizerSpec
    objective: Objective
    freeze: tuple[str, ...]
    gradient_checkpointing: bool
    sampling: SamplingDistribution = PLAIN
    """What the trained tokens were drawn from; the objective is of its log-probs."""
    head: ScalarHead | None = None
    """None = the model has its own head alone."""
    lora: LoraSpec | None = None
    """None = the weights themselves are trained."""


class PolicyWorker(WorkerBase):
    """One rank. Methods that communicate (all but ``ping``) must be called on every rank together."""

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
        lora = self._spec.lora
        model, self._adapter = load_model(self._spec.model)
        if lora is None:
            trainable = freeze_modules(model, self._adapter, self._spec.freeze)
        else:
            trainable = add_adapters(model, self._adapter, lora, self._spec.freeze)
        if self._spec.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            train_without_dropout(model)
        # Alone it is for the image: without one, a frozen language model leaves nothing to differentiate.
        lockstep = self._world_size > 1 or "language" in self._spec.freeze
        self._collate = Collator.of(self._spec.model, always_an_image=lockstep)
        self._engine = DeepSpeedEngine(
            self._module(model, lockstep=lockstep),
            self._spec.optimizer,
            bf16=self._spec.model.torch_dtype == torch.bfloat16,
            world_size=self._world_size,
        )
        return trainable

    def score(
        self, microbatches: Seq[Seq[Sequence]], *, sampling: SamplingDistribution = PLAIN, adapters: bool = True
    ) -> list[np.ndarray]:
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
        return scored

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

    def update(self, microbatches: Seq[Seq[Sample]]) -> RankUpdate:
        """One optimizer step over this rank's micro-batches; none when any rank met something that is not finite.

        A micro-batch is empty where other ranks have one more than this rank, which has to be in their collectives.
        """
        lr = self._engine.lr
        figures: Tallies = {}
        nonfinite: list[str] = []
        for index, samples in enumerate(microbatches):
            loss, shares, at_fault = self._loss(samples)
            finite = self._engine.backward(loss, last=index == len(microbatches) - 1)
            figures = added((figures, shares))
            nonfinite += at_fault if finite or at_fault else [s.uid for s in samples]
        if self._any_rank(bool(nonfinite)):
            self._engine.discard()
            return RankUpdate(figures=figures, lr=lr, nonfinite=tuple(nonfinite))
        norm = self._engine.step()
        if norm is None:
            uids = tuple(s.uid for samples in microbatches for s in samples)
            return RankUpdate(figures=figures, lr=lr, nonfinite=uids)
        return RankUpdate(figures=figures, lr=lr, grad_norm=norm)

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
        """Write ``policy/`` (rank 0) and this rank's optimizer state under ``folder``.

        ``policy/`` is a plain model folder, or the adapter alone, in peft's format, where only that is trained.
        """
        target, max_pixels = Path(folder) / "policy", self._spec.model.max_pixels
        if self._spec.lora is not None:
            model = self._engine.module.model
            adapter = adapter_tensors(model, self._engine.gathered)
            if self._rank == 0:
                save_adapter(model, adapter, target, source=self._spec.source)
                copy_processor(self._spec.source, target, max_pixels=max_pixels)
        else:
            tensors = {name: tensor.cpu().clone() for name, tensor, _ in self._named() if self._rank == 0}
            if self._rank == 0:
                export_folder(tensors, source=self._spec.source, target=target, max_pixels=max_pixels)
        if self._spec.head is not None:
            self._save_reward_head(target, self._spec.head)
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

    def _named(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Released name, whole tensor and whether training changes it."""
        scale = self._spec.lora.scale if self._spec.lora else 1.0
        for name, tensor, trained in plain_parameters(self._engine.module, self._engine.gathered, scale=scale):
            if name.startswith(_HEAD):
                continue  # no engine and no plain folder has a place for it
            for released, part in self._adapter.released(name.removeprefix("model."), tensor):
                yield released, part.contiguous(), trained

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

    def _save_reward_head(self, folder: Path, told: ScalarHead) -> None:
        head = self._engine.module.score
        with self._engine.gathered(list(head.parameters())):
            if self._rank == 0:
                tensors = {name: p.detach().cpu().clone() for name, p in head.named_parameters()}
                save_reward_head(head.kind, tensors, folder, request=told.request, opening=told.opening)

    def _forward(self, batch: Batch, sampling: SamplingDistribution = PLAIN) -> Any:
        return self._engine.forward(batch.to(self._device), sampling)

    def _loss(self, samples: Seq[Sample]) -> tuple[Tensor, Tallies, list[str]]:
        """What a micro-batch adds to the objective and to its figures, and the samples whose loss is not finite."""
        batch = self._collate([sequence for sample in samples for sequence in sample.sequences])
        output = self._forward(batch, self._spec.sampling)
        if not samples:
            return nothing(output), {}, []
        loss = self._spec.objective(scores_of(batch, output), samples)
        finite = torch.isfinite(loss.losses).tolist()
        at_fault = [s.uid for s, ok in zip(samples, finite, strict=True) if not ok]
        return loss.losses.sum(), {self.loss_figure: Sum(float(loss.losses.detach().sum())), **loss.figures}, at_fault

    def _any_rank(self, flag: bool) -> bool:
        if self._world_size == 1:
            return flag
        value = torch.tensor([float(flag)], device=self._device)
        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.MAX)
        return bool(value.item())
