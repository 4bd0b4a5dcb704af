"""One offline training: the reference's log-probs first, where they are computed beforehand, then the loop."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.cluster.launch import worker_pool
from orchestrator.cluster.placement import PlacementPlan
from orchestrator.cluster.plan import single_role_plan
from orchestrator.cluster.specs import following_engine_spec, prompt_encoder, reference_spec
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import REFERENCE_TABLE
from orchestrator.data.side_tables import SideTable, table_fingerprint
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData
from orchestrator.pipeline.precompute import fill_table
from orchestrator.run.console import Console
from orchestrator.run.folder import RunFolder
from orchestrator.run.manifest import write_config
from orchestrator.run.recovery import with_restarts
from orchestrator.training.ask import longest_row
from orchestrator.training.figures import figures_of
from orchestrator.training.loop import Outcome, run
from orchestrator.training.offline import Tables, example_encoder, offline_identity, offline_work
from orchestrator.training.session import open_session
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec


def learn(config: TrainConfig, plan: PlacementPlan, folder: RunFolder, data: OfflineData, tables: Tables) -> Outcome:
    """Train in the running cluster.

    Args:
        tables: What was made of the data beforehand, finished.
    Raises:
        RefusedInput: see ``reference_table``.
    """
    encoder = prompt_encoder(config)
    of_reference = _reference_tables(config, folder, data)
    write_config(config, folder)
    for store in data.by_role.values():
        if of_reference:
            _precompute(config, folder, encoder, store, of_reference[store.folder])
    joined = {**tables, **({REFERENCE_TABLE: of_reference} if of_reference else {})}
    with worker_pool(config, plan, _engines(config, plan, data, encoder)) as pool:

        def train(again: TrainConfig) -> Outcome:
            identity = offline_identity(again, data, joined)
            with open_session(
                again, folder, pool, identity=identity, counts=data.counts, figures=figures_of(again)
            ) as (session, start):
                return run(session, offline_work(session, encoder, data, joined), start)

        return with_restarts(train, config, folder)


def _engines(config: TrainConfig, plan: PlacementPlan, data: OfflineData, encoder: PromptEncoder) -> EngineSpec | None:
    """How the engines are built that write critiques while their model learns; None where there are none."""
    if not config.generates_critiques:
        return None
    images = max((len(row.media) for row in data.train.rows()), default=0)
    spec = following_engine_spec(config, plan, encoder, longest_prompt=0, max_images=images)
    return replace(spec, max_model_len=longest_row(encoder, config.policy.tokens_per_microbatch))


def _reference_tables(config: TrainConfig, folder: RunFolder, data: OfflineData) -> Mapping[Path, SideTable]:
    """The tables that the run reads, by the folder of their store; none where nothing is precomputed."""
    if not config.needs.reference or config.reference.mode != "precomputed":
        return {}
    root = Path(config.reference.path) if config.reference.path else folder.root / "reference"
    return {store.folder: reference_table(root / role, store, config) for role, store in data.by_role.items()}


def _precompute(
    config: TrainConfig,
    folder: RunFolder,
    encoder: PromptEncoder,
    store: PreferenceStore,
    table: SideTable,
) -> None:
    """Let reference workers make what the table lacks; they are gone before the policy starts."""
    if not table.missing_shards():
        return
    encode = example_encoder(config, encoder, store.media_root, weighs_pairs=False).scorable_sequences
    spec = reference_spec(config)
    with (
        Console(table.num_shards, title=f"reference log-probs in {table.folder}") as console,
        worker_pool(config, single_role_plan(config, "reference"), None) as pool,
    ):

        def fill(again: TrainConfig) -> None:
            pool.role("reference").start(spec)
            fill_table(
                table,
                store,
                encode,
                pool,
                deadline_s=again.rollout.timeout_s,
                on_shard=lambda done, total: console.note(f"reference: {done} of {total} shards"),
            )

        with_restarts(fill, config, folder)


def reference_table(folder: Path, store: PreferenceStore, config: TrainConfig) -> SideTable:
    """The table of the reference's log-probs of a store's responses, begun where there is none.

    Raises:
        RefusedInput: the folder has a table of another model, or of other settings or another store.
    """
    model = config.model
    fingerprint = table_fingerprint(config, store.manifest.fingerprint, model.folder, adapter=model.adapter)
    return SideTable(folder, fingerprint=fingerprint, num_shards=len(store.groups))
