"""DeepSpeed behind four verbs: forward, accumulate, step, and the exact state a resume needs.

The objective is given by the caller as per-token weights over the global batch, so gradients are *summed* over
micro-batches and ranks. DeepSpeed averages over ranks; the loss is multiplied by the world size to undo that.
"""

import math
import socket
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import torch
from deepspeed.ops.op_builder import ShareMemCommBuilder  # type: ignore[attr-defined]
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from deepspeed.runtime.zero.stage_1_and_2 import INITIAL_MICRO_STEP_ID, DeepSpeedZeroOptimizer
from torch import Tensor, nn
from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]

from workers.backends.schedule import OptimizerSpec


def init_process_group(rank: int, world_size: int, master_address: str, master_port: int) -> None:
    """Join the trainer's process group (NCCL on GPU, gloo on CPU), unless this process is in one."""
    # The optional shared-memory collective would compile C++ for a minute at first use; gloo needs no compiler.
    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False
    if not torch.distributed.is_initialized():
        _join(rank, world_size, master_address, master_port)
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)  # takes the group over


def _join(rank: int, world_size: int, master_address: str, master_port: int) -> None:
    # Left to itself the leader's store listens on every interface, and takes orders from whoever reaches it.
    listener = socket.create_server((master_address, master_port)).detach() if rank == 0 else None
    store = TCPStore(master_address, master_port, world_size, is_master=rank == 0, master_listen_fd=listener)
    gpu = torch.cuda.is_available()
    torch.distributed.init_process_group(
        "nccl" if gpu else "gloo",
        store=store,
        rank=rank,
        world_size=world_size,
        device_id=torch.device("cuda", torch.cuda.current_device()) if gpu else None,
    )


class DeepSpeedEngine:
    """One rank of the sharded policy."""

    def __init__(self, module: nn.Module, spec: OptimizerSpec, *, bf16: bool, world_size: int) -> None:
        self._spec = spec
        self._world_size = world_size
        self.num_steps = 0
        trainable = [p for p in module.parameters() if p.requires_grad]
        self._finite: Tensor | None = None
        # Seen before DeepSpeed shards or averages them, so that the micro-batch at fault is known.
        for parameter in trainable:
            parameter.register_hook(self._look_at)
        # Also on a host, where offloading keeps the masters: it is as fast there as DeepSpeed's CPUAdam, and needs no
        # compiler (benchmarks/adam.py).
        optimizer = torch.optim.AdamW(
            trainable, lr=spec.schedule.lr(0), betas=spec.betas, weight_decay=spec.weight_decay, fused=True
        )
        # DeepSpeed types its optimizer as the union of everything it might be; here it is known by the stage.
        self.engine: Any = deepspeed.initialize(
            model=module, optimizer=optimizer, config=_engine_config(spec, bf16=bf16), dist_init_required=False
        )[0]
        # Unsharded bfloat16 training begins with a step on gradients of zero, which would count in Adam's corrections.
        self._adam.state.clear()

    def forward(self, *args: Any) -> Any:
        """Run the wrapped module through the engine, so that sharded parameters are gathered."""
        return self.engine(*args)

    def backward(self, loss: Tensor, *, last: bool) -> bool:
        """Accumulate gradients of ``loss``; ``last`` marks the optimizer step's final micro-batch on every rank.

        Returns:
            Whether every gradient on this rank is finite.
        """
        self._finite = None
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self._world_size, scale_wrt_gas=False)
        return self._finite is None or bool(self._finite)

    def discard(self) -> None:
        """Drop the accumulated gradients of a step that will not be taken, as DeepSpeed does after an overflow."""
        optimizer = self.engine.optimizer
        if self._spec.zero_stage == 3:
            optimizer._overflow_clean_up(None)
            return
        optimizer.zero_grad(set_to_none=True)
        if isinstance(optimizer, DeepSpeedZeroOptimizer):
            for group in optimizer.averaged_gradients:
                optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None
            # Else the next step takes its first micro-batch for a later one, and adds what offloading kept of these.
            optimizer.micro_step_id = INITIAL_MICRO_STEP_ID
            if optimizer.cpu_offload:
                optimizer.reset_cpu_buffers()

    def step(self) -> float | None:
        """Apply the accumulated gradient and return its norm before clipping (0-based steps drive the schedule).

        Returns:
            None where the norm is not finite, although every micro-batch's gradient was: then nothing was applied.
        """
        lr = self._spec.schedule.lr(self.num_steps)
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        # Unsharded float32 training leaves clipping to torch: DeepSpeed then neither reports a norm nor looks at it.
        grads = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
        plain_norm = torch.nn.utils.get_total_norm(grads) if grads else torch.tensor(0.0)
        if not plain_norm.isfinite():
            self.discard()
            return None
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        norm = float(plain_norm if norm is None else norm)
        if not math.isfinite(norm):
            return None
        self.num_steps += 1
        return norm

    def _look_at(self, gradient: Tensor) -> None:
        finite = torch.isfinite(gradient).all()
        self._finite = finite if self._finite is None else self._finite & finite

    @property
    def lr(self) -> float:
        """Learning rate the next step will use."""
        return self._spec.schedule.lr(self.num_steps)

    @property
    def module(self) -> Any:
        """What was wrapped."""
        return self.engine.module

    def gathered(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[Any]:
        """Make these parameters whole for as long as the context lasts; every rank must enter together."""
        return deepspeed.zero.GatheredParameters(list(parameters)) if self._spec.zero_stage == 3 else nullcontext()

    def state_tensors(self) -> dict[str, Tensor]:
        """This rank's share of what a resume needs: master weights and Adam moments, by partition."""
        tensors: dict[str, Tensor] = {}
        for index, master in enumerate(self._master_partitions()):
            tensors[f"{index}.master"] = master.detach().cpu().contiguous()
            for key, value in self._adam.state.get(master, {}).items():
                tensors[f"{index}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor], *, num_steps: int) -> None:
        """Restore what ``state_tensors`` returned on the same rank of an equally sharded run.

        The module must already hold the checkpoint's weights: only masters and moments are restored here.

        Raises:
            ValueError: the partitions differ in number or size from those saved.
        """
        masters = self._master_partitions()
        saved = {int(name.split(".")[0]) for name in tensors}
        if saved != set(range(len(masters))):
            raise ValueError(f"checkpoint has {len(saved)} optimizer partitions, this run has {len(masters)}")
        for index, master in enumerate(masters):
            source = tensors[f"{index}.master"]
            if source.shape != master.shape:
                raise ValueError(
                    f"optimizer partition {index}: saved {tuple(source.shape)}, here {tuple(master.shape)}"
                )
            with torch.no_grad():
                master.copy_(source)
            moments = {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{index}.")}
            moments.pop("master")
            if moments:
                # Fused, AdamW keeps its step counter beside the parameter, as its moments.
                self._adam.state[master] = {key: value.to(master.device) for key, value in moments.items()}
        self.num_steps = num_steps

    @property
    def _adam(self) -> torch.optim.Optimizer:
        optimizer = self.engine.optimizer
        return optimizer if isinstance(optimizer, torch.optim.Optimizer) else optimizer.optimizer

    def _master_partitions(self) -> list[Tensor]:
        if self._spec.zero_stage == 3:
            return list(self.engine.optimizer.fp32_partitioned_groups_flat)
        if isinstance(self.engine.optimizer, BF16_Optimizer):
            return list(self.engine.optimizer.fp32_groups_flat_partition)
        if self._spec.zero_stage in (1, 2):
            return list(self.engine.optimizer.single_partition_of_fp32_groups)
        return [p for group in self._adam.param_groups for p in group["params"]]


def _engine_config(spec: OptimizerSpec, *, bf16: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": spec.zero_stage}
    if spec.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": spec.max_grad_norm,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": bf16},
        # In bfloat16 a sum stops growing where the next micro-batch is a 256th of it.
        "data_types": {"grad_accum_dtype": "fp32" if spec.sums_in_float32 else None},
        # Else stage 1 rounds the finished sum to bfloat16 for the ranks to exchange it, also where there is but one.
        "communication_data_type": "fp32" if spec.grad_dtype == "float32" else None,
        "steps_per_print": 1 << 60,
    }
