"""What an offline run holds while it goes on: stores, the policy, and everything a person sees."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from algorithms.preference_registry import PreferenceAlgorithm
from orchestrator.cluster.choices import shares_prompts
from orchestrator.cluster.launch import policy_engines, start_policy
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import base_spec, prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.pair_betas import weigh_pairs
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData, held_out_rows, measured
from orchestrator.data.stream import ExampleStream, encoded
from orchestrator.run.checkpoint import Progress
from orchestrator.run.console import Console
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity
from orchestrator.run.log import RunLogFormatter
from orchestrator.run.metrics import MEMORY_PREFIX, PhaseClock
from orchestrator.run.start import started_run
from orchestrator.run.tracking import Tracker
from orchestrator.training.generated import GeneratedCritiques
from orchestrator.training.groups import GroupMaker
from orchestrator.training.held_out import HeldOut
from orchestrator.training.offline_identity import Tables, offline_identity
from orchestrator.training.reference import Reference
from workers.models.positions import max_positions
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder

Metrics = dict[str, float]


@dataclass(slots=True, kw_only=True)
class OfflineSession:
    """One run."""

    config: TrainConfig
    algorithm: PreferenceAlgorithm
    folder: RunFolder
    pool: WorkerPool
    stream: ExampleStream
    groups: GroupMaker
    share_prompts: bool
    longest_row: int
    """Most tokens of a prompt with all that follows it."""
    generated: GeneratedCritiques | None
    """Writes critiques for the steps that learn from the model's own; None where no step does."""
    reference: Reference
    held_out: HeldOut
    identity: Identity
    tracker: Tracker
    console: Console
    log: RunLogFormatter

    @property
    def deadline_s(self) -> float:
        """Longest wait for anything the workers do."""
        return self.config.rollout.timeout_s

    @contextmanager
    def phase(self, name: str, clock: PhaseClock) -> Iterator[None]:
        """Show what the run is doing and time it."""
        self.console.phase(name)
        with clock.phase(name):
            yield

    def evaluate(self, step: int) -> Metrics:
        """Figures on the held-out split after ``step`` steps, kept in ``evaluations/``; none without one."""
        self.console.phase("evaluate")
        metrics = self.held_out.evaluate()
        self.folder.evaluations.mkdir(exist_ok=True)
        write_atomic(self.folder.evaluation_file(step), json.dumps(metrics, indent=1) + "\n")
        return metrics

    def first_evaluation(self) -> Metrics:
        """The evaluation before the first step: made now, or read back by a resumed run."""
        file = self.folder.evaluation_file(0)
        return json.loads(file.read_text()) if file.is_file() else self.evaluate(0)

    def memory(self) -> Metrics:
        """Resident memory by role, GiB."""
        return {f"{MEMORY_PREFIX}{role}": gib for role, gib in self.pool.health.rss_gib().items()}

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put the figures of a finished step on disk and on the console."""
        self.log.step = step
        self.tracker.log(step, metrics)
        self.console.update(step, metrics)


def example_encoder(
    config: TrainConfig, encoder: PromptEncoder, media_root: Path, *, weighs_pairs: bool
) -> ExampleEncoder:
    """How instructions whose media are under ``media_root`` become examples.

    Args:
        weighs_pairs: Give each pair its β, where the algorithm asks for one.
    """
    assert config.offline is not None and config.model.path is not None
    critiques = CritiqueFormat(encoder, config.critique_rm.request) if config.offline.writes_critiques else None
    weigh = partial(weigh_pairs, settings=config.mm_dpo, beta=config.preference.beta)
    return ExampleEncoder(
        encoder,
        config.offline,
        media_root=media_root,
        score_margin=config.preference.score_margin,
        limits=Limits(
            max_prompt_tokens=config.data.max_prompt_tokens,
            tokens_per_microbatch=config.policy.tokens_per_microbatch,
            share_prompts=shares_prompts(config, config.model.path),
            positions=max_positions(encoder.config),
        ),
        critiques=critiques,
        weigh=weigh if config.offline.weighs_pairs and weighs_pairs else None,
    )


def looked_through(config: TrainConfig, data: OfflineData) -> OfflineData:
    """The data with every training row encoded once, so that what is too long is told and refused before the run.

    Raises:
        RefusedInput: see ``measured``.
    """
    assert config.model.path is not None
    encoder = prompt_encoder(config)
    # Margins are known only once there is a reward model.
    weighs = not config.measures_margins
    return measured(data, config, example_encoder(config, encoder, data.train.media_root, weighs_pairs=weighs))


@contextmanager
def open_offline_session(
    config: TrainConfig,
    folder: RunFolder,
    pool: WorkerPool,
    encoder: PromptEncoder,
    data: OfflineData,
    tables: Tables,
) -> Iterator[tuple[OfflineSession, Progress]]:
    """Start the policy, and the reference where it answers at every step; resume if there is something to resume.

    Args:
        tables: Finished ones; empty where nothing is precomputed.
    Yields:
        The session and where it stands.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    algorithm = config.offline
    assert algorithm is not None and config.model.path is not None
    identity = offline_identity(config, data, tables)
    with started_run(config, folder, identity=identity, counts=data.counts) as start:
        if config.reference_workers:
            pool.start_reference(base_spec(config, config.model.path))
        start_policy(config, pool, start.checkpoint, num_updates=start.progress.num_updates)
        reference = Reference(config, pool)
        share = shares_prompts(config, config.model.path)
        imitate = config.mm_dpo if algorithm.weighs_pairs and config.mm_dpo.sft_weight else None
        groups = GroupMaker(algorithm, config.preference, share_prompts=share, imitate=imitate)
        generated = scheduled_critiques(config, folder, pool, encoder) if config.generates_critiques else None
        # Held-out pairs are judged whatever they would count in training.
        of_held_out = example_encoder(config, encoder, data.held_out_store.media_root, weighs_pairs=False)
        measured_on = held_out_rows(data, side_tables=_joined(tables, data.held_out_store))
        held_out, left_out = encoded(measured_on, of_held_out)
        for line in left_out.lines(len(measured_on)):
            start.console.note(line)
        yield (
            OfflineSession(
                config=config,
                algorithm=algorithm,
                folder=folder,
                pool=pool,
                stream=ExampleStream(
                    data.train,
                    example_encoder(config, encoder, data.train.media_root, weighs_pairs=True),
                    side_tables=_joined(tables, data.train),
                ),
                groups=groups,
                share_prompts=share,
                longest_row=longest_row(config, encoder),
                generated=generated,
                reference=reference,
                held_out=HeldOut(
                    held_out,
                    config,
                    pool,
                    groups=groups,
                    reference=reference,
                ),
                identity=identity,
                tracker=start.tracker,
                console=start.console,
                log=start.log,
            ),
            start.progress,
        )


def scheduled_critiques(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder
) -> GeneratedCritiques:
    """Engines that follow the critique reward model while it learns."""
    return GeneratedCritiques(
        lambda probe: policy_engines(config, folder.root, pool, probe=probe),
        share=config.critique_rm.scheduled_sampling,
        seed=config.run.seed,
        max_new_tokens=config.reward.critique.max_new_tokens,
        max_model_len=longest_row(config, encoder),
        probe_prompts=config.sync.probe_prompts,
    )


def longest_row(config: TrainConfig, encoder: PromptEncoder) -> int:
    """Most tokens of a prompt with all that follows it."""
    positions, budget = max_positions(encoder.config), config.policy.tokens_per_microbatch
    return budget if positions is None else min(positions, budget)


def _joined(tables: Tables, store: PreferenceStore) -> dict[str, SideTable]:
    return {name: by_folder[store.folder] for name, by_folder in tables.items()}
