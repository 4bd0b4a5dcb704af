"""Policies that have learned through an adapter, in this process, and what they leave."""

from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig

from algorithms.records import Sequence
from algorithms.sft import CrossEntropy
from tests.tiny_prompts import demonstrations
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.models.reward_head import save_reward_head
from workers.policy import PolicySpec, PolicyWorker

LORA = LoraSpec(rank=4, alpha=8, seed=1)


def rank_spec(base: Path) -> PolicySpec:
    """Supervised, through adapters on all but the vision tower."""
    return PolicySpec(
        model=ModelSpec(path=str(base), dtype="float32", share_prompts=True),
        source=str(base),
        optimizer=OptimizerSpec(
            zero_stage=2,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            max_grad_norm=1.0,
            offload_optimizer=False,
            schedule=Schedule(peak_lr=1e-2, kind="constant", total_steps=9, warmup_frac=0.0, min_lr_frac=0.1),
        ),
        objective=CrossEntropy(),
        freeze=("vision",),
        gradient_checkpointing=False,
        lora=LORA,
    )


def rank(spec: PolicySpec) -> PolicyWorker:
    """The only one, set up."""
    worker = PolicyWorker(rank=0, world_size=1, spec=spec, num_threads=1)
    assert worker.setup("127.0.0.1", 0) > 0
    return worker


def learned_adapter(base: Path, sequences: Seq[Sequence], folder: Path, *, seed: int = 1) -> PolicyWorker:
    """A policy after three steps, whose adapter is in ``folder/policy``, with a scalar head beside it."""
    worker = rank(replace(rank_spec(base), lora=replace(LORA, seed=seed)))
    for _ in range(3):
        worker.update([demonstrations(sequences, aggregation="token-mean")])
    worker.save(str(folder))
    hidden = AutoConfig.from_pretrained(base).get_text_config().hidden_size
    save_reward_head("linear", {"weight": torch.linspace(-1, 1, hidden)[None]}, folder / "policy", request=None)
    return worker
