"""The configurations of trainings that come before a run's own, each in a folder inside the run's."""

from pathlib import Path

from algorithms.mm_dpo import MmDpoSection
from orchestrator.config.layers import Layer, embedded_layer, layer_of
from orchestrator.config.load import validated
from orchestrator.config.schema import TrainConfig

_WHOLE: Layer = {
    **dict.fromkeys(("model.lora_rank", "model.lora_alpha", "model.adapter", "model.quantize")),
    "placement.share_base": False,
}
"""The weights themselves are trained, also before a run that trains an adapter: the result is that adapter's base."""


def cold_start_config(config: TrainConfig) -> TrainConfig:
    """The supervised cold start that comes before an embedded run, in ``cold_start``.

    It keeps the run's seed, workers and placement and takes the embedded task's own settings for the rest.

    Raises:
        RefusedInput: the run's settings do not fit the cold start, e.g. more policy ranks than samples in its batch.
    """
    return _changed(config, embedded_layer("cold_start", config.task) | _WHOLE, folder="cold_start")


def taught_config(config: TrainConfig) -> TrainConfig:
    """The supervised learning that comes before an embedded ``mm_dpo``, in ``cold_start``, from the task's own model.

    Raises:
        RefusedInput: the run's settings do not fit it.
    """
    from orchestrator.tasks.digits_critiques import DEMONSTRATIONS, HELD_OUT_FRAC  # deferred: it imports scikit-learn

    task = Path(config.run.dir) / "task"
    own: Layer = {
        "model.path": str(task / "model"),
        "data.path": str(task / "data" / DEMONSTRATIONS),
        "data.eval_path": None,
        "data.held_out_frac": HELD_OUT_FRAC,
    }
    return _changed(config, embedded_layer("demonstrations", config.task) | own | _WHOLE, folder="cold_start")


def critique_rm_config(config: TrainConfig) -> TrainConfig:
    """The training of the critique reward model that comes before ``mm_dpo``, in ``critique_rm``.

    It begins from the same model and keeps the run's data, workers and batches. Of MM-DPO's own settings it reads two.

    Raises:
        RefusedInput: the run's settings do not fit it.
    """
    settings = config.section(MmDpoSection)
    own: Layer = {
        "algo": "critique_rm",
        "run.steps": settings.critique_rm_steps or config.run.steps,
        "optimizer.lr": settings.critique_rm_lr or config.optimizer.lr,
    }
    return _changed(config, own, folder="critique_rm", without="mm_dpo.")


def _changed(config: TrainConfig, layer: Layer, *, folder: str, without: str = " ") -> TrainConfig:
    # What ends the run itself, and what is kept of it, is not meant of what comes before.
    left = (without, "eval.best", "eval.patience", "eval.benchmark", "rollout.staleness", "rollout.tokens_per_round")
    kept = {name: value for name, value in layer_of(config).items() if not name.startswith(left)}
    return validated(type(config), kept | layer | {"run.dir": str(Path(config.run.dir) / folder)}, sources={})
