"""A critique reward model as the scorer: it writes of each response before it says what that is worth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from orchestrator.cluster.choices import engine_kind
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.scorers.responses import Rewarded, responses_of, rewarded, unusable_rows
from orchestrator.evaluation.scorers.scorer import Ask
from orchestrator.rewards.critique_judge import CritiqueReward, Question
from orchestrator.rewards.critique_service import critique_judge, critique_limits, known_request, reward_fingerprint
from orchestrator.run.folder import RunFolder
from workers.models.digests import model_digests
from workers.multimodal.critique_format import CritiqueFormat


class CritiqueScorer:
    """A model that a run of ``critique_rm`` left."""

    def __init__(self, config: TrainConfig, plan: PlacementPlan, folder: RunFolder) -> None:
        """
        Args:
            config: ``model.path`` is the model.
            plan: Has the role ``critique_reward``.
            folder: Keeps the critiques, unless ``reward.critique.cache_path`` does.
        Raises:
            RefusedInput: a critique may be as long as the model's whole context.
        """
        self.asks: Asks = "rewards"
        self.config, self.plan, self._folder = config, plan, folder
        self._limits = critique_limits(config, config.model.folder)
        self._max_images = 0

    def made_from(self) -> dict[str, object]:
        """Weights, number format, engine, what it is asked, and how long a critique may be."""
        model = self.config.model.folder
        return {
            "model": dict(model_digests(model)),
            "request": known_request(model),
            **asdict(self._limits),
            "max_pixels": self.config.data.resized_above,
            "dtype": self.config.model.dtype,
            "engine": engine_kind(self.config, model),
        }

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Rows whose prompt the processor does not take, or whose responses hold images."""
        self._max_images = max((len(item.media) for item in items), default=0)
        spelling = CritiqueFormat(prompt_encoder(self.config), known_request(self.config.model.folder))
        return unusable_rows(items, lambda prompt: spelling.ask(prompt, ""))

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Ask]:
        """Workers that write and reward, for as many images as ``unusable`` has seen."""
        model = config.model.folder
        fingerprint = reward_fingerprint(config, None, model)
        with critique_judge(config, self._folder, model, fingerprint, max_images=self._max_images) as judge:

            def ask(asked: Sequence[Asked]) -> list[Prediction]:
                questions = [Question(p, text) for p, text in zip(*responses_of(asked), strict=True)]
                return rewarded(asked, map(_said, judge.judge(questions)))

            yield ask


def _said(answer: CritiqueReward) -> Rewarded:
    if answer.reward is None:
        return Rewarded(float("nan"), answer.critique, why=answer.status)
    return Rewarded(answer.reward, answer.critique)
