"""MM-DPO from data to figures: train the critique reward model, measure margins, learn, ask the policy and judge it.

Every stage leaves its result in the run folder under the fingerprints of what it was made from. One that is there is
not made again, and one that was interrupted goes on.
"""

import json
import sys
from pathlib import Path
from typing import Any

from orchestrator.config.load import critique_rm_config
from orchestrator.config.schema import TrainConfig
from orchestrator.critiques.margins import agreement, fill_rewards, reward_table
from orchestrator.critiques.service import critique_judge, reward_fingerprint
from orchestrator.export import export
from orchestrator.offline.answers import evaluate_answers
from orchestrator.offline.data import OfflineData, open_data
from orchestrator.offline.learn import learn
from orchestrator.offline.loop import OfflineOutcome
from orchestrator.offline.pair_betas import REWARD_TABLE
from orchestrator.placement import PlacementPlan
from orchestrator.preference_store.side_tables import SideTable
from orchestrator.preference_store.store import PreferenceStore
from orchestrator.run_folder import RunFolder, write_atomic

_MAKES_THE_MODEL: Any = {
    "run": {"seed", "steps"},
    **dict.fromkeys(("model", "critique_rm", "optimizer", "policy", "batching", "preference"), True),
}
_STAGES = ("critique reward model", "margins", "reference and MM-DPO", "evaluation")


def run_mm_dpo(config: TrainConfig, plan: PlacementPlan, folder: RunFolder, data: OfflineData) -> OfflineOutcome:
    """Run every stage in the running cluster.

    Raises:
        RefusedInput: the data cannot train the critique reward model, or ``reward.critique.path`` is none.
    """
    model, tables = config.reward.critique.path, {}
    if config.mm_dpo.beta_mode == "margin":
        if model is None:
            model = _critique_model(config, plan, folder)
        else:
            _tell(0, f"taken from {model}")
        tables = {REWARD_TABLE: _margins(config, folder, data, model)}
    _tell(2, folder.root)
    outcome = learn(config, plan, folder, data, tables)
    if model is not None:
        _tell(3, folder.evaluations)
        sys.stdout.write(evaluate_answers(config, folder, data, model) + "\n")
    return outcome


def most_images(stores: list[PreferenceStore]) -> int:
    """Most images of an instruction."""
    return max((len(row.media) for store in stores for row in store.rows()), default=0)


def _critique_model(config: TrainConfig, plan: PlacementPlan, folder: RunFolder) -> str:
    """Folder of the critique reward model that the run trains first, in ``critique_rm`` inside its own."""
    stage = critique_rm_config(config)
    stage_folder = RunFolder(Path(stage.run.dir))
    last = stage_folder.checkpoint(stage.run.steps)
    # Workers load plain folders.
    model = last / "policy" if stage.model.lora_rank is None else stage_folder.root / f"merged_{last.name}"
    mark = stage_folder.root / "done.json"
    stage_folder.create()
    try:
        data = open_data(stage, stage_folder)
        made_from = {
            "data": data.train.manifest.fingerprint,
            "config": stage.model_dump(mode="json", include=_MAKES_THE_MODEL),
        }
        if mark.is_file() and json.loads(mark.read_text()) == made_from and model.is_dir():
            _tell(0, f"{model}, made before")
            return str(model)
        _tell(0, stage_folder.root)
        learn(stage, plan, stage_folder, data, {})
        if not model.is_dir():
            export(last, model)
        write_atomic(mark, json.dumps(made_from) + "\n")
    finally:
        stage_folder.release()
    return str(model)


def _margins(config: TrainConfig, folder: RunFolder, data: OfflineData, model: str) -> dict[Path, SideTable]:
    """A finished table of rewards for each store."""
    stores = data.by_role
    tables = {
        store.folder: reward_table(folder.root / "rewards" / role, store, reward_fingerprint(config, store, model))
        for role, store in stores.items()
    }
    missing = sum(len(table.missing_shards()) for table in tables.values())
    _tell(1, folder.root / "rewards" if missing else f"{folder.root / 'rewards'}, made before")
    if missing:
        fingerprint = reward_fingerprint(config, data.train, model)
        images = most_images(list(stores.values()))
        with critique_judge(config, folder, model, fingerprint, max_images=images) as judge:
            for store in stores.values():
                fill_rewards(tables[store.folder], store, judge)
            write_atomic(folder.root / "rewards" / "counts.json", json.dumps(judge.counts, indent=1) + "\n")
    for split in ("train", "held_out"):
        store = data.train if split == "train" else data.held_out_store
        share, pairs = agreement(store, tables[store.folder], split, score_margin=config.preference.score_margin)
        if pairs:
            sys.stdout.write(f"critique reward model: right on {share:.3f} of {pairs} pairs, {split}\n")
    return tables


def _tell(stage: int, text: object) -> None:
    sys.stdout.write(f"\nstage {stage + 1} of {len(_STAGES)}, {_STAGES[stage]}: {text}\n")
    sys.stdout.flush()
