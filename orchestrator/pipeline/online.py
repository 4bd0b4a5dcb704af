"""Runs whose policy is asked: reinforcement on prompts, supervised learning, the cold start before the demo."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.cluster.launch import clear_leftovers, ray_cluster, worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.specs import following_engine_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.prompts import RunData, fitting, read_data
from orchestrator.evaluation.while_training import change_lines, declared_figures, read_benchmarks
from orchestrator.pipeline.derived import cold_start_config
from orchestrator.pipeline.stages import Running, Stage, Tell, go_through
from orchestrator.pipeline.summary import print_summary
from orchestrator.preflight import check_labels, check_lengths, check_teacher
from orchestrator.rewards.critique_service import check_online_critiques, critique_limits, online_critique_judge
from orchestrator.rewards.judge_service import check_sample_judges, sample_judges
from orchestrator.rewards.service import reward_client
from orchestrator.run.checkpoint import Progress, finished_checkpoint, refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.manifest import write_config
from orchestrator.run.recovery import with_restarts
from orchestrator.tasks.digits import DEMONSTRATIONS
from orchestrator.training.ahead import AheadWork
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.figures import figures_of
from orchestrator.training.loop import Outcome, kept_outcome, run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import Session, open_session
from orchestrator.training.supervised import SupervisedWork
from orchestrator.training.waiting import Waiting
from workers.models.needs import max_positions


def train_online(
    config: TrainConfig, plan: PlacementPlan, folder: RunFolder, data: RunData, stages: list[Stage]
) -> None:
    """Check the prompts, start the workers, go through the stages on them, and say what came of it.

    Raises:
        RefusedInput: prompts that the models cannot take; or the run folder holds another run.
    """
    encoder = prompt_encoder(config)
    data = fitting(config, encoder, data)
    prompts = [*data.train.prompts, *data.held_out]
    if config.reward.critique.path is not None:
        critique_limits(config, config.reward.critique.path)
    check_labels(config, prompts)
    check_teacher(config, encoder)
    longest, images = check_lengths(config, encoder, prompts), max(len(p.media) for p in prompts)
    pictures, most = folder.root / "pictures", max_positions(encoder.config)
    benchmarks = read_benchmarks(config, encoder, most=most, pictures=pictures)
    longest = max(longest, *(one.needs.longest for one in benchmarks), 0)
    images = max(images, *(one.needs.max_images for one in benchmarks), 0)
    spec = following_engine_spec(config, plan, encoder, longest_prompt=longest, max_images=images)
    check_online_critiques(config, prompts)
    _refuse_other_runs(config, folder, data, stages)
    told = [*data.lines(), *(line for one in benchmarks for line in one.lines())]
    sys.stdout.write("\n".join(told) + "\n")
    write_config(config, folder)
    clear_leftovers(folder.root)
    running = Running(config=config, plan=plan, folder=folder, data=data, encoder=encoder, benchmarks=benchmarks)
    if _is_done(config, folder, data, stages):
        sys.stdout.write(f"{folder.root}, made before\n")
        running.outcome = kept_outcome(config, folder)
    else:
        check_sample_judges(config, data.train.prompts)
        with ray_cluster(plan), worker_pool(config, plan, spec) as running.pool:
            go_through(stages, running)
    if running.outcome is not None:
        before, after = running.outcome.before, running.outcome.after
        measured = change_lines(benchmarks, before.figures, after.figures)
        print_summary(before.judged, after.judged, folder.root, measured=measured)


def supervised(running: Running, tell: Tell) -> None:
    """All of a run on demonstrations."""
    running.outcome = with_restarts(
        lambda again: _supervised(again, running, running.folder, running.data, is_stage=False),
        running.config,
        running.folder,
    )


def cold_start(running: Running, tell: Tell) -> None:
    """Supervised training in a folder of its own, unless it is done; the run begins from its result."""
    stage, data = _cold_start_stage(running.config)
    folder = RunFolder(Path(stage.run.dir))
    folder.create()
    try:
        if finished_checkpoint(folder, stage, online_identity(stage, data), stage=True) is None:
            write_config(stage, folder)
            with_restarts(lambda again: _supervised(again, running, folder, data, is_stage=True), stage, folder)
    finally:
        folder.release()
    running.config = _begun(running.config, stage)


def reinforce(running: Running, tell: Tell) -> None:
    """Learn from sampled answers and their rewards."""
    folder, data, pool, encoder = running.folder, running.data, running.pool, running.encoder
    assert pool is not None and encoder is not None
    with reward_client(running.config, folder, pool) as client:

        def online(again: TrainConfig) -> Outcome:
            with (
                _session(again, running, folder, data) as (session, start),
                online_critique_judge(again, folder, pool, [*data.train.prompts, *data.held_out]) as critiques,
                sample_judges(again, folder, pool, data.train.prompts) as judges,
            ):
                version, benchmarks = start.policy_version, running.benchmarks
                asked = answering(session, encoder, data, policy_version=version, benchmarks=benchmarks)
                work = OnlineWork(answering=asked, client=client, judges=judges, critiques=critiques)
                if again.rollout.staleness:
                    return run(session, AheadWork(online=work, waiting=Waiting(work)), start)
                return run(session, work, start)

        running.outcome = with_restarts(online, running.config, folder)


def _refuse_other_runs(config: TrainConfig, folder: RunFolder, data: RunData, stages: list[Stage]) -> None:
    """Refuse a run folder that holds another run, or the cold start of another, before any worker is started.

    Raises:
        RefusedInput: naming what differs.
    """
    if len(stages) == 1:
        refuse_another_run(folder, config, online_identity(config, data))
        return
    stage, of_stage = _cold_start_stage(config)
    refuse_another_run(RunFolder(Path(stage.run.dir)), stage, online_identity(stage, of_stage), stage=True)
    # Which weights the cold start leaves is known, and compared, once it is there.
    refuse_another_run(folder, config, option_identity(config), whole=False)


def _is_done(config: TrainConfig, folder: RunFolder, data: RunData, stages: list[Stage]) -> bool:
    if len(stages) > 1:
        config = _begun(config, cold_start_config(config))
        if not Path(config.model.folder).is_dir():
            return False
    return finished_checkpoint(folder, config, online_identity(config, data), stage=False) is not None


def _begun(config: TrainConfig, stage: TrainConfig) -> TrainConfig:
    path = RunFolder(Path(stage.run.dir)).checkpoint(stage.run.steps) / "policy"
    return config.model_copy(update={"model": config.model.model_copy(update={"path": str(path)})})


def _cold_start_stage(config: TrainConfig) -> tuple[TrainConfig, RunData]:
    stage = cold_start_config(config)
    demonstrations = str(Path(stage.data.training_path).with_name(DEMONSTRATIONS))
    stage = stage.model_copy(update={"data": stage.data.model_copy(update={"path": demonstrations})})
    return stage, read_data(stage)


def _supervised(config: TrainConfig, running: Running, folder: RunFolder, data: RunData, *, is_stage: bool) -> Outcome:
    assert running.encoder is not None
    benchmarks = () if is_stage else running.benchmarks
    with _session(config, running, folder, data) as (session, start):
        version = start.policy_version
        asked = answering(session, running.encoder, data, policy_version=version, benchmarks=benchmarks)
        return run(session, SupervisedWork(answering=asked, is_stage=is_stage), start)


def _session(
    config: TrainConfig, running: Running, folder: RunFolder, data: RunData
) -> AbstractContextManager[tuple[Session, Progress]]:
    assert running.pool is not None
    identity = online_identity(config, data)
    # Those of benchmarks by their full names first: a name that stands for many is drawn by none.
    figures = [*declared_figures(running.benchmarks if config.eval.benchmark else ()), *figures_of(config)]
    return open_session(config, folder, running.pool, identity=identity, counts=data.counts, figures=figures)
