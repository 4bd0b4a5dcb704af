"""The loop, for everything that trains: on sampled answers, on demonstrations, on stored responses.

            consumes                waits for                      produces
    step      the data's next batch   engines, judges, ranks         an optimizer step or more, figures
    evaluate  held-out data           engines, or the policy         figures, and the judgements behind them
    report    figures                 nothing                        a row of metrics.jsonl, curves, the console
    keep      progress                every rank's file              a checkpoint that appears whole

A stop by a guard leaves a checkpoint of the last step whose updates cannot be undone.
"""

from dataclasses import dataclass
from typing import Protocol

from orchestrator.config.schema import TrainConfig
from orchestrator.run.checkpoint import Progress
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.recovery import leaving_checkpoint
from orchestrator.training.session import Evaluation, Metrics, Session, evaluation_in, newest_evaluation

_NOTHING = Evaluation(figures={})


class Work(Protocol):
    """What differs between the ways to train."""

    @property
    def measures_start(self) -> bool:
        """Whether there is an evaluation before the first step."""
        ...

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """Take the next batch and learn from it; where the run stands then, and what there is to tell of the step."""
        ...

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """Measure the policy on held-out data.

        Args:
            last: It is the evaluation that the run is told by, before its first step or after its last.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    before: Evaluation
    """Held-out figures before the first step."""
    after: Evaluation


def run(session: Session, work: Work, start: Progress) -> Outcome:
    """Train from ``start`` to ``run.steps``."""
    config, progress = session.config, start
    before = after = _NOTHING
    with leaving_checkpoint(lambda: session.keep(progress, after)):
        if work.measures_start:
            before = after = evaluation_in(session.folder, 0) or _evaluate(session, work, progress, last=True)
            if progress.step == 0:
                session.report(0, before.figures)
            else:
                after = newest_evaluation(session.folder, progress.step) or before
        while progress.step < config.run.steps and not session.has_stalled():
            clock = PhaseClock()
            progress, metrics = work.step(progress, clock)
            session.reached = None
            metrics |= clock.metrics() | session.memory()
            last = progress.step == config.run.steps
            if last or progress.step % config.run.eval_every == 0:
                after = _evaluate(session, work, progress, last=last)
                metrics |= after.figures
            session.report(progress.step, metrics)
            session.heed_alarms()
            last = last or session.has_stalled()
            improved = session.best_step() == progress.step
            if last or improved or progress.step % config.run.checkpoint_every == 0:
                session.checkpoint(progress, after)
    return Outcome(before=before, after=after)


def kept_outcome(config: TrainConfig, folder: RunFolder) -> Outcome:
    """How a finished run ended, as its folder has it."""
    before, after = (evaluation_in(folder, step) or _NOTHING for step in (0, config.run.steps))
    return Outcome(before=before, after=after)


def _evaluate(session: Session, work: Work, progress: Progress, *, last: bool) -> Evaluation:
    session.console.phase("evaluate")
    evaluation = work.evaluate(progress, last=last)
    if evaluation.figures:
        session.keep_evaluation(progress.step, evaluation)
    return evaluation
