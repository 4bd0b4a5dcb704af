"""An offline run from its configuration to the closing summary."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator.cluster.launch import ray_cluster
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.config.data_folders import is_store
from orchestrator.config.schema import TrainConfig
from orchestrator.data.stores import OfflineData, open_data
from orchestrator.pipeline.answers import check_answers
from orchestrator.pipeline.learn import learn
from orchestrator.pipeline.mm_dpo import critique_stage, refuse_other_stages
from orchestrator.pipeline.stages import Running, Stage, Tell, fits, go_through, keep
from orchestrator.pipeline.summary import next_lines
from orchestrator.rewards.critique_service import check_critique_models, critique_limits
from orchestrator.run.checkpoint import finished_checkpoint
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import option_identity, settled
from orchestrator.training.loop import kept_outcome
from orchestrator.training.offline import looked_through, offline_identity

_HELD_OUT = {"eval/pair_accuracy": "pair accuracy", "eval/token_accuracy": "token accuracy"}


def train_offline(config: TrainConfig, plan: PlacementPlan, folder: RunFolder, stages: list[Stage]) -> None:
    """Read the data, go through the stages, and say what came of it.

    Raises:
        RefusedInput: see ``critique_limits``, ``open_data``, ``check_critique_models``, ``check_answers`` and
            ``reference_table``.
    """
    judge = config.judge_path
    judged = config.needs.pair_betas and (judge or config.needs.margins)
    if judged and config.judge_role == "critique_reward":
        critique_limits(config, judge or config.model.folder)
    _forget_other_imports(config, folder)
    data = open_data(config, folder)
    check_critique_models(config, data)
    if judged:
        check_answers(config, data)
    told = ""
    if config.needs.margins and judge is None:
        # Data without critiques is refused now, not by the stage that needs them.
        stage = critique_stage(config, data)
        told = _told(stages[0].title, looked_through(stage, open_data(stage, folder)))
    refuse_other_stages(config, folder, data)
    data = looked_through(config, data)
    sys.stdout.write(told + _told("data", data))
    running = Running(config=config, plan=plan, folder=folder, data=data)
    alone = not config.needs.pair_betas
    if alone and finished_checkpoint(folder, config, offline_identity(config, data, {}), stage=False):
        sys.stdout.write(f"{folder.root}, made before\n")
        running.outcome = kept_outcome(config, folder)
    else:
        with ray_cluster(plan):
            go_through(stages, running)
    if running.outcome is not None:
        _print_summary(running.outcome.before.figures, running.outcome.after.figures, folder.root)


def whole(running: Running, tell: Tell) -> None:
    """All of a run that learns from its data as they are."""
    running.outcome = learn(running.config, running.plan, running.folder, running.data, {})


def _told(what: str, data: OfflineData) -> str:
    return "".join(f"{what}: {line}\n" for line in data.lines())


def _forget_other_imports(config: TrainConfig, folder: RunFolder) -> None:
    """Let a file be imported again where its import is another run's, by its settings or because this one is afresh.

    What lies there without our mark is not ours to remove.
    """
    data, mark = config.data, folder.root / "imported_with.json"
    options = settled(option_identity(config))
    made_from = {name: value for name, value in options.items() if name.startswith("data.")}
    if mark.is_file() and (config.run.resume == "never" or not fits(mark, made_from)):
        for name, path in (("store", data.path), ("eval_store", data.eval_path)):
            if path is not None and Path(path).exists() and not is_store(path):
                shutil.rmtree(folder.root / name, ignore_errors=True)
    keep(mark, made_from)


def _print_summary(before: Mapping[str, float], after: Mapping[str, float], root: Path) -> None:
    for name, told in _HELD_OUT.items():
        if name in after:
            sys.stdout.write(f"\nHeld-out {told} {before[name]:.3f} before, {after[name]:.3f} after\n")
    sys.stdout.write("".join(line + "\n" for line in next_lines(root)))
