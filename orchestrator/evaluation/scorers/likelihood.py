"""How likely a model finds each of some responses: the mean log-prob of their tokens, by the workers of a reference."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import model_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.scorers.responses import Rewarded, responses_of, rewarded, unusable_rows
from orchestrator.evaluation.scorers.scorer import Ask
from workers.models.digests import model_digests
from workers.models.needs import max_positions
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt


class LikelihoodScorer:
    """A model that writes, and is not asked to."""

    def __init__(self, config: TrainConfig, plan: PlacementPlan) -> None:
        """
        Args:
            config: ``model.path`` is the model.
            plan: Has the role ``reference``.
        """
        self.asks: Asks = "likelihoods"
        self.config, self.plan = config, plan
        self._encoder = prompt_encoder(config)
        positions = max_positions(self._encoder.config)
        self._most = min(config.policy.tokens_per_microbatch, positions or config.policy.tokens_per_microbatch)

    def made_from(self) -> dict[str, object]:
        """Weights, number format, and the bounds of what it reads."""
        return {
            "model": dict(model_digests(self.config.model.folder)),
            "max_pixels": self.config.data.resized_above,
            "dtype": self.config.model.dtype,
            "most_tokens": self._most,
        }

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Rows whose prompt the processor does not take, or whose responses hold images."""
        return unusable_rows(items, self._encoder.encode)

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Ask]:
        """Workers that have the model."""
        with worker_pool(config, self.plan, None) as pool:
            workers = pool.role("reference")
            workers.start(model_spec(config, config.model.folder))

            def ask(asked: Sequence[Asked]) -> list[Prediction]:
                made = sequences(self._encoder, *responses_of(asked))
                fit = [one for one in made if len(one.input_ids) <= self._most]
                scored = iter(workers.each("score", fit, deadline_s=config.rollout.timeout_s) if fit else ())
                return rewarded(asked, [self._said(one, scored) for one in made])

            yield ask

    def _said(self, sequence: TokenSequence, scored: Iterator[np.ndarray]) -> Rewarded:
        length = len(sequence.input_ids)
        if length > self._most:
            return Rewarded(float("nan"), why=f"it has {length} tokens, more than {self._most}")
        return Rewarded(float(next(scored)[sequence.prompt_len :].astype(np.float64).mean()))


def sequences(encoder: PromptEncoder, prompts: Sequence[Prompt], texts: Sequence[str]) -> list[TokenSequence]:
    """Each prompt with its text behind it; no end of turn, which would count as a word of the text.

    Source: VL-RLHF, eval/utils.py:85-120, a mean over the tokens of the response.
    """
    found = []
    for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True)):
        encoded = encoder.encode(prompt)
        found.append(
            TokenSequence(
                uid=prompt.uid,
                sample_index=index,
                input_ids=np.array((*encoded.prompt_ids, *encoder.encode_text(text)), np.int64),
                prompt_len=len(encoded.prompt_ids),
                media=encoded.media,
            )
        )
    return found
