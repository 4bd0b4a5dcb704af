"""What a training loop holds while it runs: data, workers and everything a person sees."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from algorithms.records import SamplingDistribution
from orchestrator.cluster.engines import Engines
from orchestrator.cluster.launch import policy_engines, run_id, start_policy
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.specs import base_spec, sampled_from
from orchestrator.cluster.sync import SyncResult
from orchestrator.config.schema import TrainConfig
from orchestrator.data.prompts import RunData
from orchestrator.evaluation.held_out import evaluate
from orchestrator.evaluation.types import EvalResult, EvalSample
from orchestrator.rewards.critique_judge import CritiqueJudge
from orchestrator.run.checkpoint import Progress
from orchestrator.run.console import Console
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity, run_identity
from orchestrator.run.log import RunLogFormatter
from orchestrator.run.metrics import MEMORY_PREFIX, PhaseClock
from orchestrator.run.start import started_run
from orchestrator.run.tracking import Tracker
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import EncodedPrompt, Prompt
from workers.weight_sync.shared_memory import clear_exchange

_PROBE_SUBSET = 128


@dataclass(slots=True, kw_only=True)
class Session:
    """One run, or one stage of it."""

    config: TrainConfig
    folder: RunFolder
    pool: WorkerPool
    engines: Engines
    encoder: PromptEncoder
    train: Sequence[Prompt]
    held_out: Sequence[Prompt]
    identity: Identity
    tracker: Tracker
    console: Console
    log: RunLogFormatter
    critics: CritiqueJudge | None = None
    """Who adds to the rewards what a critique reward model thinks; None where nobody does."""
    reached: Progress | None = None
    """Where the optimizer steps that were taken since the current step began have led; None before the first."""

    @property
    def deadline_s(self) -> float:
        """Longest wait for anything the workers do."""
        return self.config.rollout.timeout_s

    @property
    def sampling(self) -> SamplingDistribution:
        """What the rollouts are sampled from, and so what every log-prob of theirs is of."""
        return sampled_from(self.config, self.pool.engine_spec.banned_token_ids)

    @contextmanager
    def phase(self, name: str, clock: PhaseClock) -> Iterator[None]:
        """Show what the run is doing and time it."""
        self.console.phase(name)
        with clock.phase(name):
            yield

    def probe(self, uids: Sequence[str] = ()) -> list[EncodedPrompt]:
        """Prompts to verify a sync with: the last ones an engine has just seen, else the first of the data."""
        count = self.config.sync.probe_prompts
        by_uid = {p.uid: p for p in self.train}
        chosen = [by_uid[uid] for uid in uids[-count:]]
        return [self.encoder.encode(p) for p in chosen] or first_prompts(self.train, self.encoder, count)

    def verified_sync(self, policy_version: int, seen: Sequence[str] = ()) -> SyncResult:
        """Bring every engine to ``policy_version`` and prove it."""
        return self.engines.sync(policy_version, self.probe(seen))

    def evaluate(self, step: int, *, quick: bool = False) -> EvalResult | None:
        """Held-out evaluation after ``step`` steps, its judgements kept in ``evaluations/``; None without data.

        ``quick`` takes a fixed subset and skips the shuffled control.
        """
        if not self.held_out:
            return None
        self.console.phase("evaluate")
        prompts = self.held_out[:_PROBE_SUBSET] if quick else self.held_out
        result = evaluate(
            self.engines.sample,
            self.encoder,
            prompts,
            max_new_tokens=self.config.rollout.max_new_tokens,
            with_shuffled=not quick,
        )
        self.folder.evaluations.mkdir(exist_ok=True)
        write_atomic(self.folder.evaluation_file(step), json.dumps(asdict(result), indent=1) + "\n")
        return result

    def memory(self) -> dict[str, float]:
        """Resident memory of the roles, GiB."""
        return {f"{MEMORY_PREFIX}{role}": gib for role, gib in self.pool.health.rss_gib().items()}

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put the figures of a finished step on disk and on the console."""
        self.log.step = step
        self.tracker.log(step, metrics)
        self.console.update(step, metrics)

    def first_evaluation(self) -> EvalResult | None:
        """The evaluation before the first step: made now, or read back by a resumed run. None without data."""
        file = self.folder.evaluation_file(0)
        if not file.is_file():
            return self.evaluate(0)
        fields = json.loads(file.read_text())
        return EvalResult(**{**fields, "samples": tuple(EvalSample(**sample) for sample in fields["samples"])})


def first_prompts(train: Sequence[Prompt], encoder: PromptEncoder, count: int) -> list[EncodedPrompt]:
    """Prompts that any engine can be asked, whatever it has seen."""
    return [encoder.encode(p) for p in train[:count]]


def eval_metrics(result: EvalResult | None) -> dict[str, float]:
    """An evaluation as metric rows."""
    if result is None:
        return {}
    metrics = {"eval/accuracy": result.accuracy, "eval/unreadable_frac": result.unreadable_frac}
    if result.first_position_rate is not None:
        metrics["eval/first_position_rate"] = result.first_position_rate
    if result.accuracy_shuffled_images is not None:
        metrics["eval/accuracy_shuffled_images"] = result.accuracy_shuffled_images
    return metrics


def online_identity(config: TrainConfig, data: RunData) -> Identity:
    """What makes a run on files that were read whole this run."""
    return run_identity(config, rows=data.train.fingerprint, held_out=data.held_out_fingerprint)


@contextmanager
def open_session(
    config: TrainConfig, folder: RunFolder, pool: WorkerPool, encoder: PromptEncoder, data: RunData
) -> Iterator[tuple[Session, Progress]]:
    """Start the policy (and reference), resume if there is something to resume, and sync the engines.

    Yields:
        The session and where it stands.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    assert config.model.path is not None
    identity = online_identity(config, data)
    with started_run(config, folder, identity=identity, counts=data.counts) as start:
        if config.algo != "sft":
            pool.start_reference(base_spec(config, config.model.path))
        start_policy(config, pool, start.checkpoint, num_updates=start.progress.num_updates)
        session = Session(
            config=config,
            folder=folder,
            pool=pool,
            engines=policy_engines(
                config,
                folder.root,
                pool,
                probe=lambda: first_prompts(data.train.prompts, encoder, config.sync.probe_prompts),
            ),
            encoder=encoder,
            train=data.train.prompts,
            held_out=data.held_out,
            identity=identity,
            tracker=start.tracker,
            console=start.console,
            log=start.log,
        )
        try:
            session.verified_sync(start.progress.policy_version)
            yield session, start.progress
        finally:
            clear_exchange(run_id(folder.root))
