"""The scalar reward worker: a frozen reward model that says in one forward what a response is worth."""

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algorithms.records import Sequence
from workers.actor_base import WorkerBase
from workers.models.loading import Loader, ModelSpec, load_model
from workers.models.policy_module import RewardModule
from workers.models.reward_head import load_reward_head
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Collator


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalarRewardSpec:
    """What such a worker needs to start."""

    model: ModelSpec
    """Of a folder with a scalar head, as ``scalar_rm`` leaves one; an adapter has the head beside it."""


class ScalarRewardWorker(WorkerBase):
    """A frozen reward model on one device; of whatever family, as it reads texts by its own processor."""

    def __init__(
        self,
        *,
        spec: ScalarRewardSpec,
        num_threads: int,
        name: str | None = None,
        board: Any = None,
        load: Loader = load_model,
    ) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, adapter = load(spec.model)
        size, dtype = model.config.get_text_config().hidden_size, spec.model.torch_dtype
        head = load_reward_head(Path(spec.model.adapter or spec.model.path), size, dtype=dtype)
        module = RewardModule(model, head, lockstep=False)
        self._module = module.to(self._device).requires_grad_(False)
        self._features = keep_features(self._module, adapter)
        self._collate = Collator.of(spec.model)

    def rewards(self, microbatches: Seq[Seq[Sequence]]) -> list[float]:
        """The reward of each sequence, read at its last token, in the order given."""
        rewards: list[float] = []
        with torch.no_grad():
            for sequences in microbatches:
                rewards += self._module(self._collate(sequences).to(self._device)).tolist()
        self._collate.forget_untouched()
        self._features.forget_untouched()
        return rewards
