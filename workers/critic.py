"""The critic: one rank of a second sharded model, which learns what the state before each token is worth."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from algorithms.records import Sequence
from workers.columns import Slots
from workers.models.loading import draw_afresh
from workers.models.policy_module import ValueModule
from workers.models.reward_head import RewardHead, load_reward_head
from workers.multimodal.collate import as_slots
from workers.trained_rank import RankSpec, TrainedRank


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticSpec(RankSpec):
    """Everything one critic rank needs to start."""

    head_in: str | None
    """Folder whose scalar head it begins with; None begins with zeros: every state is worth nothing."""
    fresh_seed: int | None = None
    """What it learns begins as if newly made, drawn by this seed; None begins with what the folder holds."""


class CriticWorker(TrainedRank):
    """Shards, steps, saves and resumes as a policy's rank does, with a scalar head in place of the language model's."""

    loss_figure = "critic/loss"

    def values(self, microbatches: Seq[Seq[Sequence]]) -> Slots:
        """What the state before each action token is worth: float32 ``[T]`` a sequence, 0 elsewhere, in order."""
        self._forget_untouched()
        found: list[np.ndarray] = []
        with torch.no_grad():
            for sequences in microbatches:
                batch = self._collate(sequences)
                found += as_slots(sequences, batch.split(self._forward(batch).values))
        self._forget_untouched()  # what only the updates before were about
        return Slots(found, [s.prompt_len for sequences in microbatches for s in sequences])

    def _module(self, model: Any, *, lockstep: bool) -> nn.Module:
        spec = self._spec
        assert isinstance(spec, CriticSpec) and spec.head is not None
        if spec.fresh_seed is not None:
            draw_afresh(model, seed=spec.fresh_seed)
        size, dtype = model.config.get_text_config().hidden_size, spec.model.torch_dtype
        if spec.head_in is None:
            head = RewardHead(spec.head.kind, size, bias=spec.head.bias, dtype=dtype)
        else:
            head = load_reward_head(Path(spec.head_in), size, dtype=dtype, bias=spec.head.bias)
        return ValueModule(model, head, lockstep=lockstep)
