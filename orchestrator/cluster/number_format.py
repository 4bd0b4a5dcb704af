"""Which number format the workers of a plan compute in: settled by the driver for all of them, by where they run."""

from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput


def settled_dtype(config: TrainConfig, plan: PlacementPlan) -> TrainConfig:
    """The configuration with ``model.dtype = "auto"`` put into words: bfloat16 where workers have GPUs, else float32.

    The driver may run on a machine of another kind, and side tables and checkpoints must say what workers really did.

    Raises:
        RefusedInput: the attention that was asked for cannot compute in it.
    """
    if config.model.dtype != "auto":
        return config
    dtype = "bfloat16" if any(worker.num_gpus for worker in plan.workers) else "float32"
    if dtype == "float32" and config.model.attention.startswith("flash"):
        raise RefusedInput(
            f"model.attention = {config.model.attention!r} needs GPUs: without any, model.dtype = 'auto' is 'float32'"
        )
    return config.model_copy(update={"model": config.model.model_copy(update={"dtype": dtype})})
