"""The offline loop: one screen.

store ─► examples ─► what the reference thinks of them ─► groups, weighted over the whole step
      ─► one optimizer step ─► held-out evaluation ─► checkpoint
"""

from dataclasses import dataclass

from orchestrator.run.checkpoint import Progress, save_checkpoint
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.stopping import leaving_checkpoint
from orchestrator.training.offline_session import Metrics, OfflineSession
from orchestrator.training.offline_step import train_step


@dataclass(frozen=True, slots=True, kw_only=True)
class OfflineOutcome:
    """How a run ended."""

    before: Metrics
    """Held-out figures before the first step."""
    after: Metrics


def run_offline(session: OfflineSession, start: Progress) -> OfflineOutcome:
    """Train from ``start`` to ``run.steps``."""
    config, progress = session.config, start
    before: Metrics = {}
    after: Metrics = {}

    def save() -> None:
        # The step under way has not happened: what can be continued from is the state before it.
        if session.folder.checkpoint(progress.step) not in session.folder.complete_checkpoints():
            _checkpoint(session, progress, after)

    with leaving_checkpoint(save):
        before = after = session.first_evaluation()
        if progress.step == 0:
            session.report(0, before)
        while progress.step < config.run.steps:
            clock = PhaseClock()
            progress, metrics = train_step(session, progress, clock)
            times = clock.metrics()
            last = progress.step == config.run.steps
            if last or progress.step % config.run.eval_every == 0:
                after = session.evaluate(progress.step)
                metrics |= after
            pairs_per_s = metrics.get("preference/num_pairs", 0.0) / times["time/step_s"]
            session.report(progress.step, metrics | times | {"throughput/pairs_per_s": pairs_per_s})
            if last or progress.step % config.run.checkpoint_every == 0:
                _checkpoint(session, progress, after)
    return OfflineOutcome(before=before, after=after)


def _checkpoint(session: OfflineSession, progress: Progress, evaluation: Metrics) -> None:
    session.console.phase("checkpoint")
    save_checkpoint(
        session.folder,
        session.pool,
        progress,
        identity=session.identity,
        keep=session.config.run.keep_checkpoints,
        extra={"evaluation": evaluation},
        deadline_s=session.deadline_s,
    )
