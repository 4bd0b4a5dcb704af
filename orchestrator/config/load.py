"""From a command line to a validated configuration: defaults < files left to right < flags."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import ValidationError

from orchestrator.config.flags import parse_flags
from orchestrator.config.layers import Layer, base_layers, embedded_layer, flatten, nested, read_toml
from orchestrator.config.refusal import refusal
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput

_PROGRAM = "python -m orchestrator.train"


@dataclass(frozen=True, slots=True)
class CliOptions:
    """What the command line says besides the configuration."""

    dry_run: bool


def load_config(argv: Sequence[str]) -> tuple[TrainConfig, CliOptions]:
    """Read the command line of ``orchestrator.train``, program name excluded.

    The schema's defaults rank lowest, then the algorithm's, the embedded task's and the profile's, then TOML files left
    to right, then flags.

    Raises:
        RefusedInput: anything that cannot be used, in one line.
        SystemExit: code 0, after ``--help`` was printed.
    """
    flags = parse_flags(argv)
    if flags.help:
        _print_help()
    chosen: Layer = {}
    sources: dict[str, str] = {}
    for path in flags.config_files:
        layer = read_toml(path)
        chosen |= layer
        sources |= dict.fromkeys(layer, f"in {path}")
    chosen |= flags.values
    sources |= dict.fromkeys(flags.values, "on the command line")
    if "algo" not in chosen:
        raise RefusedInput("--algo is not set")
    merged: Layer = {}
    for layer in (*base_layers(chosen), chosen):
        merged |= layer
    return _named(_validated(merged, sources)), CliOptions(dry_run=flags.dry_run)


def cold_start_config(config: TrainConfig) -> TrainConfig:
    """The supervised cold start that comes before an embedded run.

    It keeps the run's seed, workers and placement, takes the embedded task's own settings for the rest and writes to
    ``cold_start`` inside the run folder. It trains the weights themselves, also before a run that trains an adapter:
    the result is that adapter's base.

    Raises:
        RefusedInput: the run's settings do not fit the cold start, e.g. more policy ranks than samples in its batch.
    """
    layer = embedded_layer("cold_start") | {"run.dir": str(Path(config.run.dir) / "cold_start")}
    layer |= {"model.lora_rank": None, "model.lora_alpha": None, "model.quantize": None}
    return _validated(flatten(config.model_dump(), source="the run's configuration") | layer, sources={})


def demonstrations_config(config: TrainConfig, *, data: Path, held_out_frac: float) -> TrainConfig:
    """The supervised learning that comes before an embedded ``mm_dpo``, in ``cold_start`` inside the run folder.

    Args:
        data: File with the demonstrations.
        held_out_frac: Share of them that is held out.
    Raises:
        RefusedInput: the run's settings do not fit it.
    """
    layer = embedded_layer("demonstrations") | {"run.dir": str(Path(config.run.dir) / "cold_start")}
    layer |= {"data.path": str(data), "data.held_out_frac": held_out_frac}
    layer |= {"model.lora_rank": None, "model.lora_alpha": None, "model.quantize": None}
    return _validated(flatten(config.model_dump(), source="the run's configuration") | layer, sources={})


def critique_rm_config(config: TrainConfig) -> TrainConfig:
    """The training of the critique reward model that comes before ``mm_dpo``, in ``critique_rm`` inside the run folder.

    It begins from the same model and keeps the run's data, workers and batches. Of MM-DPO's own settings it reads two.

    Raises:
        RefusedInput: the run's settings do not fit it.
    """
    settings = config.mm_dpo
    layer: Layer = {
        "algo": "critique_rm",
        "run.dir": str(Path(config.run.dir) / "critique_rm"),
        "run.steps": settings.critique_rm_steps or config.run.steps,
        "optimizer.lr": settings.critique_rm_lr or config.optimizer.lr,
    }
    shared = flatten(config.model_dump(exclude={"mm_dpo"}), source="the run's configuration")
    return _validated(shared | layer, sources={})


def _validated(layer: Layer, sources: dict[str, str]) -> TrainConfig:
    try:
        return TrainConfig.model_validate(nested(layer))
    except ValidationError as error:
        raise refusal(error, sources=sources) from error


def _named(config: TrainConfig) -> TrainConfig:
    run = config.run.model_copy(update={"dir": config.run.dir.replace("<algo>", config.algo)})
    return config.model_copy(update={"run": run})


@dataclass(frozen=True)
class _CommandLine:
    """Train a multimodal model with reinforcement or supervised learning."""

    train: Annotated[TrainConfig, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    config: tuple[Path, ...] = ()
    """TOML files, later ones override earlier ones; flags override them all. Repeatable."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan and stop."""


def _print_help() -> None:
    tyro.cli(_CommandLine, args=["--help"], prog=_PROGRAM, use_underscores=True)
