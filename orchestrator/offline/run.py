"""An offline run from its configuration to the closing summary."""

import sys
from pathlib import Path

from orchestrator.config.schema import TrainConfig
from orchestrator.console import Console
from orchestrator.launch import model_spec, ray_cluster, worker_pool
from orchestrator.offline.data import OfflineData, open_data
from orchestrator.offline.loop import OfflineOutcome, run_offline
from orchestrator.offline.precompute import fill_table
from orchestrator.offline.reference import reference_table
from orchestrator.offline.session import Metrics, example_encoder, open_offline_session
from orchestrator.placement import PlacementPlan
from orchestrator.preference_store.side_tables import SideTable
from orchestrator.preference_store.store import PreferenceStore
from orchestrator.preflight import reference_plan
from orchestrator.recovery import with_restarts
from orchestrator.run_folder import RunFolder
from orchestrator.stages import write_manifest
from orchestrator.summary import next_lines
from workers.multimodal.prompt_encoder import PromptEncoder

_HELD_OUT = {"eval/pair_accuracy": "pair accuracy", "eval/token_accuracy": "token accuracy"}


def train_offline(config: TrainConfig, plan: PlacementPlan, folder: RunFolder) -> None:
    """Read the data, make what must be made before the first step, train, and say what came of it.

    Raises:
        RefusedInput: see ``open_data`` and ``reference_table``.
    """
    assert config.model.path is not None
    data = open_data(config, folder)
    encoder = PromptEncoder(config.model.path, trust_remote_code=config.model.trust_remote_code)
    tables = _tables(config, folder, data)
    write_manifest(
        config,
        folder,
        data_fingerprint=data.train.manifest.fingerprint,
        num_train=data.train.num_instructions("train"),
        num_bad_rows=data.train.manifest.counts.bad_rows + data.num_unusable,
        num_held_out=sum(map(data.held_out_store.num_instructions, data.held_out_splits)),
    )
    with ray_cluster(plan):
        for store in {s.folder: s for s in (data.train, data.held_out_store)}.values():
            if tables:
                _precompute(config, folder, encoder, data, store, tables[store.folder])
        with worker_pool(config, plan, None) as pool:

            def train(again: TrainConfig) -> OfflineOutcome:
                with open_offline_session(again, folder, pool, encoder, data, tables) as (session, start):
                    return run_offline(session, start)

            outcome = with_restarts(train, config, folder)
    _print_summary(outcome.before, outcome.after, folder.root)


def _tables(config: TrainConfig, folder: RunFolder, data: OfflineData) -> dict[Path, SideTable]:
    """The tables that the run reads, by the folder of their store; none where nothing is precomputed."""
    assert config.offline is not None and config.model.path is not None
    if not config.offline.needs_reference or config.reference.mode != "precomputed":
        return {}
    spec = model_spec(config, config.model.path)
    root = Path(config.reference.path) if config.reference.path else folder.root / "reference"
    by_role = {"held_out": data.held_out_store, "train": data.train}
    return {store.folder: reference_table(root / role, store, spec) for role, store in by_role.items()}


def _precompute(
    config: TrainConfig,
    folder: RunFolder,
    encoder: PromptEncoder,
    data: OfflineData,
    store: PreferenceStore,
    table: SideTable,
) -> None:
    """Let reference workers make what the table lacks; they are gone before the policy starts."""
    if not table.missing_shards():
        return
    assert config.model.path is not None
    encode = example_encoder(config, encoder, data, held_out=store is not data.train).all_sequences
    spec = model_spec(config, config.model.path)
    with (
        Console(table.num_shards, title=f"reference log-probs in {table.folder}") as console,
        worker_pool(config, reference_plan(config), None) as pool,
    ):

        def fill(again: TrainConfig) -> None:
            pool.start_reference(spec)
            fill_table(
                table,
                store,
                encode,
                pool,
                deadline_s=again.rollout.timeout_s,
                on_shard=lambda done, total: console.note(f"reference: {done} of {total} shards"),
            )

        with_restarts(fill, config, folder)


def _print_summary(before: Metrics, after: Metrics, root: Path) -> None:
    for name, told in _HELD_OUT.items():
        if name in after:
            sys.stdout.write(f"\nHeld-out {told} {before[name]:.3f} before, {after[name]:.3f} after\n")
    sys.stdout.write("".join(line + "\n" for line in next_lines(root)))
