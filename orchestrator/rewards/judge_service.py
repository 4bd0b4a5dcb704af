"""The judge of pairs on workers of the run's own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.rewards.pairwise import PairwiseJudge, PairwiseSettings
from workers.models.needs import max_positions
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt
from workers.writing import WritingSpec


@contextmanager
def pairwise_judge(config: TrainConfig, pool: WorkerPool, prompts: Sequence[Prompt]) -> Iterator[PairwiseJudge | None]:
    """Who compares the samples of a prompt in this run; None where nobody does.

    Args:
        prompts: All that may be asked about.
    """
    reward, path = config.reward, config.reward.judge_path
    if path is None or reward.pairwise_weight is None:
        yield None
        return
    encoder = prompt_encoder(config, path)
    length = _max_model_len(config, encoder)
    images = max((len(p.media) for p in prompts), default=0)
    engine = engine_spec(config, path, encoder, max_model_len=length, max_images=images)
    workers = pool.role("judge")
    # One on each device; it keeps its weights.
    workers.start(WritingSpec(engine=replace(engine, tensor_parallel_size=1), timeout_s=config.rollout.timeout_s))
    settings = PairwiseSettings(
        weight=reward.pairwise_weight,
        request=reward.judge_request,
        max_pairs=reward.max_pairs,
        max_new_tokens=reward.judge_max_new_tokens,
        max_model_len=length,
        shuffled=reward.judge_images == "shuffled",
        seed=config.run.seed,
        deadline_s=config.rollout.timeout_s,
    )
    yield PairwiseJudge(workers, encoder, settings, strangers=prompts if settings.shuffled else ())


def _max_model_len(config: TrainConfig, encoder: PromptEncoder) -> int:
    positions = max_positions(encoder.config)
    budget = config.data.max_prompt_tokens + 2 * config.rollout.max_new_tokens + config.reward.judge_max_new_tokens
    return budget if positions is None else min(budget, positions)
