"""The frozen reference: scores sequences under the weights the run started from."""

from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch

from workers.actor_base import WorkerBase
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.types import Sequence


class ReferenceWorker(WorkerBase):
    """A whole model on one device; exists only while the KL coefficient is above zero."""

    def __init__(self, *, spec: ModelSpec, num_threads: int, name: str | None = None, board: Any = None) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, _ = load_model(spec)
        self._module = PolicyModule(model.to(self._device), vision_keepalive=False).requires_grad_(False)
        self._collate = Collator(spec.path, dtype=spec.torch_dtype, trust_remote_code=spec.trust_remote_code)

    def score(self, microbatches: Seq[Seq[Sequence]]) -> list[np.ndarray]:
        """Reference log-probs: one float32 ``[T]`` array per sequence, in the order given."""
        scored: list[np.ndarray] = []
        with torch.no_grad():
            for sequences in microbatches:
                batch = self._collate(sequences)
                logprobs, _ = self._module(
                    batch.input_ids.to(self._device),
                    batch.attention_mask.to(self._device),
                    batch.action_mask.to(self._device),
                    {key: value.to(self._device) for key, value in batch.mm_inputs.items()},
                    {},
                )
                rows = logprobs.float().cpu().numpy()
                scored.extend(rows[i, :length].copy() for i, length in enumerate(batch.lengths))
        return scored
