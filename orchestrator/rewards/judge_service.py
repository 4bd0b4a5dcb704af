"""The judges of ``reward.functions`` that write, on workers of the run's own or at an endpoint."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.facts import META
from orchestrator.errors import RefusedInput
from orchestrator.rewards.asking import Pictures, SampleJudge, Writer
from orchestrator.rewards.check import secret_in
from orchestrator.rewards.pairwise import PairwiseJudge, PairwiseSettings
from orchestrator.rewards.remembered import RememberedWriter
from orchestrator.rewards.rubric import RubricJudge, RubricSettings, rubric_text
from orchestrator.rewards.scalar import RewardWorkers, ScalarJudge
from orchestrator.rewards.workers_writer import WorkersWriter
from orchestrator.run.folder import RunFolder
from workers.models.folder import scored_after
from workers.models.needs import max_positions
from workers.multimodal.fact_format import fact_format
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt
from workers.writing import WritingSpec

_PROBES = 3
_PROBED_FOR_S = 30.0
_LABEL = "{label}"


@contextmanager
def sample_judges(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, prompts: Sequence[Prompt]
) -> Iterator[tuple[SampleJudge, ...]]:
    """Who judges the samples of a prompt in this run, beside the reward service; nobody in most.

    Args:
        prompts: All that may be asked about.
    """
    reward, numbers = config.reward, _scalar(config, pool)
    if reward.rubric_weight is None and reward.pairwise_weight is None:
        yield numbers
    elif reward.judge_path is not None:
        yield (*numbers, *_judges(config, _workers(config, reward.judge_path, pool, prompts), prompts))
    else:
        asked, judge = endpoint(config, reward.max_outage_s), f"{reward.judge_model} {reward.judge_max_new_tokens}"
        with RememberedWriter(asked, folder.root / "answers.sqlite", judge=judge) as writer:
            yield (*numbers, *_judges(config, writer, prompts))


def check_sample_judges(config: TrainConfig, prompts: Sequence[Prompt]) -> None:
    """Refuse an endpoint that does not answer about these prompts, or not readably; and what a judge cannot be told.

    Raises:
        RefusedInput: in one sentence.
    """
    reward = config.reward
    unlabelled = [prompt.uid for prompt in prompts if prompt.label is None]
    if reward.rubric_weight is not None and _LABEL in reward.judge_rubric and unlabelled:
        raise RefusedInput(
            f"reward.judge_rubric holds {_LABEL}, but {len(unlabelled)} of {len(prompts)} rows have no label; the "
            f"first is row {unlabelled[0]}"
        )
    _check_facts(config, prompts)
    asked = reward.rubric_weight is not None or reward.pairwise_weight is not None
    if not asked or reward.judge_url is None:
        return
    writer = endpoint(config, min(_PROBED_FOR_S, reward.max_outage_s))
    for judge in _judges(config, writer, prompts):
        if (fault := judge.fault(prompts[:_PROBES])) is not None:
            refused = "HTTP 4" in fault and "image" in fault
            blind = ". For a model that takes no images set reward.judge_images = 'none'" if refused else ""
            raise RefusedInput(f"reward.judge_url does not serve: {fault}{blind}")


def scalar_judge(
    config: TrainConfig,
    workers: RewardWorkers,
    path: str,
    *,
    weight: float,
    cut: float | None = None,
    most_tokens: int | None = None,
) -> ScalarJudge:
    """The scalar reward model in the folder ``path``, on workers that have it.

    Args:
        cut: see ``of_cut``.
        most_tokens: Bounds what it reads beside its positions; None bounds nothing.
    """
    encoder = prompt_encoder(config, path)
    bounds = [bound for bound in (max_positions(encoder.config), most_tokens) if bound is not None]
    return ScalarJudge(
        workers,
        encoder,
        weight=weight,
        max_tokens=min(bounds, default=None),
        deadline_s=config.rollout.timeout_s,
        cut=cut,
        facts=fact_format(encoder, *scored_after(Path(path))),
    )


def _scalar(config: TrainConfig, pool: WorkerPool) -> tuple[SampleJudge, ...]:
    path, weight = config.reward.scalar_path, config.reward.scalar_weight
    if path is None or weight is None:
        return ()
    return (scalar_judge(config, pool.role("scalar_reward"), path, weight=weight, cut=config.reward.scalar_cut),)


def _check_facts(config: TrainConfig, prompts: Sequence[Prompt]) -> None:
    path = config.reward.scalar_path
    if path is None or scored_after(Path(path))[1] is None:
        return
    untold = [prompt.uid for prompt in prompts if not prompt.meta.get(META)]
    if untold:
        raise RefusedInput(
            f"reward.scalar_path {path!r} is told facts, but {len(untold)} of {len(prompts)} rows have none; the first "
            f"is row {untold[0]}: give them in the rows, or by data.facts"
        )


def _judges(config: TrainConfig, writer: Writer, prompts: Sequence[Prompt]) -> tuple[SampleJudge, ...]:
    reward, seed = config.reward, config.run.seed
    pictures = Pictures(reward.judge_images, among=prompts, seed=seed)
    judges: list[SampleJudge] = []
    if reward.rubric_weight is not None:
        judges.append(RubricJudge(writer, pictures, _rubric(config, reward.rubric_weight)))
    if reward.pairwise_weight is not None:
        asked = PairwiseSettings(
            weight=reward.pairwise_weight, request=reward.judge_request, max_pairs=reward.max_pairs, seed=seed
        )
        judges.append(PairwiseJudge(writer, pictures, asked))
    return tuple(judges)


def _rubric(config: TrainConfig, weight: float) -> RubricSettings:
    reward, (low, high) = config.reward, config.reward.judge_scale
    return RubricSettings(weight=weight, rubric=reward.judge_rubric, criteria=reward.criteria, low=low, high=high)


def endpoint(config: TrainConfig, max_outage_s: float) -> Writer:
    """Whoever answers at ``reward.judge_url``.

    Raises:
        RefusedInput: its key cannot be read.
    """
    from orchestrator.rewards.endpoint import EndpointWriter  # deferred: the client takes a second to load

    reward = config.reward
    assert reward.judge_url is not None and reward.judge_model is not None
    return EndpointWriter(
        reward.judge_url,
        reward.judge_model,
        key=secret_in(reward.judge_key_file, option="reward.judge_key_file", what="key"),
        max_new_tokens=reward.judge_max_new_tokens,
        timeout_s=reward.timeout_s,
        max_outage_s=max_outage_s,
    )


def _workers(config: TrainConfig, path: str, pool: WorkerPool, prompts: Sequence[Prompt]) -> Writer:
    encoder = prompt_encoder(config, path)
    length = _max_model_len(config, encoder)
    images = max((len(p.media) for p in prompts), default=0) if config.reward.judge_images != "none" else 0
    engine = engine_spec(config, path, encoder, max_model_len=length, max_images=images)
    workers = pool.role("judge")
    # One on each device; it keeps its weights.
    workers.start(WritingSpec(engine=replace(engine, tensor_parallel_size=1), timeout_s=config.rollout.timeout_s))
    return WorkersWriter(
        workers,
        encoder,
        max_new_tokens=config.reward.judge_max_new_tokens,
        max_model_len=length,
        deadline_s=config.rollout.timeout_s,
    )


def _max_model_len(config: TrainConfig, encoder: PromptEncoder) -> int:
    """A prompt, what is asked about it, two responses and a verdict."""
    reward, positions = config.reward, max_positions(encoder.config)
    words = [reward.judge_request] if reward.pairwise_weight is not None else []
    if reward.rubric_weight is not None:
        words.append(rubric_text(_rubric(config, reward.rubric_weight)))
    budget = config.data.max_prompt_tokens + max(len(encoder.encode_text(text)) for text in words)
    budget += 2 * config.rollout.max_new_tokens + reward.judge_max_new_tokens
    return budget if positions is None else min(budget, positions)
