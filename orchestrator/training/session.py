"""What every run holds while it trains: its workers, where it is kept, and everything a person sees of it."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from algorithms.figures import Figure
from orchestrator.cluster.launch import run_id, start_roles
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.types import EvalResult, EvalSample
from orchestrator.run.alarms import ALARMS, Alarms
from orchestrator.run.best import best_step, has_stalled
from orchestrator.run.checkpoint import Progress, save_checkpoint
from orchestrator.run.console import Console
from orchestrator.run.folder import RunFolder, write_atomic
from orchestrator.run.identity import Identity
from orchestrator.run.log import RunLogFormatter
from orchestrator.run.manifest import DataCounts
from orchestrator.run.metrics import MEMORY_PREFIX, PhaseClock
from orchestrator.run.mirror import Mirror
from orchestrator.run.sample_table import ShownSample
from orchestrator.run.start import started_run
from orchestrator.run.tracking import Tracker
from workers.weight_sync.shared_memory import clear_exchange

Metrics = dict[str, float]
_log = logging.getLogger(__name__)
_SHOWN = 12
"""Held-out answers that trackers get with their images."""
JUDGED = (
    Figure(
        "eval/accuracy",
        "held-out accuracy of greedy answers, compared with the labels; one that cannot be read is wrong",
        "Held-out accuracy",
    ),
    Figure(
        "eval/accuracy_shuffled_images",
        "the same with the images shuffled among the pairs: a judge that looks falls to chance",
        "Held-out accuracy",
        "images shuffled",
    ),
    Figure("eval/accuracy/*", "the same for each source of the data"),
    Figure(
        "eval/mean_at_*", "share of the `eval.samples` samples a prompt that are right; behind a `/`, of one source"
    ),
    Figure("eval/pass_at_*", "share of the held-out prompts with a right one among their samples"),
    Figure("eval/maj_at_*", "share of the held-out prompts whose most frequent answer is right"),
    Figure(
        "eval/first_position_rate",
        "share of the clear verdicts that are for the response shown first; missing where there is none",
        "Held-out accuracy",
        "chose the first",
    ),
    Figure(
        "eval/unreadable_frac",
        "share of the held-out responses without a clear verdict",
        "Held-out accuracy",
        "no clear verdict",
    ),
)
"""Of an evaluation that asks the policy for answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What was measured on held-out data; nothing without any."""

    figures: Mapping[str, float]
    """Named as in metric rows."""
    judged: EvalResult | None = None
    """The judgements behind them, where the policy was asked for some."""


@dataclass(slots=True, kw_only=True)
class Session:
    """One run, or one stage of it."""

    config: TrainConfig
    folder: RunFolder
    pool: WorkerPool
    identity: Identity
    tracker: Tracker
    console: Console
    log: RunLogFormatter
    alarms: Alarms
    mirror: Mirror | None = None
    reached: Progress | None = None
    """Where the optimizer steps that were taken since the current step began have led; None before the first."""

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

    def memory(self) -> Metrics:
        """Resident memory by role, GiB."""
        return {f"{MEMORY_PREFIX}{role}": gib for role, gib in self.pool.health.rss_gib().items()}

    def report(self, step: int, metrics: Mapping[str, float]) -> None:
        """Put the figures of a finished step on disk and on the console, and say what they say has gone wrong."""
        self.log.step = step
        if self.mirror is not None:
            metrics = {**metrics, **self.mirror.figures()}
            for fault in self.mirror.said():
                self.console.note(fault)
        begun = [f"{alarm.name}: {alarm.told}" for alarm in self.alarms.after(step, {"step": step, **metrics})]
        standing = [alarm.told for alarm in self.alarms.standing.values()]
        metrics = {**metrics, ALARMS.name: float(len(standing))}
        self.tracker.log(step, metrics)
        self.console.update(step, metrics)
        self.console.alarm(begun, standing=standing)
        for told in begun:
            _log.warning("alarm: %s", told)
            self.tracker.tell(step, told)

    def heed_alarms(self) -> None:
        """Stop where ``run.alarms`` says so.

        Raises:
            GuardStop: an alarm began with the last step.
        """
        if self.config.run.alarms == "stop":
            self.alarms.stop()

    def keep_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Write it into ``evaluations/``: the judgements where there are some, else the figures."""
        told = evaluation.figures if evaluation.judged is None else asdict(evaluation.judged)
        self.folder.evaluations.mkdir(exist_ok=True)
        write_atomic(self.folder.evaluation_file(step), json.dumps(told, indent=1) + "\n")
        if evaluation.judged is not None:
            self.tracker.show(step, _shown(evaluation.judged.samples))

    def checkpoint(self, progress: Progress, evaluation: Evaluation) -> None:
        """Save the run as it stands."""
        self.console.phase("checkpoint")
        saved = save_checkpoint(
            self.folder,
            self.pool,
            progress,
            identity=self.identity,
            keep=self.config.run.keep_checkpoints,
            best=self.best_step(),
            extra={"evaluation": evaluation.figures},
            deadline_s=self.deadline_s,
        )
        if self.mirror is not None:
            self.mirror.send(saved)

    def best_step(self) -> int | None:
        """The step that ``eval.best`` finds best so far; None where it is not set, or nothing has been measured."""
        figure = self.config.eval.best
        return None if figure is None else best_step(self.folder, figure)

    def has_stalled(self) -> bool:
        """Whether ``eval.patience`` is at its end."""
        own = self.config.eval
        if own.best is None or own.patience is None:
            return False
        return has_stalled(self.folder, own.best, patience=own.patience)

    def keep(self, progress: Progress, evaluation: Evaluation) -> None:
        """Save what a run that is stopped can go on from.

        That is the state before the step under way, or behind those of its optimizer steps that were taken: they cannot
        be undone, so the step counts.
        """
        reached = self.reached or progress
        if self.folder.checkpoint(reached.step) not in self.folder.complete_checkpoints():
            self.checkpoint(reached, evaluation)


@contextmanager
def open_session(
    config: TrainConfig,
    folder: RunFolder,
    pool: WorkerPool,
    *,
    identity: Identity,
    counts: DataCounts,
    figures: Iterable[Figure],
) -> Iterator[tuple[Session, Progress]]:
    """Start what the run trains with; resume if there is something to resume.

    Args:
        identity: What makes this run this run.
        counts: Of its data.
        figures: What it will report.
    Yields:
        The session and where it stands.
    Raises:
        RefusedInput: the run folder holds a checkpoint of another run.
    """
    with started_run(config, folder, identity=identity, counts=counts, figures=figures) as start:
        start_roles(config, pool, start.checkpoint, num_updates=start.progress.by_role)
        session = Session(
            config=config,
            folder=folder,
            pool=pool,
            identity=identity,
            tracker=start.tracker,
            console=start.console,
            log=start.log,
            alarms=start.alarms,
            mirror=start.mirror,
        )
        try:
            yield session, start.progress
        finally:
            clear_exchange(run_id(folder.root))


def evaluation_in(folder: RunFolder, step: int) -> Evaluation | None:
    """What ``keep_evaluation`` wrote after ``step`` steps; None where nothing is there."""
    file = folder.evaluation_file(step)
    if not file.is_file():
        return None
    try:
        told = json.loads(file.read_bytes())
        if "samples" not in told:
            return Evaluation(figures={name: float(value) for name, value in told.items()})
        # One of an earlier version does not say which are right.
        samples = tuple(
            EvalSample(**{"right": s["verdict"] is not None and s["verdict"] == s["label"], **s})
            for s in told["samples"]
        )
        return judged_evaluation(EvalResult(**{**told, "samples": samples}))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError) as error:
        raise RefusedInput(f"{str(file)!r} is no evaluation of this run ({error}); remove it") from error


def newest_evaluation(folder: RunFolder, step: int) -> Evaluation | None:
    """The last one within the first ``step`` steps, after the one before training; None where there is none."""
    steps = (number for number in range(step, 0, -1) if folder.evaluation_file(number).is_file())
    return next((evaluation_in(folder, number) for number in steps), None)


def _shown(samples: Sequence[EvalSample]) -> list[ShownSample]:
    """The first few, which are the same at every step."""
    return [
        ShownSample(
            media=sample.media, prompt=sample.prompt_text, answer=sample.completion_text, label=str(sample.label),
            right=sample.right,
        )
        for sample in samples[:_SHOWN]
    ]  # fmt: skip


def judged_evaluation(result: EvalResult) -> Evaluation:
    """Judgements, and their figures."""
    figures = {"eval/accuracy": result.accuracy, "eval/unreadable_frac": result.unreadable_frac}
    if result.first_position_rate is not None:
        figures["eval/first_position_rate"] = result.first_position_rate
    if result.accuracy_shuffled_images is not None:
        figures["eval/accuracy_shuffled_images"] = result.accuracy_shuffled_images
    return Evaluation(figures={**figures, **result.further}, judged=result)
