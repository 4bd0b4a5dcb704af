"""Several runs, one after the other, as ``[[stage]]`` tables name them: each finds what those before it have made."""

import sys
from pathlib import Path

from orchestrator.config.layers import layer_of
from orchestrator.config.load import validated
from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import NamedRun, resolved
from orchestrator.pipeline.look_at_data import data_lines
from orchestrator.pipeline.run import check_run, dry_run, train
from orchestrator.run.model_folder import plain_folder


def dry_run_all(runs: list[NamedRun]) -> None:
    """Tell every run; what an earlier one makes is told by that one's name, and not looked at."""
    for number, run in enumerate(runs, start=1):
        _head(number, runs)
        dry_run(run.config, _known(run, runs))


def train_all(runs: list[NamedRun]) -> None:
    """Refuse what can be refused of any before the first one starts; then train each, unless it is done.

    Raises:
        RefusedInput: of the first run at fault.
    """
    if len(runs) > 1:
        for run in runs:
            known = _known(run, runs)
            check_run(run.config, known)
            if known.data == run.config.data:
                data_lines(known)
    for number, run in enumerate(runs, start=1):
        _head(number, runs)
        train(_found(run, runs))


def _head(number: int, runs: list[NamedRun]) -> None:
    if runs[0].name:
        run = runs[number - 1]
        made = "".join(f", {option} from {stage}" for option, stage in run.made_elsewhere().items())
        where = f"{run.config.algo} in {run.config.run.dir}{made}"
        sys.stdout.write(f"\nrun {number} of {len(runs)}, {run.name}: {where}\n")
        sys.stdout.flush()


def _found(run: NamedRun, runs: list[NamedRun]) -> TrainConfig:
    """The run with the paths of what has been made; checked anew, since now there is something to look at."""
    folders = {other.name: Path(other.config.run.dir) for other in runs}
    if not run.made_elsewhere():
        return run.config
    layer = {name: resolved(value, folders, plain_folder) for name, value in layer_of(run.config).items()}
    return validated(type(run.config), layer, sources={})


def _known(run: NamedRun, runs: list[NamedRun]) -> TrainConfig:
    """As much of the run as can be looked at now: its model is the one that the earlier stages began from."""
    made = run.made_elsewhere()
    if not made:
        return run.config
    config, by_name = run.config, {other.name: other for other in runs}
    sections = {"data": config.data, "model": config.model}
    if "model.path" in made:
        base = _known(by_name[made["model.path"]], runs).model.path
        sections["model"] = config.model.model_copy(update={"path": base})
    unmade = {option.partition(".")[2]: None for option in made if option in ("data.path", "data.eval_path")}
    sections["data"] = config.data.model_copy(update=unmade)
    if "reward.critique.path" in made:
        critique = config.reward.critique.model_copy(update={"path": None})
        sections["reward"] = config.reward.model_copy(update={"critique": critique})
    return config.model_copy(update=sections)
