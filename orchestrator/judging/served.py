"""What is served: a model that writes, or one that rewards; each reads a request, and answers many at once.

ChatRequest ──► read ──► Work ──► answers of all that waits, together ──► Reply
"""

import json
import math
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from algorithms.records import MediaRef
from orchestrator.cluster.feed import generate
from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.fields import said
from orchestrator.evaluation.benchmarks.items import Item
from orchestrator.evaluation.predictions import Prediction, digest_of
from orchestrator.evaluation.scorers.choice import ScorerKind
from orchestrator.evaluation.scorers.scorer import Scorer, why_unusable
from orchestrator.judging.chat import ChatRequest, Choice, Reply
from orchestrator.run.cursor import sample_seed
from workers.models.needs import max_positions
from workers.multimodal.instructions import texts
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, EncodedPrompt, GenerationRequest, Prompt

Work = TypeVar("Work")
_SEED_BITS = 48
_MOST_CHARS_OF_A_TOKEN = 64
"""Texts of more for every token that a model can hold are far from fitting, and are not tokenized to show it."""
_SIDE = 448
"""Of the images that the largest question is measured with, pixels."""


class Served(Protocol[Work]):
    """A model and how requests are put to it."""

    @property
    def config(self) -> TrainConfig:
        """See ``Scorer``."""
        ...

    @property
    def plan(self) -> PlacementPlan | None:
        """See ``Scorer``."""
        ...

    def read(self, request: ChatRequest, prompt: Prompt) -> Work:
        """What workers are asked.

        Args:
            prompt: The turns of the request, with a uid that no other request has.
        Raises:
            RefusedInput: the model cannot be asked this.
        """
        ...

    def opened(self, config: TrainConfig) -> AbstractContextManager[Callable[[Sequence[Work]], list[Reply]]]:
        """Workers, for as long as the block lasts; what they answer to some requests, in the order given."""
        ...


def served_of(kind: ScorerKind, scorer: Scorer, path: str, *, max_images: int) -> Served[Any]:
    """The model of a scorer, whose folder has been looked at.

    Args:
        path: Folder of the model, or of the adapter.
        max_images: Of a request.
    """
    if kind != "generative":
        return ServedRewarder(scorer, path, max_images=max_images)
    assert scorer.plan is not None, "engines are of the pool"
    return ServedWriter(scorer.config, scorer.plan, max_images=max_images)


class ServedWriter:
    """A model that writes, on engines of the pool."""

    def __init__(self, config: TrainConfig, plan: PlacementPlan, *, max_images: int) -> None:
        """
        Args:
            max_images: Of a request.
        """
        self.config, self.plan, self._max_images = config, plan, max_images
        self._encoder = prompt_encoder(config)
        self._max_tokens = _within(config.data.max_prompt_tokens + config.rollout.max_new_tokens, self._encoder)

    def read(self, request: ChatRequest, prompt: Prompt) -> list[GenerationRequest]:
        """One for each choice; see ``Served``."""
        _refuse_far_too_long(prompt, self._max_tokens)
        encoded = _encoded(self._encoder.encode, prompt)
        room = self._max_tokens - len(encoded.prompt_ids)
        unasked = max(1, min(room, self.config.rollout.max_new_tokens))
        wanted = request.max_completion_tokens or request.max_tokens or unasked
        if wanted > room:
            raise RefusedInput(
                f"the messages have {len(encoded.prompt_ids)} tokens and max_tokens is {wanted}: together more than "
                f"the {self._max_tokens} of this model's context"
            )
        seed = secrets.randbits(_SEED_BITS) if request.seed is None else request.seed
        return [
            GenerationRequest(
                uid=prompt.uid,
                sample_index=number,
                engine_prompt_ids=encoded.engine_prompt_ids,
                prompt_ids=encoded.prompt_ids,
                media=encoded.media,
                seed=sample_seed(seed, "", number, 0),
                max_new_tokens=wanted,
                temperature=request.temperature,
                top_p=request.top_p,
            )
            for number in range(request.n)
        ]

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Callable[[Sequence[list[GenerationRequest]]], list[Reply]]]:
        """See ``Served``."""
        spec = engine_spec(
            config,
            config.model.folder,
            self._encoder,
            max_model_len=self._max_tokens,
            max_images=self._max_images,
        )
        with worker_pool(config, self.plan, spec) as pool:
            engines = dict(enumerate(pool.role("rollout").actors))

            def answer(asked: Sequence[list[GenerationRequest]]) -> list[Reply]:
                every = [one for request in asked for one in request]
                written = iter(generate(engines, every, deadline_s=config.rollout.timeout_s))
                return [self._reply(request, [next(written) for _ in request]) for request in asked]

            yield answer

    def _reply(self, request: Sequence[GenerationRequest], written: Sequence[Completion]) -> Reply:
        return Reply(
            choices=tuple(Choice(self._encoder.decode(c.completion_ids), c.finish_reason) for c in written),
            prompt_tokens=len(request[0].prompt_ids),
            completion_tokens=sum(len(c.completion_ids) for c in written),
        )


class ServedRewarder:
    """A reward model: the last turn of a request is the response, and what it says ends in a line of JSON.

    ``{"reward": 0.25}``, or with ``null`` and ``"why"``; before it stands the critique, of a model that writes one.
    """

    def __init__(self, scorer: Scorer, path: str, *, max_images: int) -> None:
        """
        Args:
            path: Folder of the model, or of the adapter.
            max_images: Of a request.
        """
        self.config, self.plan = scorer.config, scorer.plan
        self._scorer, self._max_images = scorer, max_images
        self._encoder = prompt_encoder(scorer.config, path)
        asked = scorer.config.data.max_prompt_tokens + scorer.config.rollout.max_new_tokens
        self._max_tokens = _within(max(asked, scorer.config.policy.tokens_per_microbatch), self._encoder)

    def read(self, request: ChatRequest, prompt: Prompt) -> tuple[Asked, int]:
        """The question and its length in tokens; see ``Served``."""
        *before, last = prompt.messages
        if last["role"] != "assistant" or not before:
            raise RefusedInput("the last of several messages should be the assistant's: it is what is rewarded")
        if request.n != 1:
            raise RefusedInput(f"n = {request.n}: a reward model says one thing")
        _refuse_far_too_long(prompt, self._max_tokens)
        asked = replace(prompt, messages=tuple(before))
        encoded = _encoded(self._encoder.encode, asked)
        text = "".join(part["text"] for part in last["content"])
        item = _item(prompt.uid, text, prompt.media)
        return Asked(item, "", asked, (0,)), len(encoded.prompt_ids) + len(self._encoder.encode_target(text))

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Callable[[Sequence[tuple[Asked, int]]], list[Reply]]]:
        """See ``Served``."""
        blank = MediaRef(sha256="", path="", width=_SIDE, height=_SIDE)
        # What it says of the question does not count: workers are made for as many images.
        self._scorer.unusable([_item("largest", "", (blank,) * self._max_images)])
        with self._scorer.opened(config) as ask:

            def answer(works: Sequence[tuple[Asked, int]]) -> list[Reply]:
                told = {one.id: one for one in ask([asked for asked, _ in works])}
                return [self._reply(told[asked.item.id], length) for asked, length in works]

            yield answer

    def _reply(self, told: Prediction, prompt_tokens: int) -> Reply:
        (reward,) = told.rewards
        verdict = {"reward": reward} if not math.isnan(reward) else {"reward": None, "why": told.finish_reason}
        critique = told.text.removeprefix("1: ")
        lines = [*([critique] if critique else []), json.dumps(verdict)]
        return Reply(
            choices=(Choice("\n".join(lines), "stop"),),
            prompt_tokens=prompt_tokens,
            completion_tokens=len(self._encoder.encode_text(critique)),
        )


def _item(uid: str, response: str, media: tuple[MediaRef, ...]) -> Item:
    """A response to a conversation, which is asked as it stands and has no question of an item."""
    return Item(
        row=1,
        digest=digest_of(uid),
        id=uid,
        question=({"type": "image"},) * len(media),
        responses=(said(response),),
        media=media,
        options={},
        truths=(),
        category="",
        group="",
        meta={},
    )


def _within(tokens: int, encoder: PromptEncoder) -> int:
    """As many tokens, or what the model has positions for."""
    return min(tokens, max_positions(encoder.config) or tokens)


def _refuse_far_too_long(prompt: Prompt, max_tokens: int) -> None:
    length, most = sum(map(len, texts(prompt.messages))), max_tokens * _MOST_CHARS_OF_A_TOKEN
    if length > most:
        raise RefusedInput(
            f"the messages have {length} characters, at most {most} are read for the {max_tokens} tokens of this "
            f"model's context"
        )


def _encoded(encode: Callable[[Prompt], EncodedPrompt], prompt: Prompt) -> EncodedPrompt:
    try:
        return encode(prompt)
    except ValueError as error:
        raise RefusedInput(f"the messages cannot be asked: {why_unusable(error)}") from error
