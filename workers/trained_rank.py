"""A rank that learns, a policy's or a critic's: it shards its model, takes optimizer steps, saves itself, goes on."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from algorithms.algorithm import Objective, Sample, ScalarHead
from algorithms.figures import Sum, Tallies, added
from algorithms.records import PLAIN, SamplingDistribution
from workers.actor_base import WorkerBase
from workers.backends.schedule import OptimizerSpec
from workers.models.export import copy_processor, export_folder
from workers.models.loading import Loader, ModelSpec, freeze_modules, load_model, train_without_dropout
from workers.models.lora import LoraSpec, adapter_tensors, add_adapters, plain_parameters, save_adapter
from workers.models.policy_module import nothing, scores_of
from workers.models.reward_head import save_reward_head
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Batch, Collator
from workers.types import RankUpdate

_HEAD = "score."


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSpec:
    """Everything a rank that learns needs to start."""

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


class TrainedRank(WorkerBase, ABC):
    """One rank. Methods that communicate (all but ``ping``) must be called on every rank together."""

    loss_figure: ClassVar[str]
    """What its loss is called."""

    def __init__(
        self,
        *,
        rank: int,
        world_size: int,
        spec: RankSpec,
        num_threads: int,
        name: str | None = None,
        board: Any = None,
        load: Loader = load_model,
    ) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._rank, self._world_size, self._spec = rank, world_size, spec
        self._load = load
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def setup(self, master_address: str, master_port: int) -> int:
        """Join the process group, load the model and shard it; return the number of trainable tensors."""
        # Deferred: the driver describes a policy without DeepSpeed.
        from workers.backends.deepspeed_engine import DeepSpeedEngine, init_process_group

        os.environ.update(RANK=str(self._rank), WORLD_SIZE=str(self._world_size), LOCAL_RANK="0")
        init_process_group(self._rank, self._world_size, master_address, master_port)
        lora = self._spec.lora
        model, self._adapter = self._load(self._spec.model)
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
        module = self._module(model, lockstep=lockstep)
        self._features = keep_features(module, self._adapter)
        self._engine = DeepSpeedEngine(
            module,
            self._spec.optimizer,
            bf16=self._spec.model.torch_dtype == torch.bfloat16,
            world_size=self._world_size,
        )
        return trainable

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
        self._features.clear()

    def _named(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Released name, whole tensor and whether training changes it."""
        scale = self._spec.lora.scale if self._spec.lora else 1.0
        for name, tensor, trained in plain_parameters(self._engine.module, self._engine.gathered, scale=scale):
            if name.startswith(_HEAD):
                continue  # no engine and no plain folder has a place for it
            for released, part in self._adapter.released(name.removeprefix("model."), tensor):
                yield released, part.contiguous(), trained

    @abstractmethod
    def _module(self, model: Any, *, lockstep: bool) -> nn.Module:
        """What is sharded: the model with the head that the role has."""

    def _save_reward_head(self, folder: Path, told: ScalarHead) -> None:
        head = self._engine.module.score
        with self._engine.gathered(list(head.parameters())):
            if self._rank == 0:
                tensors = {name: p.detach().cpu().clone() for name, p in head.named_parameters()}
                save_reward_head(head.kind, tensors, folder, request=told.request, opening=told.opening)

    def _forget_untouched(self) -> None:
        """Drop the images, and what the tower said of them, that nobody has asked for since the last call."""
        self._collate.forget_untouched()
        self._features.forget_untouched()

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
