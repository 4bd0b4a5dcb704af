"""The embedded task's files, written into a run folder, and a configuration that points at them as a user would."""

from collections.abc import Callable
from pathlib import Path

from orchestrator.config.load import demonstrations_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.stores import open_data
from orchestrator.run.checkpoint import finished_checkpoint, refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.model_folder import policy_folder
from orchestrator.tasks.digits import build_digits_data
from orchestrator.tasks.digits_critiques import DEMONSTRATIONS, HELD_OUT_FRAC, VOCABULARY, build_digits_critiques
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.tasks.digits_preferences import build_digits_preferences
from orchestrator.training.offline import offline_identity


def embedded(config: TrainConfig, folder: RunFolder, *, train: Callable[[TrainConfig], None]) -> TrainConfig:
    """Write what the run's algorithm learns from, and the model that learns, where none is given.

    Args:
        train: A whole run. Sampled answers of random weights teach nothing, so MM-DPO starts from a policy that was
            taught to answer.
    """
    task, seed, offline = folder.root / "task", config.run.seed, config.offline
    files = build_digits_data(task / "data", seed=seed)
    with_critiques = config.needs.critiques or config.needs.pair_betas
    path, eval_path = files.demonstrations if config.algo == "sft" else files.train, str(files.held_out)
    if offline:
        build = build_digits_critiques if with_critiques else build_digits_preferences
        path, eval_path = build(task / "data", seed=seed), None
    words = VOCABULARY if with_critiques else ""
    model = config.model.path or str(build_digits_model(task / "model", seed=seed, words=words))
    written = config.model_copy(
        update={
            "data": config.data.model_copy(update={"path": str(path), "eval_path": eval_path}),
            "model": config.model.model_copy(update={"path": model}),
        }
    )
    if not config.needs.pair_betas or config.model.path is not None:
        return written
    model = _taught(written, demonstrations=task / "data" / DEMONSTRATIONS, train=train)
    return written.model_copy(update={"model": config.model.model_copy(update={"path": str(model)})})


def _taught(config: TrainConfig, *, demonstrations: Path, train: Callable[[TrainConfig], None]) -> Path:
    """The policy after supervised learning from demonstrations, trained unless just it is there."""
    taught = demonstrations_config(config, data=demonstrations, held_out_frac=HELD_OUT_FRAC)
    folder = RunFolder(Path(taught.run.dir))
    if refuse_another_run(folder, taught, option_identity(taught), whole=False, stage=True) is not None:
        data = open_data(taught, folder)
        if finished_checkpoint(folder, taught, offline_identity(taught, data, {}), stage=True):
            return policy_folder(folder.root)
    train(taught)
    return policy_folder(folder.root)
