"""The frozen reference: scores sequences under the weights the run started from."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch

from algorithms.records import PLAIN, SamplingDistribution, Sequence
from workers.actor_base import WorkerBase
from workers.columns import Slots
from workers.models.loading import Loader, ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.models.vision_features import keep_features
from workers.multimodal.collate import Collator, as_slots


class ReferenceWorker(WorkerBase):
    """A whole model on one device; exists only while the KL coefficient is above zero."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        num_threads: int,
        name: str | None = None,
        board: Any = None,
        load: Loader = load_model,
    ) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, adapter = load(spec)
        # Four-bit weights are where they belong from the start.
        model = model if spec.quantize else model.to(self._device)
        self._module = PolicyModule(model, lockstep=False).requires_grad_(False)
        self._features = keep_features(self._module, adapter)
        self._collate = Collator.of(spec)

    def score(self, microbatches: Seq[Seq[Sequence]], *, sampling: SamplingDistribution = PLAIN) -> Slots:
        """Reference log-probs: one float32 ``[T]`` array per sequence, in the order given.

        Args:
            sampling: The distribution whose log-probs are asked for.
        """
        scored: list[np.ndarray] = []
        with torch.no_grad():
            for sequences in microbatches:
                batch = self._collate(sequences)
                scores = self._module(batch.to(self._device), sampling)
                scored += as_slots(sequences, batch.split(scores.logprobs))
        self._collate.forget_untouched()
        self._features.forget_untouched()
        return Slots(scored, [s.prompt_len for sequences in microbatches for s in sequences])
