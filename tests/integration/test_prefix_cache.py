"""The samples of a prompt are requests of their own, and an engine computes what they share once: vLLM's own count."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.feed import build_requests
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.pools import engine_spec
from workers.actor_base import WorkerBase
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec
from workers.rollout.vllm_rollout import VllmEngine
from workers.rollout.worker import RolloutWorker
from workers.types import Completion

pytestmark = pytest.mark.integration


class _Counting(VllmEngine):
    """Notes how many tokens of each request's prompt were there already."""

    def __init__(self, name: str, spec: EngineSpec) -> None:
        super().__init__(name, spec)
        self.found: dict[int, int] = {}

    def _completion(self, output: Any) -> Completion:
        completion = super()._completion(output)
        self.found[completion.sample_index] = output.num_cached_tokens
        return completion


class CountingRollout(RolloutWorker):
    """An actor around it."""

    def __init__(self, *, spec: EngineSpec) -> None:
        WorkerBase.__init__(self, num_threads=1)
        self._engine = _Counting("counting", spec)

    def found(self) -> dict[int, int]:
        engine: Any = self._engine
        return engine.found

    def compiled(self) -> int:
        """How many functions torch has compiled."""
        from torch._dynamo.utils import counters  # deferred: of the engine's process

        return counters["frames"]["total"]


def test_all_samples_of_a_prompt_but_the_first_find_it_computed(
    cluster: None, random_model: Path, digits: DigitsPaths
) -> None:
    file = digits.held_out
    source = SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=None, video_frames=1)
    prompt = PromptEncoder(random_model).encode(read_prompts(source).prompts[0])
    words = (prompt.prompt_ids[-1],) * 60
    prompt = replace(prompt, engine_prompt_ids=prompt.engine_prompt_ids + words, prompt_ids=prompt.prompt_ids + words)
    requests = build_requests(
        [prompt], samples_per_prompt=6, seed_of=lambda uid, index: index, max_new_tokens=8, temperature=1.0, top_p=1.0
    )
    actor_class: Any = ray.remote(CountingRollout)
    options = {"num_cpus": 0, "runtime_env": {"env_vars": worker_environment(1, gpu=False)}}
    engine = actor_class.options(**options).remote(spec=engine_spec(random_model))
    ray.get(engine.submit.remote(requests))
    done: list[Completion] = []
    while len(done) < len(requests):
        done += ray.get(engine.collect.remote(1.0))
    found, compiled = ray.get([engine.found.remote(), engine.compiled.remote()])
    ray.kill(engine)
    # Whole blocks of 32 tokens.
    whole = (len(prompt.prompt_ids) - 1) // 32 * 32
    assert whole >= 64
    assert [found[index] for index in range(6)] == [0, *[whole] * 5]
    assert compiled == 0, "on a CPU it costs every engine seconds, and nobody asks for what it computes"
