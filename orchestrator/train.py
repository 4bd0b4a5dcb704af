"""``python -m orchestrator.train --algo NAME``: one run, from the command line to the closing summary."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster.placement import PlacementPlan, describe_plan
from orchestrator.cluster.waits import WaitTimeout, WorkerLost
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig, resolved_json
from orchestrator.errors import GuardStop, RefusedInput
from workers.types import UnusablePrompt

if TYPE_CHECKING:
    from orchestrator.data.prompts import RunData
    from orchestrator.run.folder import RunFolder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused, 3 stopped by a guard."""
    try:
        config, options = load_config(sys.argv[1:] if argv is None else argv)
        if options.dry_run:
            dry_run(config)
        else:
            train(config)
    except (RefusedInput, UnusablePrompt) as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    except (GuardStop, WaitTimeout, WorkerLost) as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        return 3
    return 0


def dry_run(config: TrainConfig) -> None:
    """Print the resolved configuration, the batch arithmetic, the placement and its memory, and what the data hold.

    Nothing is started or written. On a described cluster the model may be described too: a folder with nothing but its
    ``config.json``; and the data may be elsewhere.
    """
    from orchestrator.cluster.choices import settled_dtype
    from orchestrator.cluster.memory_plan import describe_memory
    from orchestrator.cluster.plan import plan_memory, plan_run
    from orchestrator.data.image_check import describe_bound
    from orchestrator.pipeline.look_at_data import data_lines
    from orchestrator.pipeline.stage_plans import describe_stages, plan_stages
    from orchestrator.preflight import check_config, check_critique_model, check_model, check_processors

    check_critique_model(config)
    if config.model.path is not None:
        (check_model if config.placement.cluster is None else check_config)(config)
    cluster, plan = plan_run(config)
    if config.placement.cluster is None:
        check_processors(config)
    config = settled_dtype(config, plan)
    lines = [*describe_batches(config), *describe_plan(plan), *describe_stages(plan_stages(config, cluster))]
    if config.model.path is not None:
        gpu_memory_gib = min((n.gpu_memory_gib for n in cluster.nodes if n.gpu_memory_gib is not None), default=None)
        roles = plan_memory(config, plan, gpu_memory_gib=gpu_memory_gib)
        colocated = config.placement.layout == "colocated"
        lines += [*describe_memory(roles, colocated=colocated, gpu_memory_gib=gpu_memory_gib), *describe_bound(config)]
    if config.placement.cluster is None:
        _check_files(config)
    lines += data_lines(config)
    sys.stdout.write(resolved_json(config))
    sys.stdout.write("\n".join(lines) + "\n")


def describe_batches(config: TrainConfig) -> list[str]:
    """The arithmetic of one step, in lines."""
    size, ranks = config.policy.train_batch_size, config.policy.num_ranks
    if config.offline:
        return [f"step: {size} instructions with all their responses, on {ranks} ranks"]
    if config.algo == "sft":
        return [f"step: {size} demonstrations, {size // ranks} a rank on {ranks} ranks"]
    samples = config.samples_per_step
    return [
        f"step: {config.rollout.prompts_per_step} prompts x {config.rollout.samples_per_prompt} samples = {samples} "
        f"completions on {config.rollout.num_engines} engines",
        f"updates: {samples} / {size} = {samples // size} optimizer steps of {size} samples, {size // ranks} a rank",
    ]


def train(config: TrainConfig) -> None:
    """Prepare, check, launch and train; print the summary."""
    from orchestrator.cluster.choices import settled_dtype
    from orchestrator.cluster.plan import plan_run
    from orchestrator.data.image_check import describe_bound
    from orchestrator.data.prompts import read_data
    from orchestrator.pipeline.stage_plans import plan_stages
    from orchestrator.preflight import check_critique_model, check_model, check_processors, check_trackers
    from orchestrator.rewards.check import check_rewards
    from orchestrator.run.checkpoint import refuse_another_run
    from orchestrator.run.folder import RunFolder
    from orchestrator.run.identity import option_identity
    from orchestrator.run.noise import quiet_libraries

    check_trackers(config)
    if config.model.path is not None:
        check_model(config)
    check_critique_model(config)
    cluster, plan = plan_run(config)
    check_processors(config)
    config = settled_dtype(config, plan)
    # What needs workers of its own later is refused now.
    plan_stages(config, cluster)
    sys.stdout.writelines(f"{line}\n" for line in describe_bound(config))
    folder = RunFolder(Path(config.run.dir))
    _check_files(config)
    # Read before anything is made or imported that a refusal does not need.
    data = None if config.embedded_task or config.offline else read_data(config)
    check_rewards(config, folder)
    quiet_libraries()
    folder.create()
    try:
        # What the options alone tell, before the embedded task's files or an import are made for another run.
        refuse_another_run(folder, config, option_identity(config), whole=False)
        if config.embedded_task:
            # Deferred: it imports what only the embedded task needs.
            from orchestrator.pipeline.embedded import embedded

            config = embedded(config, folder, train=train)
        if config.offline:
            # Deferred: it imports what only training needs.
            from orchestrator.pipeline.offline import train_offline

            train_offline(config, plan, folder)
        else:
            _launch(config, plan, folder, data or read_data(config))
    finally:
        folder.release()


def _check_files(config: TrainConfig) -> None:
    """Refuse a missing file before the run folder is made."""
    data, reward = config.data, config.reward
    for name, path in (
        ("data.path", data.path),
        ("data.eval_path", data.eval_path),
        ("reward.token_file", reward.token_file),
        ("reward.judge_key_file", reward.judge_key_file),
    ):
        is_store = name.startswith("data.") and config.offline and os.path.isdir(str(path))
        if path is not None and not os.path.isfile(path) and not is_store:
            raise RefusedInput(f"{name} {path!r} is not a file")


def _launch(config: TrainConfig, plan: PlacementPlan, folder: "RunFolder", data: "RunData") -> None:
    from orchestrator.cluster import launch
    from orchestrator.cluster.specs import following_engine_spec, prompt_encoder
    from orchestrator.data.prompts import fitting
    from orchestrator.pipeline import online as stages
    from orchestrator.preflight import check_lengths
    from orchestrator.rewards.critique_service import check_online_critiques, critique_limits
    from orchestrator.run.manifest import write_config

    encoder = prompt_encoder(config)
    data = fitting(config, encoder, data)
    prompts = [*data.train.prompts, *data.held_out]
    if config.reward.critique.path is not None:
        critique_limits(config, config.reward.critique.path)
    spec = following_engine_spec(
        config,
        plan,
        encoder,
        longest_prompt=check_lengths(config, encoder, prompts),
        max_images=max(len(p.media) for p in prompts),
    )
    check_online_critiques(config, prompts)
    stages.refuse_other_runs(config, folder, data)
    sys.stdout.write("\n".join(data.lines()) + "\n")
    write_config(config, folder)
    launch.clear_leftovers(folder.root)
    with launch.ray_cluster(plan), launch.worker_pool(config, plan, spec) as pool:
        stages.run_stages(config, folder, pool, encoder, data)


if __name__ == "__main__":
    sys.exit(main())
