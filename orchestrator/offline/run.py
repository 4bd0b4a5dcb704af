"""An offline run from its configuration to the closing summary."""

import shutil
import sys
from pathlib import Path

from orchestrator.cluster.launch import ray_cluster
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.schema import TrainConfig
from orchestrator.critiques.checks import check_critique_models
from orchestrator.critiques.service import critique_limits
from orchestrator.offline.answers import check_answers
from orchestrator.offline.data import OfflineData, open_data
from orchestrator.offline.learn import learn
from orchestrator.offline.loop import OfflineOutcome
from orchestrator.offline.made_from import fits, keep
from orchestrator.offline.mm_dpo import critique_stage, refuse_other_stages, run_mm_dpo
from orchestrator.offline.session import Metrics
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity, settled
from orchestrator.run.summary import next_lines

_HELD_OUT = {"eval/pair_accuracy": "pair accuracy", "eval/token_accuracy": "token accuracy"}


def train_offline(config: TrainConfig, plan: PlacementPlan, folder: RunFolder) -> None:
    """Read the data, make what must be made before the first step, train, and say what came of it.

    Raises:
        RefusedInput: see ``critique_limits``, ``open_data``, ``check_critique_models``, ``check_answers`` and
            ``reference_table``.
    """
    assert config.offline is not None
    critic = config.reward.critique.path
    judged = config.offline.weighs_pairs and (critic or config.measures_margins)
    if judged:
        assert config.model.path is not None
        critique_limits(config, critic or config.model.path)
    _forget_other_imports(config, folder)
    data = open_data(config, folder)
    check_critique_models(config, data)
    if judged:
        check_answers(config, data)
    if config.measures_margins and critic is None:
        # Data without critiques is refused now, not by the stage that needs them.
        open_data(critique_stage(config, data), folder)
    refuse_other_stages(config, folder, data)
    with ray_cluster(plan):
        run = run_mm_dpo if config.offline.weighs_pairs else _run
        outcome = run(config, plan, folder, data)
    _print_summary(outcome.before, outcome.after, folder.root)


def _forget_other_imports(config: TrainConfig, folder: RunFolder) -> None:
    """Let a file be imported again where its import is another run's, by its settings or because this one is afresh.

    What lies there without our mark is not ours to remove.
    """
    data, mark = config.data, folder.root / "imported_with.json"
    options = settled(option_identity(config))
    made_from = {name: value for name, value in options.items() if name.startswith("data.")}
    if mark.is_file() and (config.run.resume == "never" or not fits(mark, made_from)):
        for name, path in (("store", data.path), ("eval_store", data.eval_path)):
            if path is not None and Path(path).is_file():
                shutil.rmtree(folder.root / name, ignore_errors=True)
    keep(mark, made_from)


def _run(config: TrainConfig, plan: PlacementPlan, folder: RunFolder, data: OfflineData) -> OfflineOutcome:
    return learn(config, plan, folder, data, {})


def _print_summary(before: Metrics, after: Metrics, root: Path) -> None:
    for name, told in _HELD_OUT.items():
        if name in after:
            sys.stdout.write(f"\nHeld-out {told} {before[name]:.3f} before, {after[name]:.3f} after\n")
    sys.stdout.write("".join(line + "\n" for line in next_lines(root)))
