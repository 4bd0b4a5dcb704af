"""The critique reward worker: an engine writes critiques, and the model with its scalar head reads rewards off them.

Engine and model are two copies of the same weights. Responses of one instruction share its prompt and its images in
both: in the engine by its prefix and encoder caches, in the model by the packed row.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algorithms.records import Sequence
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import CritiqueRewardModule
from workers.models.reward_head import load_reward_head
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Collator
from workers.writing import WritingSpec, WritingWorker


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueRewardSpec(WritingSpec):
    """What a critique reward worker needs to start."""

    @property
    def model(self) -> ModelSpec:
        """How the model with the head is loaded: from the engine's own folder."""
        return self.engine.model


class CritiqueRewardWorker(WritingWorker):
    """A frozen critique reward model on one device."""

    def __init__(self, *, spec: CritiqueRewardSpec, num_threads: int, name: str, board: Any = None) -> None:
        super().__init__(spec=spec, num_threads=num_threads, name=name, board=board)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, adapter = load_model(spec.model)
        head = load_reward_head(
            Path(spec.model.path), model.config.get_text_config().hidden_size, dtype=spec.model.torch_dtype
        )
        module = CritiqueRewardModule(model, head, lockstep=False)
        self._module = module.to(self._device).requires_grad_(False)
        self._features = keep_features(self._module, adapter)
        self._collate = Collator.of(spec.model)

    def rewards(self, microbatches: Seq[Seq[Sequence]]) -> list[float]:
        """The reward of each sequence, read at its last token, in the order given."""
        rewards: list[float] = []
        with torch.no_grad():
            for sequences in microbatches:
                rewards += self._module(self._collate(sequences).to(self._device)).rewards.tolist()
        self._collate.forget_untouched()
        self._features.forget_untouched()
        return rewards
