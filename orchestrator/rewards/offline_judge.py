"""The reward model that an offline run asks about responses: one that writes critiques, or one that only scores."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.specs import model_spec
from orchestrator.config.schema import TrainConfig
from orchestrator.data.facts import META
from orchestrator.data.side_tables import Fingerprint, table_fingerprint
from orchestrator.data.store import PreferenceStore
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueReward, Question, checked, content_key
from orchestrator.rewards.critique_service import critique_judge, reward_fingerprint
from orchestrator.rewards.judge_service import scalar_judge
from orchestrator.rewards.scalar import ScalarJudge
from orchestrator.run.folder import RunFolder
from workers.scalar_reward import ScalarRewardSpec

_ASKED = "the response alone"


class OfflineJudge(Protocol):
    """Says what responses are worth."""

    def judge(self, questions: Sequence[Question]) -> list[CritiqueReward]:
        """An answer to each question, in the order given."""
        ...


class ScalarRewards:
    """A scalar reward model as an ``OfflineJudge``: its answers have a reward and no critique, and are kept."""

    def __init__(self, judge: ScalarJudge, cache: CritiqueCache, *, fingerprint: str) -> None:
        """
        Args:
            fingerprint: see ``content_key``.
        """
        self._judge, self._cache, self._fingerprint = judge, cache, fingerprint

    def judge(self, questions: Sequence[Question]) -> list[CritiqueReward]:
        """An answer to each; ``unfit`` is one that the model cannot read."""
        keys = [self._key(q) for q in questions]
        known = self._cache.get(dict.fromkeys(keys))
        unknown = {key: q for key, q in zip(keys, questions, strict=True) if key not in known}
        if unknown:
            told = self._judge.told([q.prompt for q in unknown.values()], [q.response for q in unknown.values()])
            fresh = {key: _scored(one) for key, one in zip(unknown, told, strict=True)}
            # What was too long here may fit elsewhere, and is found out for nothing.
            self._cache.put({key: one for key, one in fresh.items() if one.status != "unfit"})
            known |= fresh | self._cache.get(unknown)
        return [known[key] for key in keys]

    def _key(self, question: Question) -> str:
        prompt = question.prompt
        read = [prompt.messages, list(prompt.meta.get(META, ()))]
        return content_key(self._fingerprint, read, [m.sha256 for m in prompt.media], question.response)


def _scored(told: float | str) -> CritiqueReward:
    reward, status = (None, "unfit") if isinstance(told, str) else checked(told)
    return CritiqueReward(reward=reward, critique="", num_tokens=0, status=status)


def judge_fingerprint(config: TrainConfig, store: PreferenceStore, model: str) -> Fingerprint:
    """What the rewards of a store's responses depend on."""
    if config.judge_role == "critique_reward":
        return reward_fingerprint(config, store, model)
    return table_fingerprint(config, store.manifest.fingerprint, model, asked=_ASKED)


@contextmanager
def offline_judge(
    config: TrainConfig, folder: RunFolder, store: PreferenceStore, model: str, *, max_images: int
) -> Iterator[OfflineJudge]:
    """A judge with workers of its own, for as long as the block lasts.

    Args:
        store: Any of those that it is asked about.
        model: Folder of the reward model.
        max_images: Most images of a prompt.
    """
    if config.judge_role == "critique_reward":
        fingerprint = reward_fingerprint(config, store, model)
        with critique_judge(config, folder, model, fingerprint, max_images=max_images) as judge:
            yield judge
        return
    # The store it names does not matter: equal questions get equal answers.
    content = judge_fingerprint(config, store, model).parts() | {"store": None}
    with (
        worker_pool(config, single_role_plan(config, config.judge_role), None) as pool,
        CritiqueCache(folder.root / "scores.sqlite") as cache,
    ):
        workers, most = pool.role(config.judge_role), config.policy.tokens_per_microbatch
        workers.start(ScalarRewardSpec(model=model_spec(config, model)))
        judge_of = scalar_judge(config, workers, model, weight=math.nan, most_tokens=most)
        yield ScalarRewards(judge_of, cache, fingerprint=json.dumps(content, sort_keys=True))
