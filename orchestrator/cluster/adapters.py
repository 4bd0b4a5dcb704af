"""Which saved adapters a run may begin from."""

from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import made
from orchestrator.errors import RefusedInput
from workers.models.adapter_folder import base_folder, check_shape, is_adapter, same_base


def check_adapters(config: TrainConfig) -> None:
    """Refuse adapters that cannot be trained on as the run's options say, or that stand on another model.

    What an earlier stage is to make is not looked at.

    Raises:
        RefusedInput: in one sentence.
    """
    model = config.model
    adapter, critic, base = made("model.adapter", model.adapter), _critic(config), made("model.path", model.path)
    for option, path in (("model.adapter", adapter), ("critic.path", critic)):
        if path is None or (option == "critic.path" and not is_adapter(path)):
            continue
        if not is_adapter(path):
            raise RefusedInput(f"{option} {path!r} holds no adapter alone, as a run with model.lora_rank leaves one")
        if model.lora_rank is None or model.alpha is None:
            raise RefusedInput(
                f"{option} {path!r} is an adapter, and model.lora_rank is not set: to train its weights, merge it by "
                "python -m orchestrator.export"
            )
        try:
            check_shape(path, rank=model.lora_rank, alpha=model.alpha)
        except ValueError as error:
            raise RefusedInput(f"{option}: {error}") from error
    if base is None and model.path is not None:
        return
    if adapter is not None:
        _check_base("model.adapter", adapter, base, why="")
    if config.placement.share_base:
        for option, path in (
            ("critic.path", critic),
            ("reward.scalar_path", made("reward.scalar_path", config.reward.scalar_path)),
            ("distill.teacher_path", made("distill.teacher_path", config.needs.teacher)),
        ):
            if path is not None:
                _check_base(option, path, base, why=", whose base placement.share_base = true shares")


def _critic(config: TrainConfig) -> str | None:
    return made("critic.path", config.critic_path)


def _check_base(option: str, path: str, base: str | None, *, why: str) -> None:
    if base is None:
        raise RefusedInput(f"{option} {path!r} needs model.path, which is not set{why}")
    try:
        fits = same_base(path, base)
    except ValueError as error:
        raise RefusedInput(f"{option}: {error}") from error
    if not fits:
        what = f"is an adapter of {base_folder(path)!r}" if is_adapter(path) else "is a model of its own"
        raise RefusedInput(f"{option} {path!r} {what}, not an adapter of model.path = {base!r}{why}")
