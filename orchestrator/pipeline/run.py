"""One run from its configuration to the closing summary, and the same told without starting anything."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.choices import settled_dtype
from orchestrator.cluster.memory_told import describe_memory
from orchestrator.cluster.placement import PlacementPlan, describe_plan
from orchestrator.cluster.plan import plan_memory, plan_run
from orchestrator.cluster.resources import ClusterResources
from orchestrator.cluster.roofline.plan import describe_step_bound
from orchestrator.config.data_folders import holds_shards
from orchestrator.config.schema import TrainConfig, resolved_json
from orchestrator.data.image_check import describe_bound
from orchestrator.data.prompts import read_data
from orchestrator.data.recognising import with_format
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.usable import check_benchmarks
from orchestrator.pipeline.look_at_data import data_lines
from orchestrator.pipeline.stages import Stage, describe_stages, stages_of
from orchestrator.preflight import (
    check_config,
    check_critique_model,
    check_model,
    check_other_models,
    check_processors,
    check_trackers,
)
from orchestrator.rewards.check import check_rewards
from orchestrator.rewards.pairwise import pairs_of
from orchestrator.run.checkpoint import refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.log import quiet_libraries


@dataclass(frozen=True, slots=True)
class Checked:
    """A run that may start."""

    config: TrainConfig
    """With what the machine decides."""
    plan: PlacementPlan
    stages: list[Stage]


def dry_run(config: TrainConfig, known: TrainConfig) -> None:
    """Print the resolved configuration, the batch arithmetic, the placement and its memory, and what the data hold.

    Nothing is started or written. On a described cluster the model may be described too: a folder with nothing but its
    ``config.json``; and the data may be elsewhere.

    Args:
        known: The same, without what other runs make before it.
    """
    here = config.placement.cluster is None
    config, known = with_format(config), with_format(known)
    check_measured(config)
    if known.reward.critique == config.reward.critique:
        check_critique_model(known)
    if known.model.path is not None:
        (check_model if here else check_config)(known)
    cluster, plan = plan_run(as_placed(config, known))
    if here:
        check_processors(known)
    config, known = settled_dtype(config, plan), settled_dtype(known, plan)
    lines = [*describe_batches(config), *describe_plan(plan), *describe_stages(stages_of(config, cluster))]
    judge_is_known = bool(known.reward.critique.path) or not config.reward.critique.path
    if known.model.path is not None and judge_is_known:
        lines += [*_cost_lines(known, cluster, plan), *describe_bound(known)]
    if here:
        check_files(known)
    lines += data_lines(known if known.data == config.data else config)
    sys.stdout.write(_printable(resolved_json(config)))
    sys.stdout.write(_printable("\n".join(lines) + "\n"))


def _printable(text: str) -> str:
    """Text with what a terminal would obey spelled as JSON spells it."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def check_run(config: TrainConfig, known: TrainConfig) -> Checked:
    """Refuse what can be refused before a run folder is made.

    Args:
        known: The run without what other runs make before it.
    Raises:
        RefusedInput: in one sentence.
    """
    config, known = with_format(config), with_format(known)
    check_trackers(config)
    check_measured(config)
    if known.model.path is not None:
        check_model(known)
    if known.reward.critique == config.reward.critique:
        check_critique_model(known)
    check_other_models(config, known)
    cluster, plan = plan_run(as_placed(config, known))
    check_processors(known)
    config = settled_dtype(config, plan)
    # What needs workers of its own later is refused now.
    stages = stages_of(config, cluster)
    check_files(known)
    return Checked(config, plan, stages)


def train(config: TrainConfig) -> None:
    """Prepare, check, launch and train; print the summary."""
    checked = check_run(config, config)
    config = checked.config
    sys.stdout.writelines(f"{line}\n" for line in describe_bound(config))
    folder = RunFolder(Path(config.run.dir))
    # Read before anything is made or imported that a refusal does not need.
    data = None if config.embedded_task or config.offline else read_data(config)
    check_rewards(config, folder)
    quiet_libraries()
    folder.create()
    try:
        # What the options alone tell, before the embedded task's files or an import are made for another run.
        refuse_another_run(folder, config, option_identity(config), whole=False)
        if config.embedded_task:
            from orchestrator.pipeline.embedded import embedded  # deferred: it imports what only that task needs

            config = embedded(config, folder)
        if config.offline:
            from orchestrator.pipeline.offline import train_offline  # deferred: it imports what only training needs

            train_offline(config, checked.plan, folder, checked.stages)
        else:
            from orchestrator.pipeline.online import train_online  # deferred: likewise

            train_online(config, checked.plan, folder, data or read_data(config), checked.stages)
    finally:
        folder.release()


def describe_batches(config: TrainConfig) -> list[str]:
    """The arithmetic of one step, in lines."""
    size, ranks = config.policy.train_batch_size, config.policy.num_ranks
    if config.offline:
        return [f"step: {size} instructions with all their responses, on {ranks} ranks"]
    if config.data_kind == "demonstrations":
        return [f"step: {size} demonstrations, {size // ranks} a rank on {ranks} ranks"]
    samples = config.samples_per_step
    return [
        f"step: {config.rollout.prompts_per_step} prompts x {config.rollout.samples_per_prompt} samples = {samples} "
        f"completions on {config.rollout.num_engines} engines",
        f"updates: {samples} / {size} = {samples // size} optimizer steps of {size} samples, {size // ranks} a rank",
        *_describe_ahead(config),
        *_describe_epochs(config),
        *_describe_judges(config),
    ]


def _describe_ahead(config: TrainConfig) -> list[str]:
    """What waits to be learned from, where engines sample while the policy learns."""
    rollout = config.rollout
    if not rollout.staleness:
        return []
    ahead, rounds = rollout.staleness * rollout.prompts_per_step, rollout.tokens_per_round
    told = f"in rounds of {rounds} tokens an answer" if rounds else "answers whole"
    return [
        f"ahead: up to {ahead} prompts are sampled while the policy learns, {told}; none is learned from more than "
        f"{rollout.staleness} steps later",
        "guard.max_mismatch looks at the first step; later on each sync's probe proves the engines",
    ]


def _describe_epochs(config: TrainConfig) -> list[str]:
    """How often a step's samples are gone through, where that is not once."""
    critic, often = config.needs.critic, config.learner.epochs_at(config.run.steps)
    told = [f"by the policy {often} times"] if often > 1 else []
    if critic is not None:
        told += [f"by the critic {critic.epochs} times"] if critic.epochs > 1 else []
        told += [f"by the critic alone in the first {critic.warmup_steps} steps"] if critic.warmup_steps else []
    return [f"they are gone through {', '.join(told)}"] if told else []


def _describe_judges(config: TrainConfig) -> list[str]:
    """Who is asked for ``pairwise`` and ``judge``, and how often: at an endpoint, that is what a step costs."""
    reward, rollout = config.reward, config.rollout
    asked: list[str] = []
    if reward.rubric_weight is not None:
        asked.append(f"{config.samples_per_step} for judge")
    if reward.pairwise_weight is not None:
        pairs = len(pairs_of(rollout.samples_per_prompt, most=reward.max_pairs, seed=config.run.seed))
        asked.append(f"{rollout.prompts_per_step} x {pairs} pairs x 2 orders for pairwise")
    who = reward.judge_path or f"{reward.judge_model} at {reward.judge_url}"
    return [f"judge: {who}, at most so many questions a step: {', '.join(asked)}"] if asked else []


def as_placed(config: TrainConfig, known: TrainConfig) -> TrainConfig:
    """The run as it is placed: by what it does, and by the kind of the model that is there."""
    return config.model_copy(update={"model": known.model})


def _cost_lines(config: TrainConfig, cluster: ClusterResources, plan: PlacementPlan) -> list[str]:
    gpu_memory_gib = min((n.gpu_memory_gib for n in cluster.nodes if n.gpu_memory_gib is not None), default=None)
    try:
        roles = plan_memory(config, plan, gpu_memory_gib=gpu_memory_gib)
    except ValueError as error:  # of a configuration that describes no model
        raise RefusedInput(f"no memory can be planned: {error}") from error
    colocated = config.placement.layout == "colocated"
    told = describe_memory(roles, colocated=colocated, gpu_memory_gib=gpu_memory_gib)
    return [*told, *describe_step_bound(config, cluster, plan)]


def check_measured(config: TrainConfig) -> None:
    """Refuse benchmarks and a best figure that the run could not have.

    Raises:
        RefusedInput: naming them.
    """
    check_benchmarks(config)
    if config.eval.best is not None:
        from orchestrator.training.figures import check_best  # deferred: it imports what only training needs

        check_best(config)


def check_files(config: TrainConfig) -> None:
    """Refuse a missing file before the run folder is made."""
    data, reward = config.data, config.reward
    of_sources = [
        (f"data.source {one.name!r}: {at}", getattr(one, at)) for one in data.source for at in ("path", "eval_path")
    ]
    for name, path in (
        ("data.path", data.path),
        ("data.eval_path", data.eval_path),
        *((name, path) for name, path in of_sources),
        ("reward.token_file", reward.token_file),
        ("reward.judge_key_file", reward.judge_key_file),
    ):
        folder = name.startswith("data.") and os.path.isdir(str(path))
        fits = folder and (config.offline or holds_shards(str(path)))
        if path is not None and not os.path.isfile(path) and not fits:
            raise RefusedInput(f"{name} {path!r} is not a file")
    for one in config.eval.benchmark:
        if not os.path.exists(one.path):
            raise RefusedInput(f"eval.benchmark {one.name!r}: path {one.path!r} is not there")
