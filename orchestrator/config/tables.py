"""Several runs in one file: ``[[stage]]`` tables, each an algorithm with its own settings, one after the other.

    [run]
    dir = "runs/mine"            # what stands outside the tables is every stage's

    [[stage]]
    name = "sft"
    algo = "sft"
    data.path = "demonstrations.jsonl"

    [[stage]]
    name = "policy"
    algo = "dpo"
    from = "sft"                 # its model; the same as model.path = "stage:sft"
    data.path = "pairs.jsonl"

    [[stage]]
    name = "measured"
    evaluate = "vl_reward_bench" # in place of algo; with votes, order, form, template, compat
    from = "policy"
    data.path = "VL-RewardBench/data"

A stage has the run folder ``run.dir/NAME``. In an option that is a path, ``"stage:NAME"`` stands for the model of an
earlier one, and ``"stage:NAME/PATH"`` for what else it left in its folder: a reference's table, answers, a store. An
adapter is merged into its base for it, but for ``model.adapter``.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from orchestrator.config.benchmarks import Measure
from orchestrator.config.layers import layer_of
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput, refusal

KEY = "stage"
_PREFIX = "stage:"
_PATHS = ("path", "adapter", "eval_path", "media_root", "judge_path", "scalar_path", "teacher_path")
"""Last words of the options that may stand for something of an earlier stage; elsewhere the word is a word."""
_ASKED_ONLY = "sft"
"""Stands for the algorithm where none trains: the options are those of a run that asks for answers."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class StageTable:
    """One ``[[stage]]`` as it stands in its file."""

    name: str
    file: str
    options: Mapping[str, Any]
    """All but name and ``from``; of the latter, ``model.path``."""
    measure: Measure | None = None
    """In place of training."""


@dataclass(frozen=True, slots=True)
class NamedRun:
    """A run that is one of several; alone it has no name."""

    name: str
    config: TrainConfig
    """Its paths may stand for what earlier stages make."""
    measure: Measure | None = None
    """Of a stage that measures a model, and trains none."""

    def made_elsewhere(self) -> dict[str, str]:
        """Options that stand for something of an earlier stage, with that stage's name."""
        values = layer_of(self.config).items()
        return {option: stage for option, value in values if (stage := stage_of(option, value)) is not None}


def stage_tables(files: Mapping[str, dict[str, Any]]) -> list[StageTable]:
    """Take the ``[[stage]]`` tables out of decoded files; none where no file has any.

    Raises:
        RefusedInput: two files have some, or one is no stage.
    """
    having = [path for path, tree in files.items() if KEY in tree]
    if len(having) > 1:
        raise RefusedInput(f"[[stage]] stands in {having[0]} and in {having[1]}; expected one file with all stages")
    found: list[StageTable] = []
    for path in having:
        tables = files[path].pop(KEY)
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise RefusedInput(f"{KEY} in {path} is no list of tables; write [[stage]] above each")
        for number, table in enumerate(tables, start=1):
            found.append(_checked(table, path, number, before=found))
    return found


def refers_to(config: TrainConfig, *, before: Sequence[str], where: str) -> None:
    """Refuse what stands for something of a stage that does not come earlier, or for a file outside its folder.

    Args:
        before: Names of the earlier stages.
        where: What names the run; empty of one that is alone.
    Raises:
        RefusedInput: with the stages that do.
    """
    for option, value in layer_of(config).items():
        stage = stage_of(option, value)
        if stage is None:
            continue
        if stage not in before:
            earlier = ", ".join(map(repr, before)) or "none"
            raise RefusedInput(f"{where}{option} = {value!r} names no earlier stage; earlier are {earlier}")
        path = PurePosixPath(value.partition("/")[2])
        if path.is_absolute() or ".." in path.parts:
            raise RefusedInput(f"{where}{option} = {value!r} leaves the stage's folder")


def resolved(option: str, value: Any, folders: Mapping[str, Path], model: Callable[[Path], Path]) -> Any:
    """A value with the path that it stands for.

    Args:
        folders: Of the earlier stages' runs.
        model: From such a folder to the model that was trained in it.
    """
    stage = stage_of(option, value)
    if stage is None:
        return value
    _, slash, path = value.removeprefix(_PREFIX).partition("/")
    return str(folders[stage] / path if slash else model(folders[stage]))


def stage_of(option: str, value: Any) -> str | None:
    """The stage that a value names; None where it names none."""
    if option.rpartition(".")[2] not in _PATHS or not isinstance(value, str) or not value.startswith(_PREFIX):
        return None
    return value.removeprefix(_PREFIX).partition("/")[0]


def made(option: str, path: str | None) -> str | None:
    """A path that is there already; None where it is none, or stands for what an earlier stage is to make."""
    return None if path is None or stage_of(option, path) is not None else path


def _checked(table: dict[str, Any], path: str, number: int, *, before: Sequence[StageTable]) -> StageTable:
    where, options = f"stage {number} in {path}", dict(table)
    name, begins = options.pop("name", None), options.pop("from", None)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RefusedInput(f"{where}: name is {name!r}, expected letters, digits, '_' and '-'")
    taken = [stage.name for stage in before]
    if name in taken:
        raise RefusedInput(f"{where}: name = {name!r} is that of stage {taken.index(name) + 1} too")
    measure = _measure(options, where)
    if begins is None:
        return StageTable(name, path, options, measure)
    trained = [stage.name for stage in before if stage.measure is None]
    if not isinstance(begins, str) or begins not in trained:
        earlier = ", ".join(map(repr, trained)) or "none"
        raise RefusedInput(f"{where}: from = {begins!r} names no earlier stage; earlier are {earlier}")
    if not isinstance(options.get("model", {}), dict):
        raise RefusedInput(f"{where}: model = {options['model']!r}, expected a table, or model.path")
    if "path" in options.get("model", {}):
        raise RefusedInput(f"{where}: from and model.path both say what it begins from")
    return StageTable(name, path, {**options, "model": {**options.get("model", {}), "path": _PREFIX + begins}}, measure)


def _measure(options: dict[str, Any], where: str) -> Measure | None:
    """Take what says how a model is measured out of a stage's options, and leave what it is asked with.

    Returns:
        None where the stage trains.
    """
    own = [name for name in Measure.model_fields if name in options]
    if "evaluate" not in own:
        return None  # what else there is of it is no option, and refused as such
    if "algo" in options:
        raise RefusedInput(f"{where}: evaluate and algo both say what it does")
    data = options.get("data", {})
    if not isinstance(data, dict) or "path" not in data:
        raise RefusedInput(f"{where}: evaluate needs data.path, the benchmark's file")
    options["algo"] = _ASKED_ONLY
    try:
        return Measure.model_validate({name: options.pop(name) for name in own})
    except ValidationError as error:
        raise RefusedInput(f"{where}: {refusal(error)}") from error
