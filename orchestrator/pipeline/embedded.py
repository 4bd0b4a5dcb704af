"""The embedded tasks' files, written into a run folder, and a configuration that points at them as a user would."""

from pathlib import Path

from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.derived import taught_config
from orchestrator.pipeline.learn import learn
from orchestrator.pipeline.stages import Running, Tell
from orchestrator.run.checkpoint import finished_checkpoint, refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.model_folder import policy_folder
from orchestrator.tasks.count import VOCABULARY as SUMS
from orchestrator.tasks.count import build_count_data
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_critiques import VOCABULARY, build_digits_critiques
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.tasks.digits_preferences import build_digits_preferences
from orchestrator.training.offline import looked_through, offline_identity


def embedded(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """Write what the run's algorithm learns from, and the model that learns, where none is given."""
    task, seed, offline = folder.root / "task", config.run.seed, config.offline
    counts = config.task == "count"
    files = (build_count_data if counts else build_digits_data)(task / "data", seed=seed)
    with_critiques = config.needs.critiques or config.needs.pair_betas
    path, eval_path = files.demonstrations if config.data_kind == "demonstrations" else files.train, str(files.held_out)
    if offline:
        build = build_digits_critiques if with_critiques else build_digits_preferences
        path, eval_path = build(task / "data", seed=seed), None
    words = SUMS if counts else VOCABULARY if with_critiques else ""
    if config.model.path is not None and Path(config.model.path).is_dir():
        _refuse_unknown_words(config, words)
    model = config.model.path or str(build_digits_model(task / "model", seed=seed, words=words))
    data = config.data.model_copy(update={"path": str(path), "eval_path": eval_path})
    written = _beginning_from(config.model_copy(update={"data": data}), model)
    if config.needs.pair_betas and config.model.path is None and _was_taught(taught := taught_config(written)):
        return _beginning_from(written, policy_folder(Path(taught.run.dir)))
    return written


def _refuse_unknown_words(config: TrainConfig, words: str) -> None:
    encoder = prompt_encoder(config)
    unknown = encoder.tokenizer.unk_token_id
    if words and unknown is not None and unknown in encoder.encode_text(words):
        raise RefusedInput(
            f"model.path = {config.model.path!r} lacks words of the embedded critiques: it was made for another "
            f"algorithm of the embedded task; give algo = {config.algo!r} data of its own, or no model"
        )


def teach(running: Running, tell: Tell) -> None:
    """Supervised learning before MM-DPO, unless it is done: sampled answers of random weights teach nothing."""
    taught = taught_config(running.config)
    folder = RunFolder(Path(taught.run.dir))
    folder.create()
    try:
        if _was_taught(taught):
            tell(f"{folder.root}, made before")
        else:
            tell(folder.root)
            learn(taught, running.plan, folder, looked_through(taught, open_data(taught, folder)), {})
    finally:
        folder.release()
    running.config = _beginning_from(running.config, policy_folder(folder.root))


def _was_taught(taught: TrainConfig) -> bool:
    folder = RunFolder(Path(taught.run.dir))
    if refuse_another_run(folder, taught, option_identity(taught), whole=False, stage=True) is None:
        return False
    data = open_data(taught, folder)
    return finished_checkpoint(folder, taught, offline_identity(taught, data, {}), stage=True) is not None


def _beginning_from(config: TrainConfig, model: str | Path) -> TrainConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"path": str(model)})})
