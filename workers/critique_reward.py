"""The critique reward worker: an engine writes critiques, and the model with its scalar head reads rewards off them.

Engine and model are two copies of the same weights. Responses of one instruction share its prompt and its images in
both: in the engine by its prefix and encoder caches, in the model by the packed row.
"""

import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from algorithms.records import Sequence
from workers.actor_base import WorkerBase
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import CritiqueRewardModule
from workers.models.reward_head import load_reward_head
from workers.multimodal.collate import Collator
from workers.rollout.spec import EngineSpec
from workers.rollout.worker import build_engine
from workers.types import Completion, GenerationRequest

_COLLECT_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueRewardSpec:
    """What a critique reward worker needs to start."""

    engine: EngineSpec
    timeout_s: float
    """Longest time in which the engine finishes nothing, seconds."""

    @property
    def model(self) -> ModelSpec:
        """How the model with the head is loaded: from the engine's own folder."""
        return self.engine.model


class CritiqueRewardWorker(WorkerBase):
    """A frozen critique reward model on one device."""

    def __init__(self, *, spec: CritiqueRewardSpec, num_threads: int, name: str, board: Any = None) -> None:
        super().__init__(num_threads=num_threads, name=name, board=board)
        self._spec = spec
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model, _ = load_model(spec.model)
        head = load_reward_head(
            Path(spec.model.path), model.config.get_text_config().hidden_size, dtype=spec.model.torch_dtype
        )
        module = CritiqueRewardModule(model, head, lockstep=False)
        self._module = module.to(self._device).requires_grad_(False)
        self._collate = Collator.of(spec.model)
        self._engine = build_engine(name, spec.engine)

    def write(self, microbatches: Seq[Seq[GenerationRequest]]) -> list[Completion]:
        """A critique for each request, in the order given; the engine makes batches of its own.

        Raises:
            RuntimeError: the engine has finished nothing for ``timeout_s``.
        """
        requests = [request for batch in microbatches for request in batch]
        self._engine.submit(requests)
        written: dict[tuple[str, int], Completion] = {}
        last = time.monotonic()
        while len(written) < len(requests):
            done = self._engine.collect(_COLLECT_S)
            written |= {(c.uid, c.sample_index): c for c in done}
            if done:
                last = time.monotonic()
            if time.monotonic() - last > self._spec.timeout_s:
                raise RuntimeError(f"no critique finished within {self._spec.timeout_s:g} s")
        return [written[r.uid, r.sample_index] for r in requests]

    def rewards(self, microbatches: Seq[Seq[Sequence]]) -> list[float]:
        """The reward of each sequence, read at its last token, in the order given."""
        rewards: list[float] = []
        with torch.no_grad():
            for sequences in microbatches:
                rewards += self._module(self._collate(sequences).to(self._device)).rewards.tolist()
        self._collate.forget_untouched()
        return rewards
