"""From a command line to a validated configuration: defaults < files left to right < flags."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro
from pydantic import ValidationError

from orchestrator.config.flags import Words, parse_flags, split_words, words_of
from orchestrator.config.layers import (
    Layer,
    embedded_defaults,
    flatten,
    nested,
    profile_defaults,
    read_toml,
)
from orchestrator.config.options import config_type, options
from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import NamedRun, StageTable, refers_to, stage_of, stage_tables
from orchestrator.errors import RefusedInput, refusal

_PROGRAM = "python -m orchestrator.train"
_CONFIG_HELP = "TOML files, later ones override earlier ones; flags override them all. Repeatable."


@dataclass(frozen=True, slots=True)
class CliOptions:
    """What the command line says besides the configuration."""

    dry_run: bool


def load_config(argv: Sequence[str]) -> tuple[TrainConfig, CliOptions]:
    """Read a command line that is of one run; see ``load_runs``.

    Raises:
        RefusedInput: likewise, or it is of several.
    """
    runs, command = load_runs(argv)
    if runs[0].name:
        raise RefusedInput("a file with [[stage]] tables is for orchestrator.train alone")
    return runs[0].config, command


def load_runs(argv: Sequence[str]) -> tuple[list[NamedRun], CliOptions]:
    """Read the command line of ``orchestrator.train``, program name excluded.

    The schema's defaults rank lowest, then the algorithm's, the embedded task's and the profile's, then TOML files left
    to right, then the ``[[stage]]`` table where there are any, then flags.

    Returns:
        One run, or one for each ``[[stage]]``, and what the command line says besides.
    Raises:
        RefusedInput: anything that cannot be used, in one line.
        SystemExit: code 0, after ``--help`` was printed.
    """
    words = split_words(argv)
    files = {path: read_toml(path) for path in words_of("config", words)}
    stages = stage_tables(files)
    if not stages:
        config, command = _load(words, files, None)
        refers_to(config, before=[], where="")
        return [NamedRun("", config)], command
    if words_of("algo", words):
        raise RefusedInput(f"--algo is each [[stage]]'s own in {stages[0].file}")
    runs: list[NamedRun] = []
    for stage in stages:
        config, command = _load(words, files, stage)
        run = config.run.model_copy(update={"dir": str(Path(config.run.dir) / stage.name)})
        before = [run.name for run in runs if run.measure is None]
        refers_to(config, before=before, where=f"stage {stage.name!r}: ")
        runs.append(NamedRun(stage.name, config.model_copy(update={"run": run}), stage.measure))
    return runs, command


def _load(
    words: Words, files: Mapping[str, dict[str, Any]], stage: StageTable | None
) -> tuple[TrainConfig, CliOptions]:
    named = [tree["algo"] for tree in (*files.values(), *([stage.options] if stage else [])) if "algo" in tree]
    named += words_of("algo", words)
    kind = config_type(named[-1] if named else None)
    flags = parse_flags(words, options(kind))
    chosen: Layer = {}
    sources: dict[str, str] = {}
    layers = [(flatten(files[path], known=options(kind), source=path), path) for path in flags.config_files]
    if stage is not None:
        source = f"stage {stage.name!r} of {stage.file}"
        layers.insert(0, ({"run.dir": f"runs/{Path(stage.file).stem}"}, source))
        layers.append((flatten(stage.options, known=options(kind), source=source), source))
        if "run.dir" in layers[-1][0]:
            raise RefusedInput(f"run.dir in {source}: a stage has a folder of its name in the run.dir of all")
        for name, value in layers[-1][0].items():
            if name in flags.values and stage_of(name, value) is not None:
                raise RefusedInput(f"--{name} is for all stages, but {source} has {value!r} there")
    for layer, source in layers:
        chosen |= layer
        sources |= dict.fromkeys(layer, f"in {source}")
    chosen |= flags.values
    sources |= dict.fromkeys(flags.values, "on the command line")
    if flags.help:
        _print_help(kind, chosen, sources)
    return resolve(kind, chosen, sources), CliOptions(dry_run=flags.dry_run)


def resolve(kind: type[TrainConfig], chosen: Layer, sources: Mapping[str, str]) -> TrainConfig:
    """A run's configuration from a user's settings.

    Args:
        kind: As ``config_type`` has it for their algorithm.
        sources: Where each value came from, by dotted name.
    Raises:
        RefusedInput: in one line.
    """
    if "algo" not in chosen:
        raise RefusedInput("--algo is not set")
    embedded = chosen.get("data.path", "none") == "none" and not chosen.get("data.source")
    layers = _defaults(kind, chosen, sources, embedded=embedded)
    config = validated(kind, layers | chosen, sources)
    name = config.users.name if config.users is not None and config.users.text == config.algo else config.algo
    run = config.run.model_copy(update={"dir": config.run.dir.replace("<algo>", name)})
    return config.model_copy(update={"run": run})


def _defaults(kind: type[TrainConfig], chosen: Layer, sources: Mapping[str, str], *, embedded: bool) -> Layer:
    """What ranks between the schema's defaults and the user's settings; nothing for an algorithm that there is not."""
    try:
        algorithm = kind.class_of(chosen["algo"])
    except (KeyError, TypeError):
        return {}
    task = embedded_defaults(algorithm, chosen["algo"], str(chosen.get("task", "digits"))) if embedded else {}
    return {**algorithm.defaults, **task, **profile_defaults(algorithm, chosen, sources)}


def validated(kind: type[TrainConfig], layer: Layer, sources: Mapping[str, str]) -> TrainConfig:
    """Values as a configuration.

    Raises:
        RefusedInput: one is not to be used, or some contradict each other.
    """
    try:
        return kind.model_validate(nested(layer))
    except ValidationError as error:
        raise refusal(error, sources=sources) from error


def _print_help(kind: type[TrainConfig], chosen: Layer, sources: Mapping[str, str]) -> NoReturn:
    """All options with the chosen algorithm's defaults, or with the schema's where none is chosen."""
    train: Any = Annotated[kind, tyro.conf.arg(name=""), tyro.conf.FlagConversionOff]
    defaults = field()
    if "algo" in chosen:
        own = {name: chosen[name] for name in ("algo", "profile") if name in chosen}
        layer = _defaults(kind, chosen, sources, embedded=False) | own
        defaults = field(default=validated(kind, layer, sources))
    files = Annotated[tuple[Path, ...], tyro.conf.arg(help=_CONFIG_HELP)]
    dry_run = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print the plan and stop.")]
    own_flags = (("config", files, field(default=())), ("dry_run", dry_run, field(default=False)))
    command_line = make_dataclass("CommandLine", (("train", train, defaults), *own_flags))
    command_line.__doc__ = "Train a multimodal model with reinforcement or supervised learning."
    tyro.cli(command_line, args=["--help"], prog=_PROGRAM, use_underscores=True)
    raise SystemExit(0)
