"""A scalar reward model as the scorer: frozen, on the role of the same name, each response read once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import model_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.evaluation.benchmarks.asking import Asked
from orchestrator.evaluation.benchmarks.items import Asks, Item
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.scorers.responses import Rewarded, responses_of, rewarded, unusable_rows
from orchestrator.evaluation.scorers.scorer import Ask
from orchestrator.rewards.judge_service import scalar_judge
from workers.models.digests import model_digests
from workers.scalar_reward import ScalarRewardSpec


class ScalarScorer:
    """A model with a head, or an adapter that has one beside it."""

    def __init__(self, config: TrainConfig, plan: PlacementPlan, path: str) -> None:
        """
        Args:
            config: ``model.path`` is the model, or the base of the adapter.
            plan: Has the role ``scalar_reward``.
            path: Folder of the model, or of the adapter.
        """
        self.asks: Asks = "rewards"
        self.config, self.plan, self._path = config, plan, path

    def made_from(self) -> dict[str, object]:
        """Weights, those of the base beside an adapter's, number format, and the bounds of what it reads."""
        digests = {path: model_digests(path) for path in dict.fromkeys((self._path, self.config.model.folder))}
        own, *base = digests.values()
        return {
            "model": dict(own),
            "base": [dict(one) for one in base],
            "max_pixels": self.config.data.resized_above,
            "dtype": self.config.model.dtype,
            "tokens_per_microbatch": self.config.policy.tokens_per_microbatch,
        }

    def unusable(self, items: Sequence[Item]) -> list[tuple[int, str]]:
        """Rows whose prompt the processor does not take, or whose responses hold images."""
        return unusable_rows(items, prompt_encoder(self.config, self._path).encode)

    @contextmanager
    def opened(self, config: TrainConfig) -> Iterator[Ask]:
        """Workers that have the model."""
        with worker_pool(config, self.plan, None) as pool:
            workers = pool.role("scalar_reward")
            workers.start(ScalarRewardSpec(model=model_spec(config, self._path)))
            most = config.policy.tokens_per_microbatch
            judge = scalar_judge(config, workers, self._path, weight=1.0, most_tokens=most)

            def ask(asked: Sequence[Asked]) -> list[Prediction]:
                return rewarded(asked, map(_said, judge.told(*responses_of(asked))))

            yield ask


def _said(told: float | str) -> Rewarded:
    if isinstance(told, str):
        return Rewarded(float("nan"), why=told)
    return Rewarded(told, why="" if abs(told) < float("inf") else f"its reward is {told}")
