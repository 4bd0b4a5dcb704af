"""MM-DPO from data to figures: train a critique reward model, measure margins, learn, ask the policy and judge it.

Every stage leaves its result in the run folder under what it was made from. One that is there is not made again, one
that was interrupted goes on, and one that was made from something else is refused.
"""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

from algorithms.preference import PreferenceSection
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import REWARD_TABLE
from orchestrator.data.records import Split
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData, open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.answers import answers_made_from, evaluate_answers, told_answers
from orchestrator.pipeline.derived import critique_rm_config
from orchestrator.pipeline.learn import learn
from orchestrator.pipeline.stages import Running, Tell, fits, keep
from orchestrator.rewards.critique_margins import agreement, fill_rewards, reward_statuses, reward_table
from orchestrator.rewards.offline_judge import judge_fingerprint, offline_judge
from orchestrator.run.checkpoint import finished_checkpoint, refuse_another_run
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.model_folder import plain_folder
from orchestrator.run.recovery import with_restarts
from orchestrator.training.loop import kept_outcome
from orchestrator.training.offline import looked_through, offline_identity

_ANSWERS_MADE_FROM = "answers_made_from.json"


def critique_stage(config: TrainConfig, data: OfflineData) -> TrainConfig:
    """The training of the critique reward model on the run's own stores: a file is imported once."""
    stage = critique_rm_config(config)
    apart = None if data.held_out_store is data.train else str(data.held_out_store.folder)
    paths = {"path": str(data.train.folder), "eval_path": apart}
    return stage.model_copy(update={"data": stage.data.model_copy(update=paths)})


def refuse_other_stages(config: TrainConfig, folder: RunFolder, data: OfflineData) -> None:
    """Refuse a run folder in which a stage was made otherwise, as far as that is known before any is made.

    Raises:
        RefusedInput: naming what differs.
    """
    if config.measures_margins and config.judge_path is None:
        stage = critique_stage(config, data)
        stage_folder = RunFolder(Path(stage.run.dir))
        refuse_another_run(stage_folder, stage, offline_identity(stage, data, {}), stage=True)
    refuse_another_run(folder, config, offline_identity(config, data, {}), whole=False)


def reward_model(running: Running, tell: Tell) -> None:
    """Train a critique reward model, in ``critique_rm`` inside the run's folder, unless there is a reward model.

    Raises:
        RefusedInput: the data cannot train it, or the run folder holds the result of a stage that was made from
            something else, or nothing at all where ``run.resume`` is ``must``.
    """
    running.config = config = _whole(running.config, running.folder)
    running.reward_model = config.judge_path
    if not config.measures_margins:
        return
    if running.reward_model is not None:
        tell(f"taken from {running.reward_model}")
        return
    stage = critique_stage(config, running.data)
    folder = RunFolder(Path(stage.run.dir))
    folder.create()
    try:
        if finished_checkpoint(folder, stage, offline_identity(stage, running.data, {}), stage=True):
            tell(f"{folder.root}, made before")
        else:
            tell(folder.root)
            learn(stage, running.plan, folder, looked_through(stage, open_data(stage, folder)), {})
        running.reward_model = str(plain_folder(folder.root))
    finally:
        folder.release()


def margins(running: Running, tell: Tell) -> None:
    """A finished table of rewards for each store."""
    config, data, model = running.config, running.data, running.reward_model
    if not config.measures_margins or model is None:
        return
    root, stores = running.folder.root / "rewards", data.by_role
    if config.run.resume == "never":
        shutil.rmtree(root, ignore_errors=True)
    tables = {
        store.folder: reward_table(root / role, store, judge_fingerprint(config, store, model))
        for role, store in stores.items()
    }
    counted = root / "counts.json"
    made = counted.is_file() and not any(table.missing_shards() for table in tables.values())
    tell(f"{root}, made before" if made else root)

    def measure(again: TrainConfig) -> None:
        images = most_images(list(stores.values()))
        with offline_judge(again, running.folder, data.train, model, max_images=images) as judge:
            for store in stores.values():
                fill_rewards(tables[store.folder], store, judge, on_shard=_tell_shards)
            counts = sum((reward_statuses(store, judge) for store in stores.values()), Counter[str]())
        write_atomic(counted, json.dumps(counts, indent=1) + "\n")

    if not made:
        with_restarts(measure, config, running.folder)
    told = ", ".join(f"{count} {status}" for status, count in json.loads(counted.read_text()).items())
    sys.stdout.write(f"rewards of responses: {told}\n")
    _tell_agreement(config, data, tables)
    running.tables[REWARD_TABLE] = tables


def policy(running: Running, tell: Tell) -> None:
    """Learn, unless that has been done; run.steps may grow, as in any run that is resumed."""
    config, folder, data, tables = running.config, running.folder, running.data, running.tables
    if not finished_checkpoint(folder, config, offline_identity(config, data, tables), stage=False):
        tell(folder.root)
        running.outcome = learn(config, running.plan, folder, data, tables)
        return
    tell(f"{folder.root}, made before")
    running.outcome = kept_outcome(config, folder)


def evaluation(running: Running, tell: Tell) -> None:
    """Ask the policy and judge its answers, where there is a model that can."""
    config, folder, data, model = running.config, running.folder, running.data, running.reward_model
    if model is None:
        return
    made_from, mark = answers_made_from(config, folder, data, model), folder.evaluations / _ANSWERS_MADE_FROM
    if config.run.resume != "never" and fits(mark, made_from):
        tell(f"{folder.evaluations}, made before")
    else:
        tell(folder.evaluations)
        # First: it must not vouch for answers that are only half replaced.
        mark.unlink(missing_ok=True)
        with_restarts(lambda again: evaluate_answers(again, folder, data, model), config, folder)
        keep(mark, made_from)
    sys.stdout.write(told_answers(folder) + "\n")


def most_images(stores: list[PreferenceStore]) -> int:
    """Most images of an instruction."""
    return max((len(row.media) for store in stores for row in store.rows()), default=0)


def _whole(config: TrainConfig, folder: RunFolder) -> TrainConfig:
    """``must`` asks that something of the run is there; a stage of it may begin all the same."""
    if config.run.resume != "must":
        return config
    stage = RunFolder(folder.root / "critique_rm")
    if not (folder.complete_checkpoints() or stage.complete_checkpoints() or (folder.root / "rewards").is_dir()):
        raise RefusedInput(f"run.resume = 'must', but {str(folder.root)!r} holds nothing that a stage has made")
    return config.model_copy(update={"run": config.run.model_copy(update={"resume": "auto"})})


def _tell_agreement(config: TrainConfig, data: OfflineData, tables: dict[Path, SideTable]) -> None:
    train: tuple[Split, ...] = ("train",)
    margin = config.section(PreferenceSection).score_margin
    for name, store, splits in (
        ("train", data.train, train),
        ("held out", data.held_out_store, data.held_out_splits),
    ):
        share, pairs = agreement(store, tables[store.folder], splits, score_margin=margin)
        if pairs:
            sys.stdout.write(f"{config.judge_words}: right on {share:.3f} of {pairs} pairs, {name}\n")


def _tell_shards(done: int, total: int) -> None:
    sys.stdout.write(f"rewards: {done} of {total} shards\n")
    sys.stdout.flush()
