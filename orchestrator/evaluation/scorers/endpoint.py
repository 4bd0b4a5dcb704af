"""A model behind an OpenAI-compatible endpoint as the scorer: asked over HTTP, as a judge of rewards is.

Pictures stand where they stand in the item. Every sample has the seed that an engine here would give it. A question
without an answer is a prediction that failed, which the next call asks again; nothing stands in for it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import GuardStop
from orchestrator.evaluation.benchmarks.asking import Asked, AskOptions
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.scorers.scorer import Ask
from orchestrator.rewards.asking import Answer, Question, outage
from orchestrator.rewards.endpoint import EndpointWriter
from orchestrator.run.cursor import sample_seed


class EndpointScorer:
    """One model at one address."""

    def __init__(self, config: TrainConfig, options: AskOptions, *, asks: Asks, url: str, key: str | None) -> None:
        """
        Args:
            config: ``model.path`` is the name that the model is served under.
        """
        self.config, self._options = config, options
        self.asks: Asks = asks
        self.plan: PlacementPlan | None = None
        self._url, self._key = url, key

    def made_from(self) -> dict[str, object]:
        """Its name and how it is asked; not the address, which may change."""
        options = self._options
        return {
            "model": self.config.model.folder,
            "scorer": "endpoint",
            "temperature": options.temperature,
            "seed": options.seed,
            "max_new_tokens": options.max_new_tokens,
        }

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Nobody here knows what it takes; a question that it refuses has no answer."""
        return []

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Ask]:
        """A client of it."""
        writer = EndpointWriter(
            self._url,
            config.model.folder,
            key=self._key,
            max_new_tokens=self._options.max_new_tokens,
            timeout_s=config.reward.timeout_s,
            max_outage_s=config.reward.max_outage_s,
        )
        told = set[str]()

        def ask(asked: Sequence[Asked]) -> list[Prediction]:
            wanted = [(one, number) for one in asked for number in one.samples]
            answers = writer.write([question_of(one, number, self._options) for one, number in wanted])
            for name in sorted(writer.left_out - told):
                sys.stderr.write(f"the endpoint refuses {name}: it is asked without\n")
            told.update(writer.left_out)
            if (fault := outage(answers)) is not None:
                raise GuardStop(f"the endpoint answered none of {len(answers)} questions: {fault}")
            return [_prediction(*one, answer) for one, answer in zip(wanted, answers, strict=True)]

        yield ask


def question_of(asked: Asked, number: int, options: AskOptions) -> Question:
    """One sample that is wanted of a prompt; the first is greedy."""
    prompt, before, words = asked.prompt, list[str](), ""
    for part in prompt.messages[0]["content"]:
        if part["type"] == "text":
            words += part["text"]
        else:
            before.append(words)
            words = ""
    return Question(
        prompt.uid,
        prompt.media,
        words,
        before=tuple(before),
        temperature=options.temperature if number else 0.0,
        seed=sample_seed(options.seed, prompt.uid, number, 0),
    )


def _prediction(asked: Asked, number: int, answer: Answer) -> Prediction:
    if answer.text is None:
        return asked.prediction(number, status="failed", finish_reason=answer.fault)
    return asked.prediction(number, text=answer.text, finish_reason=answer.finish_reason)
