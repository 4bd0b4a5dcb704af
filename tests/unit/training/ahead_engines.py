"""Engines that answer by seed alone, each answer as long as its name says, and that can be lost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from orchestrator.cluster.engines import NoEngineLeft
from orchestrator.cluster.sync import SyncResult
from orchestrator.run.cursor import sample_seed
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest


class SeededEngines:
    """Tokens are drawn from ``words`` by the request's seed; when an answer ends is a function of its name."""

    def __init__(
        self, words: Sequence[int], length_of: Callable[[str, int], int], *, prompt_lens: Mapping[str, int]
    ) -> None:
        """
        Args:
            length_of: Tokens of the answer that a prompt's sample comes to.
            prompt_lens: Tokens of each prompt: what a request has beyond them is drawn already.
        """
        self._words, self._length_of, self._prompt_lens = list(words), length_of, prompt_lens
        self.version = 0
        self.num_restarts = 0
        self.asked: list[tuple[str, int, int, int, int]] = []
        """Name, index, tokens drawn, seed and version of every request."""
        self.probed: list[tuple[set[str], set[str]]] = []
        """Names that every sync was proved with, and those asked since caches were emptied before it."""
        self._empty_at = 0
        self.lost_after: int | None = None
        """Answers that come back before the next sampling beside the policy loses all engines; None loses none."""

    def sync(self, policy_version: int, probe: Sequence[EncodedPrompt]) -> SyncResult:
        self.version = policy_version
        self.probed.append(({prompt.uid for prompt in probe}, {name for name, *_ in self.asked[self._empty_at :]}))
        return SyncResult(policy_version=policy_version, seconds=0.0, digest="ab" * 32, probe_gap=0.0)

    def sample(self, requests: Sequence[GenerationRequest], *, on_finished: Any = lambda arrived: None) -> Completions:
        order = sorted(requests, key=lambda r: sample_seed(1, r.uid, r.sample_index, 0))  # in no order of the caller's
        found = {(r.uid, r.sample_index): self._answer(r) for r in order}
        for completion in found.values():
            on_finished(Completions.of([completion]))
        return Completions.of(found[r.uid, r.sample_index] for r in requests)

    def sample_meanwhile(
        self, requests: Sequence[GenerationRequest], *, on_finished: Any, is_wanted: Callable[[], bool]
    ) -> None:
        if self.lost_after is None:
            self.sample(requests, on_finished=on_finished)
            return
        back, self.lost_after = requests[: self.lost_after], None
        self.sample(back, on_finished=on_finished)
        raise NoEngineLeft

    def make_ready(self) -> None:
        self._empty_at = len(self.asked)

    def sleep(self) -> None: ...

    def _answer(self, request: GenerationRequest) -> Completion:
        name = request.uid.partition("~")[0]
        drawn = len(request.prompt_ids) - self._prompt_lens.get(name, len(request.prompt_ids))
        self.asked.append((request.uid, request.sample_index, drawn, request.seed, self.version))
        left = self._length_of(name, request.sample_index) - drawn
        tokens = min(left, request.max_new_tokens)
        rng = np.random.Generator(np.random.Philox(request.seed))
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=rng.choice(self._words, tokens).astype(np.int32),
            rollout_logprobs=-rng.random(tokens).astype(np.float32),
            finish_reason="stop" if tokens == left else "length",
            policy_version=self.version,
            engine="seeded",
        )
