"""What a run consists of: one algorithm on the user's data, or on the embedded task a cold start before it."""

from contextlib import AbstractContextManager
from pathlib import Path

from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.load import cold_start_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.prompts import RunData, read_data
from orchestrator.pipeline.summary import print_summary
from orchestrator.rewards.critique_service import online_critique_judge
from orchestrator.rewards.service import reward_client
from orchestrator.run.checkpoint import Progress, finished_checkpoint, refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.manifest import write_config
from orchestrator.run.recovery import with_restarts
from orchestrator.tasks.digits import DEMONSTRATIONS
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.figures import figures_of
from orchestrator.training.loop import Outcome, run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import Session, open_session
from orchestrator.training.supervised import SupervisedWork
from workers.multimodal.prompt_encoder import PromptEncoder

_EMBEDDED_MODEL = "raylign_digits.json"


def run_stages(config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder, data: RunData) -> None:
    """Run every stage on one pool and print the summary of the last."""
    if config.algo == "sft":
        outcome = with_restarts(
            lambda again: _supervised(again, folder, pool, encoder, data, is_stage=False), config, folder
        )
        summarise(outcome, folder)
        return
    if needs_cold_start(config):
        config = _cold_start(config, pool, encoder)
    with reward_client(config, folder, pool) as client:

        def online(again: TrainConfig) -> Outcome:
            with (
                _session(again, folder, pool, data) as (session, start),
                online_critique_judge(again, folder, pool, [*data.train.prompts, *data.held_out]) as critiques,
            ):
                asked = answering(session, encoder, data, policy_version=start.policy_version)
                return run(session, OnlineWork(answering=asked, client=client, critiques=critiques), start)

        outcome = with_restarts(online, config, folder)
    summarise(outcome, folder)


def needs_cold_start(config: TrainConfig) -> bool:
    """True for the embedded task's own model, which knows nothing yet: reinforcement needs something to reinforce."""
    return (Path(config.model.folder) / _EMBEDDED_MODEL).is_file() and Path(config.model.folder).parent.name == "task"


def summarise(outcome: Outcome, folder: RunFolder) -> None:
    """Tell a person what the run achieved."""
    print_summary(outcome.before.judged, outcome.after.judged, folder.root)


def refuse_other_runs(config: TrainConfig, folder: RunFolder, data: RunData) -> None:
    """Refuse a run folder that holds another run, or the cold start of another, before any worker is started.

    Raises:
        RefusedInput: naming what differs.
    """
    if not needs_cold_start(config):
        refuse_another_run(folder, config, online_identity(config, data))
        return
    stage, of_stage = _cold_start_stage(config)
    refuse_another_run(_folder_of(stage), stage, online_identity(stage, of_stage), stage=True)
    # Which weights the cold start leaves is known, and compared, once it is there.
    refuse_another_run(folder, config, option_identity(config), whole=False)


def _cold_start(config: TrainConfig, pool: WorkerPool, encoder: PromptEncoder) -> TrainConfig:
    """Supervised training in a folder of its own, unless it is already done; then start from its result."""
    stage, data = _cold_start_stage(config)
    folder = _folder_of(stage)
    folder.create()
    try:
        if finished_checkpoint(folder, stage, online_identity(stage, data), stage=True) is None:
            write_config(stage, folder)
            with_restarts(lambda again: _supervised(again, folder, pool, encoder, data, is_stage=True), stage, folder)
    finally:
        folder.release()
    path = str(folder.checkpoint(stage.run.steps) / "policy")
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _cold_start_stage(config: TrainConfig) -> tuple[TrainConfig, RunData]:
    stage = cold_start_config(config)
    demonstrations = str(Path(stage.data.source).with_name(DEMONSTRATIONS))
    stage = stage.model_copy(update={"data": stage.data.model_copy(update={"path": demonstrations})})
    return stage, read_data(stage)


def _folder_of(stage: TrainConfig) -> RunFolder:
    return RunFolder(Path(stage.run.dir))


def _supervised(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder, data: RunData, *, is_stage: bool
) -> Outcome:
    with _session(config, folder, pool, data) as (session, start):
        asked = answering(session, encoder, data, policy_version=start.policy_version)
        return run(session, SupervisedWork(answering=asked, is_stage=is_stage), start)


def _session(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, data: RunData
) -> AbstractContextManager[tuple[Session, Progress]]:
    identity = online_identity(config, data)
    return open_session(config, folder, pool, identity=identity, counts=data.counts, figures=figures_of(config))
