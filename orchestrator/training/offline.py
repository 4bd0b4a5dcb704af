"""Learning from stored responses: the store as a stream of examples, and held-out ones that nobody learns from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from algorithms.algorithm import Algorithm
from algorithms.figures import Figure
from algorithms.preference import PreferenceSection
from algorithms.records import Example
from orchestrator.cluster.choices import shares_prompts
from orchestrator.cluster.launch import policy_engines
from orchestrator.cluster.specs import prompt_encoder
from orchestrator.config.schema import TrainConfig
from orchestrator.data.examples import REFERENCE_TABLE, ExampleEncoder, Limits
from orchestrator.data.side_tables import SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stores import OfflineData, held_out_rows, measured
from orchestrator.data.stream import ExampleStream, encoded
from orchestrator.errors import RefusedInput
from orchestrator.run.checkpoint import Progress
from orchestrator.run.identity import Identity, run_identity
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.ask import RunAsk, longest_row, run_ask
from orchestrator.training.generated import GeneratedCritiques
from orchestrator.training.session import Evaluation, Metrics, Session
from orchestrator.training.updates import after_updates, step_samples, take_updates, update_figures
from workers.models.needs import max_positions
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.fact_format import fact_format
from workers.multimodal.prompt_encoder import PromptEncoder

FIGURES = (
    Figure("data/epoch", "epochs begun before the next step"),
    Figure(
        "data/batch_digest48",
        "48 bits of who is in the step and in which order: equal numbers, equal batches",
    ),
    Figure("data/passed_over", "instructions that make nothing to learn from, each named in log.jsonl"),
    Figure("throughput/pairs_per_s", "pairs a second of the whole step", "Pairs a second", "rate"),
)
"""Of every step on stored responses, beyond its updates and what its algorithm says."""
Tables = Mapping[str, Mapping[Path, SideTable]]
"""Side tables by name, and by the folder of their store."""


@dataclass(slots=True, kw_only=True)
class OfflineWork:
    """Learning from the next examples of the store."""

    session: Session
    learner: Algorithm
    stream: ExampleStream
    ask: RunAsk
    held_out: Sequence[Example]
    _prepared: Sequence[Any] | None = None

    @property
    def measures_start(self) -> bool:
        """Always."""
        return True

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """From the next examples to optimizer steps."""
        session, config = self.session, self.session.config
        with session.phase("data", clock):
            examples, cursor, passed_over = self.stream.take(progress.cursor, config.policy.train_batch_size)
        learned = step_samples(self.learner, examples, self.ask.at(progress, clock))
        ahead = replace(progress, step=progress.step + 1, cursor=cursor, learner_state=learned.state)
        with session.phase("train", clock):
            updates = take_updates(session, learned.updates, ahead)
        metrics = {**update_figures(updates, planned=len(updates)), **learned.figures}
        metrics |= {
            "data/epoch": float(cursor.epoch),
            "data/batch_digest48": batch_digest48(examples),
            "data/passed_over": float(len(passed_over)),
        }
        if (pairs := metrics.get("preference/num_pairs")) is not None:
            metrics["throughput/pairs_per_s"] = pairs / clock.metrics()["time/step_s"]
        return after_updates(ahead, updates), metrics

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """What the policy itself thinks of held-out responses; what the reference does is asked once."""
        if self._prepared is None:
            self._prepared = self.learner.prepared(self.held_out, self.ask)
        return Evaluation(figures=self.learner.evaluate(self._prepared, self.ask))


def batch_digest48(examples: Sequence[Example]) -> float:
    """48 bits, which fit a float exactly, of who is in a step and in which order: equal numbers, equal batches."""
    ids = [(s.uid, s.sample_index) for e in examples for s in e.sequences]
    return float(int(hashlib.sha256(repr(ids).encode()).hexdigest()[:12], 16))


def offline_work(session: Session, encoder: PromptEncoder, data: OfflineData, tables: Tables) -> OfflineWork:
    """What a run on stores does.

    Args:
        tables: Finished ones; empty where nothing is precomputed.
    """
    config = session.config
    # Held-out pairs are judged whatever they would count in training.
    of_held_out = example_encoder(config, encoder, data.held_out_store.media_root, weighs_pairs=False)
    measured_on = held_out_rows(data, side_tables=_joined(tables, data.held_out_store))
    held_out, left_out = encoded(measured_on, of_held_out)
    for line in left_out.lines(len(measured_on)):
        session.console.note(line)
    generated = scheduled_critiques(session, encoder) if config.needs.generated_critiques else None
    return OfflineWork(
        session=session,
        learner=config.learner,
        stream=ExampleStream(
            data.train,
            example_encoder(config, encoder, data.train.media_root, weighs_pairs=True),
            side_tables=_joined(tables, data.train),
        ),
        ask=run_ask(session, encoder, generated),
        held_out=held_out,
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
    Raises:
        RefusedInput: the words by which a reward model begins to say its reward are none to the model.
    """
    needs, head = config.needs, config.needs.head
    request = head.request if needs.critiques and head else None
    try:
        facts = None if head is None else fact_format(encoder, head.request, head.opening)
    except ValueError as error:
        raise RefusedInput(f"fact_rm.opening: {error}") from error
    return ExampleEncoder(
        encoder,
        needs,
        media_root=media_root,
        score_margin=config.section(PreferenceSection).score_margin,
        limits=Limits(
            max_prompt_tokens=config.data.max_prompt_tokens,
            tokens_per_microbatch=config.policy.tokens_per_microbatch,
            share_prompts=shares_prompts(config, config.model.folder),
            positions=max_positions(encoder.config),
        ),
        critiques=None if request is None else CritiqueFormat(encoder, request),
        facts=facts,
        weigh=config.learner.weigh if needs.pair_betas and weighs_pairs else None,
    )


def looked_through(config: TrainConfig, data: OfflineData) -> OfflineData:
    """The data with every training row encoded once, so that what is too long is told and refused before the run.

    Raises:
        RefusedInput: see ``measured``.
    """
    encoder = prompt_encoder(config)
    # Margins are known only once there is a reward model.
    weighs = not config.needs.margins
    return measured(data, config, example_encoder(config, encoder, data.train.media_root, weighs_pairs=weighs))


def scheduled_critiques(session: Session, encoder: PromptEncoder) -> GeneratedCritiques:
    """Engines that follow the critique reward model while it learns."""
    config = session.config
    return GeneratedCritiques(
        lambda probe: policy_engines(config, session.folder.root, session.pool, probe=probe),
        share=config.needs.generated_critiques,
        seed=config.run.seed,
        max_new_tokens=config.reward.critique.max_new_tokens,
        max_model_len=longest_row(encoder, config.policy.tokens_per_microbatch),
        probe_prompts=config.sync.probe_prompts,
    )


def _joined(tables: Tables, store: PreferenceStore) -> dict[str, SideTable]:
    return {name: by_folder[store.folder] for name, by_folder in tables.items()}
