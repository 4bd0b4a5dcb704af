"""Learning from stored responses: the store as a stream of examples, and held-out ones that nobody learns from."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from algorithms.preference_registry import PreferenceAlgorithm
from orchestrator.cluster.choices import shares_prompts
from orchestrator.cluster.launch import policy_engines
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import REFERENCE_TABLE, ExampleEncoder
from orchestrator.data.limits import Limits
from orchestrator.data.pair_betas import weigh_pairs
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData, held_out_rows, measured
from orchestrator.data.stream import ExampleStream, encoded
from orchestrator.run.checkpoint import Progress
from orchestrator.run.folder import RunFolder
from orchestrator.run.identity import Identity, run_identity
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.generated import GeneratedCritiques
from orchestrator.training.groups import GroupMaker
from orchestrator.training.held_out import HeldOut
from orchestrator.training.offline_step import train_step
from orchestrator.training.reference import Reference
from orchestrator.training.session import Evaluation, Metrics, Session
from workers.models.positions import max_positions
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder

Tables = Mapping[str, Mapping[Path, SideTable]]
"""Side tables by name, and by the folder of their store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineWork:
    """One optimizer step on the next examples of the store."""

    session: Session
    algorithm: PreferenceAlgorithm
    stream: ExampleStream
    groups: GroupMaker
    share_prompts: bool
    longest_row: int
    """Most tokens of a prompt with all that follows it."""
    generated: GeneratedCritiques | None
    """Writes critiques for the steps that learn from the model's own; None where no step does."""
    reference: Reference
    held_out: HeldOut

    @property
    def measures_start(self) -> bool:
        """Always."""
        return True

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """The next examples, and how many pairs a second."""
        progress, metrics = train_step(self, progress, clock)
        rate = metrics["preference/num_pairs"] / clock.metrics()["time/step_s"]
        return progress, metrics | {"throughput/pairs_per_s": rate}

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """What the policy itself thinks of held-out responses."""
        return Evaluation(figures=self.held_out.evaluate())


def offline_work(session: Session, encoder: PromptEncoder, data: OfflineData, tables: Tables) -> OfflineWork:
    """What a run on stores does.

    Args:
        tables: Finished ones; empty where nothing is precomputed.
    """
    config, pool, algorithm = session.config, session.pool, session.config.offline
    assert algorithm is not None and config.model.path is not None
    reference, share = Reference(config, pool), shares_prompts(config, config.model.path)
    imitate = config.mm_dpo if algorithm.weighs_pairs and config.mm_dpo.sft_weight else None
    groups = GroupMaker(algorithm, config.preference, share_prompts=share, imitate=imitate)
    # Held-out pairs are judged whatever they would count in training.
    of_held_out = example_encoder(config, encoder, data.held_out_store.media_root, weighs_pairs=False)
    measured_on = held_out_rows(data, side_tables=_joined(tables, data.held_out_store))
    held_out, left_out = encoded(measured_on, of_held_out)
    for line in left_out.lines(len(measured_on)):
        session.console.note(line)
    return OfflineWork(
        session=session,
        algorithm=algorithm,
        stream=ExampleStream(
            data.train,
            example_encoder(config, encoder, data.train.media_root, weighs_pairs=True),
            side_tables=_joined(tables, data.train),
        ),
        groups=groups,
        share_prompts=share,
        longest_row=longest_row(config, encoder),
        generated=scheduled_critiques(config, session.folder, pool, encoder) if config.generates_critiques else None,
        reference=reference,
        held_out=HeldOut(held_out, config, pool, groups=groups, reference=reference),
    )


def offline_identity(config: TrainConfig, data: OfflineData, tables: Tables) -> Identity:
    """What ``run_identity`` says of a run on stores.

    Args:
        tables: What the run learns from besides; a difference is told by the part of their fingerprint it is in. The
            reference's is left out: model, data and options tell all of it.
    """
    facts = {
        f"{name}.{part}": value
        for name, by_store in tables.items()
        if name != REFERENCE_TABLE
        for part, value in by_store[data.train.folder].fingerprint.parts().items()
    }
    apart = None if data.held_out_store is data.train else data.held_out_store.manifest.fingerprint
    return run_identity(config, rows=data.train.manifest.fingerprint, held_out=apart, facts=facts)


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
