"""Who takes the steps of ``gpu_policy``: torch alone, or the trainer's own engine."""

import os

import torch
from torch import nn

from workers.multimodal.collate import Batch


class PlainLearner:
    """torch alone: AdamW on the weights as they are."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._adam = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-6, fused=True)

    def step(self, batches: list[Batch]) -> None:
        """One update over all micro-batches."""
        for batch in batches:
            (-self._module(batch).logprobs.mean()).backward()
        self._adam.step()
        self._adam.zero_grad()


class DeepSpeedLearner:
    """The trainer's own engine, one rank."""

    def __init__(self, module: nn.Module, *, stage: int, offload: bool) -> None:
        # Deferred: --plain-optimizer runs without DeepSpeed.
        from workers.backends.deepspeed_engine import DeepSpeedEngine, init_process_group
        from workers.backends.schedule import OptimizerSpec, Schedule

        os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        init_process_group(0, 1, "127.0.0.1", 0)
        schedule = Schedule(peak_lr=1e-6, kind="constant", total_steps=100, warmup_frac=0.0, min_lr_frac=1.0)
        spec = OptimizerSpec(
            zero_stage=stage, betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=1.0, offload_optimizer=offload,
            schedule=schedule,
        )  # fmt: skip
        self._engine = DeepSpeedEngine(module, spec, bf16=True, world_size=1)

    def step(self, batches: list[Batch]) -> None:
        """One update over all micro-batches."""
        for index, batch in enumerate(batches):
            loss = -self._engine.forward(batch).logprobs.mean()
            self._engine.backward(loss, last=index == len(batches) - 1)
        self._engine.step()
