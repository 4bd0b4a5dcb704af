"""Engines that say what they are told to, for commands whose workers are not what is tested."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest


class StandInEngines:
    """Stands in for Ray, the pool and its engines; says the same to every prompt, or what a function makes of it."""

    def __init__(self, patch: pytest.MonkeyPatch, model: Path, says: str | Callable[[GenerationRequest], str]) -> None:
        self._encoder, self._says = PromptEncoder(model), says
        self.num_asked, self.num_started, self.prompts = 0, 0, list[str]()
        scorers = "orchestrator.evaluation.scorers"
        patch.setattr(f"{scorers}.scorer.ray_cluster", self._nothing)
        patch.setattr(f"{scorers}.engines.worker_pool", self._pool)
        patch.setattr(f"{scorers}.engines.generate", self._generate)

    @contextmanager
    def _nothing(self, plan: object) -> Iterator[None]:
        yield

    @contextmanager
    def _pool(self, config: object, plan: object, spec: object) -> Iterator[SimpleNamespace]:
        self.num_started, self.spec = self.num_started + 1, spec
        yield SimpleNamespace(role=lambda name: SimpleNamespace(actors=[name]))

    def _generate(
        self, engines: dict[int, Any], requests: Sequence[GenerationRequest], *, deadline_s: float
    ) -> list[Completion]:
        assert engines == {0: "rollout"}
        self.num_asked += len(requests)
        self.prompts += [self._encoder.tokenizer.decode(r.engine_prompt_ids) for r in requests]
        return [self._completion(r) for r in requests]

    def _completion(self, request: GenerationRequest) -> Completion:
        says = self._says if isinstance(self._says, str) else self._says(request)
        ids = np.array(self._encoder.encode_text(says), dtype=np.int32)
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=ids,
            rollout_logprobs=np.zeros(len(ids), dtype=np.float32),
            finish_reason="stop",
            policy_version=0,
            engine="e",
        )
