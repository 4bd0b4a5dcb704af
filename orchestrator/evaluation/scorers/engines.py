"""The rollout role of the pool as the scorer: any number of engines, that write answers or verdicts.

Every prompt is encoded once before engines are started: their lengths size the engines. Every sample has a seed of its
own, made of the run's seed and the item's row, order and number: a run that was cut gets what it would have got.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from orchestrator.cluster.choices import engine_kind
from orchestrator.cluster.feed import generate
from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import engine_spec
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked, AskOptions, asked_of
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.scorers.encoded_once import EncodedOnce
from orchestrator.evaluation.scorers.scorer import Ask, why_unusable
from orchestrator.run.cursor import sample_seed
from workers.models.digests import model_digests
from workers.models.needs import max_positions
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, EncodedPrompt, GenerationRequest, Prompt


class Encoder(Protocol):
    """Prompts in token ids."""

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        """See ``PromptEncoder``."""
        ...


class Decoder(Protocol):
    """And back."""

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """See ``PromptEncoder``."""
        ...


class EngineScorer:
    """A model that writes, on engines of the pool."""

    def __init__(
        self, config: TrainConfig, plan: PlacementPlan, encoder: PromptEncoder, options: AskOptions, *, asks: Asks
    ) -> None:
        """
        Args:
            config: ``model.path`` is the model.
            plan: Has the rollout role.
        """
        self.config, self.plan = config, plan
        self._encoder, self._options = encoder, options
        self._once = EncodedOnce(encoder)
        self._asks: Asks = asks
        self._needs: Lengths | None = None

    @property
    def asks(self) -> Asks:
        """As the benchmark does."""
        return self._asks

    def made_from(self) -> dict[str, object]:
        """Weights, number format, engine, and how it is asked."""
        model, options = self.config.model.folder, self._options
        return {
            "model": dict(model_digests(model)),
            "temperature": options.temperature,
            "seed": options.seed,
            "max_new_tokens": options.max_new_tokens,
            "max_pixels": self.config.data.resized_above,
            "dtype": self.config.model.dtype,
            "engine": engine_kind(self.config, model),
        }

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Rows whose prompt the processor does not take, or is too long."""
        most = max_positions(self._encoder.config)
        self._needs = lengths(items, self._options, self._once, asks=self._asks, most=most)
        return list(self._needs.unusable)

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Ask]:
        """Engines for prompts as long as those that ``unusable`` has seen."""
        assert self._needs is not None, "prompts are looked at before engines are started"
        spec = engine_spec(
            config,
            config.model.folder,
            self._encoder,
            max_model_len=self._needs.longest + self._options.max_new_tokens,
            max_images=self._needs.max_images,
        )
        with worker_pool(config, self.plan, spec) as pool:
            engines = dict(enumerate(pool.role("rollout").actors))

            def ask(asked: Sequence[Asked]) -> list[Prediction]:
                wanted = requests(asked, self._options, self._once)
                written = generate(engines, wanted, deadline_s=config.rollout.timeout_s)
                return predictions(asked, written, self._encoder)

            yield ask


@dataclass(frozen=True, slots=True)
class Lengths:
    """What the prompts of some items ask of an engine."""

    longest: int
    """Tokens of the longest prompt, as a model's forward sees it."""
    max_images: int
    unusable: tuple[tuple[int, str], ...]
    """Rows that cannot be asked, with the reason."""


def lengths(items: Sequence[Item], options: AskOptions, encoder: Encoder, *, asks: Asks, most: int | None) -> Lengths:
    """What prompts of these items ask of an engine, each encoded.

    Args:
        most: Tokens that prompt and answer may have together.
    """
    longest, images, unusable = 0, 0, list[tuple[int, str]]()
    for item in items:
        try:
            encoded = [encoder.encode(one.prompt) for one in asked_of(item, asks, options)]
        except ValueError as error:
            unusable.append((item.row, why_unusable(error)))
            continue
        tokens = max(len(one.prompt_ids) for one in encoded)
        if most is not None and tokens + options.max_new_tokens > most:
            unusable.append(
                (item.row, f"{tokens} tokens and an answer of {options.max_new_tokens} are more than {most}")
            )
            continue
        longest, images = max(longest, tokens), max(images, *(len(one.media) for one in encoded))
    return Lengths(longest, images, tuple(unusable))


def requests(asked: Sequence[Asked], options: AskOptions, encoder: Encoder) -> list[GenerationRequest]:
    """One for each sample that is wanted; the first is greedy.

    Raises:
        UnusablePrompt: an item that ``lengths`` names.
    """
    return [
        GenerationRequest(
            uid=encoded.uid,
            sample_index=number,
            engine_prompt_ids=encoded.engine_prompt_ids,
            prompt_ids=encoded.prompt_ids,
            media=encoded.media,
            seed=sample_seed(options.seed, encoded.uid, number, 0),
            max_new_tokens=options.max_new_tokens,
            temperature=options.temperature if number else 0.0,
        )
        for one in asked
        for encoded in (encoder.encode(one.prompt),)
        for number in one.samples
    ]


def predictions(asked: Sequence[Asked], written: Sequence[Completion], decoder: Decoder) -> list[Prediction]:
    """What engines wrote, each with the item and order that it is about."""
    by_uid = {one.prompt.uid: one for one in asked}
    return [
        by_uid[completion.uid].prediction(
            completion.sample_index,
            text=decoder.decode(completion.completion_ids),
            finish_reason=completion.finish_reason,
        )
        for completion in written
    ]
