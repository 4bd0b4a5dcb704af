"""The online loop: one screen.

prompts ─► engines sample ─► scored while sampling ─► log-probs (policy, reference)
        ─► experience: KL shaping, returns, whitening, filter
        ─► policy updates ─► weights to the engines, verified ─► held-out evaluation ─► checkpoint
"""

from dataclasses import dataclass

from orchestrator.evaluation.types import EvalResult
from orchestrator.rewards.client import RewardClient
from orchestrator.run.checkpoint import Progress, save_checkpoint
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.stopping import leaving_checkpoint
from orchestrator.training.online_step import train_step
from orchestrator.training.session import Session, eval_metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    progress: Progress
    before: EvalResult | None
    after: EvalResult | None


def run_online(session: Session, client: RewardClient, start: Progress) -> Outcome:
    """Train from ``start`` to ``run.steps``; engines already hold the policy of ``start``."""
    config, progress = session.config, start
    before = after = None
    with leaving_checkpoint(lambda: keep(session, progress, after)):
        before = after = session.first_evaluation()
        if progress.step == 0:
            session.report(0, eval_metrics(before))
        while progress.step < config.run.steps:
            clock = PhaseClock()
            progress, metrics = train_step(session, client, progress, clock)
            metrics |= clock.metrics() | session.memory()
            last = progress.step == config.run.steps
            if last or progress.step % config.run.eval_every == 0:
                after = session.evaluate(progress.step)
                metrics |= eval_metrics(after)
            session.report(progress.step, metrics)
            if last or progress.step % config.run.checkpoint_every == 0:
                checkpoint(session, progress, after)
    return Outcome(progress=progress, before=before, after=after)


def checkpoint(session: Session, progress: Progress, evaluation: EvalResult | None) -> None:
    """Save the run as it stands."""
    session.console.phase("checkpoint")
    save_checkpoint(
        session.folder,
        session.pool,
        progress,
        identity=session.identity,
        keep=session.config.run.keep_checkpoints,
        extra={"evaluation": eval_metrics(evaluation)},
        deadline_s=session.deadline_s,
    )


def keep(session: Session, progress: Progress, evaluation: EvalResult | None) -> None:
    """Save what a run that is stopped can go on from.

    That is the state before the step under way, or behind those of its optimizer steps that were taken: they cannot be
    undone, so the step counts.
    """
    reached = session.reached or progress
    if session.folder.checkpoint(reached.step) not in session.folder.complete_checkpoints():
        checkpoint(session, reached, evaluation)
