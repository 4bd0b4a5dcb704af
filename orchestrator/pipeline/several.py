"""Several runs, one after the other, as ``[[stage]]`` tables name them: each finds what those before it have made."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from algorithms.settings import Section
from orchestrator.config.benchmarks import Measure
from orchestrator.config.layers import layer_of
from orchestrator.config.load import validated
from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import NamedRun, resolved
from orchestrator.data.recognising import with_format
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.look_at_data import data_lines
from orchestrator.pipeline.measure import check_measure, measured
from orchestrator.pipeline.run import check_run, dry_run, train
from orchestrator.run.checkpoint import refuse_another_run
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity
from orchestrator.run.model_folder import plain_folder, policy_folder

_S = TypeVar("_S", bound=Section)
_REWARD_MODELS = {"reward.critique.path": True, "reward.scalar_path": False, "critic.path": False}
"""Options that name a reward model, and whether it writes before it gives a reward."""


def dry_run_all(runs: list[NamedRun]) -> None:
    """Tell every run; what an earlier one makes is told by that one's name, and not looked at."""
    for number, run in enumerate(runs, start=1):
        _head(number, runs)
        if run.measure is None:
            dry_run(run.config, known_run(run, runs))
        else:
            sys.stdout.writelines(f"{line}\n" for line in check_stage(run, run.measure, runs))


def train_all(runs: list[NamedRun]) -> None:
    """Refuse what can be refused of any before the first one starts; then train or measure each, unless it is done.

    Raises:
        RefusedInput: of the first run at fault.
    """
    tables: list[str] = []
    if runs[0].name:
        _refuse(runs)
    for number, run in enumerate(runs, start=1):
        _head(number, runs)
        if run.measure is None:
            train(_found(run, runs))
        else:
            tables.append(measured(run.measure, _found(run, runs)))
    sys.stdout.writelines(f"\n{table}" for table in tables)


def _refuse(runs: list[NamedRun]) -> None:
    by_name = {run.name: run.config for run in runs}
    for run in runs:
        known, made = known_run(run, runs), run.made_elsewhere()
        if run.measure is not None:
            check_stage(run, run.measure, runs)
            continue
        checked = check_run(run.config, known)
        if not made:
            folder = RunFolder(Path(run.config.run.dir))
            refuse_another_run(folder, checked.config, option_identity(checked.config), whole=False)
        if known.data == run.config.data:
            data_lines(with_format(known))
        for option, writes in _REWARD_MODELS.items():
            judge = by_name.get(made.get(option, ""))
            if judge is not None and (judge.needs.head is None or judge.needs.head.keeps_language != writes):
                told = f"stage {run.name!r}: {option} = {layer_of(run.config)[option]!r}"
                kind = "critique" if writes else "scalar"
                raise RefusedInput(f"{told} is no {kind} reward model, as its algo is {judge.algo!r}")
    if runs[0].config.run.resume == "must" and not any(_has_begun(run) for run in runs):
        raise RefusedInput("run.resume = 'must', but no stage has a complete checkpoint")


def check_stage(run: NamedRun, measure: Measure, runs: list[NamedRun]) -> list[str]:
    """What the stage asks; see ``check_measure``."""
    maker = next((one for one in runs if one.name == run.made_elsewhere().get("model.path")), None)
    head, makes = None if maker is None else maker.config.needs.head, "generative"
    if head is not None:
        makes = "critique" if head.keeps_language else "scalar"
    return check_measure(measure, run.config, known_run(run, runs), makes=makes)


def _has_begun(run: NamedRun) -> bool:
    return bool(RunFolder(Path(run.config.run.dir)).complete_checkpoints())


def _head(number: int, runs: list[NamedRun]) -> None:
    if runs[0].name:
        run = runs[number - 1]
        made = "".join(f", {option} from {stage}" for option, stage in run.made_elsewhere().items())
        what = run.config.algo if run.measure is None else f"evaluate {run.measure.evaluate}"
        where = f"{what} in {run.config.run.dir}{made}"
        sys.stdout.write(f"\nrun {number} of {len(runs)}, {run.name}: {where}\n")
        sys.stdout.flush()


def _found(run: NamedRun, runs: list[NamedRun]) -> TrainConfig:
    """The run with the paths of what has been made; checked anew, since now there is something to look at."""
    folders = {other.name: Path(other.config.run.dir) for other in runs}
    layer = layer_of(run.config)
    if run.name and run.config.run.resume == "must" and not _has_begun(run):
        layer["run.resume"] = "auto"  # of several runs, some must have begun
    found = {name: resolved(name, value, folders, _model_for(name, run.config)) for name, value in layer.items()}
    return run.config if found == layer_of(run.config) else _same_format(run, validated(type(run.config), found, {}))


def _model_for(option: str, config: TrainConfig) -> Callable[[Path], Path]:
    """From a run's folder to what it trained: merged where an adapter is not wanted as it is."""
    shared = config.placement.share_base and option in ("critic.path", "reward.scalar_path")
    return policy_folder if option == "model.adapter" or shared else plain_folder


def _same_format(run: NamedRun, found: TrainConfig) -> TrainConfig:
    """Validated anew, every option counts as set; a format that nobody has named does not."""
    if "format" in run.config.data.model_fields_set:
        return found
    found.data.model_fields_set.discard("format")
    return found


def known_run(run: NamedRun, runs: list[NamedRun]) -> TrainConfig:
    """As much of the run as can be looked at now: its model is the one that the earlier stages began from."""
    made = run.made_elsewhere()
    if not made:
        return run.config
    config, by_name = run.config, {other.name: other for other in runs}
    sections = {"data": config.data, "model": config.model}
    if "model.path" in made:
        base = known_run(by_name[made["model.path"]], runs).model.path
        sections["model"] = config.model.model_copy(update={"path": base})
    if "model.adapter" in made:
        sections["model"] = sections["model"].model_copy(update={"adapter": None})
    unmade = {option.partition(".")[2]: None for option in made if option in ("data.path", "data.eval_path")}
    sections["data"] = config.data.model_copy(update=unmade)
    known = config.model_copy(update=sections)
    for option, stage in made.items():
        if not option.startswith(("data.", "model.")):  # a judge, a teacher, a critic: a model in a folder of its own
            known = _with(known, option.split("."), known_run(by_name[stage], runs).model.path)
    return known


def _with(section: _S, names: Sequence[str], value: Any) -> _S:
    """The section with an option of its own, or of one within it, changed."""
    name, *rest = names
    return section.model_copy(update={name: _with(getattr(section, name), rest, value) if rest else value})
