"""Supervised fine-tuning over the same workers: the cold start of reinforcement learning."""

from dataclasses import replace

import numpy as np

from algorithms.records import Example, Sequence
from orchestrator.run.checkpoint import Progress
from orchestrator.run.metrics import PhaseClock
from orchestrator.run.stopping import leaving_checkpoint
from orchestrator.training.online import Outcome, checkpoint, keep
from orchestrator.training.online_step import named_prompt
from orchestrator.training.session import Session, eval_metrics
from orchestrator.training.updates import SKIPPED, Update, optimizer_step, step_ask, step_samples, update_figures
from workers.types import Prompt


def run_supervised(session: Session, start: Progress, *, is_stage: bool) -> Outcome:
    """Train on demonstrations from ``start`` to ``run.steps``.

    Args:
        is_stage: Another run follows and evaluates what comes of this one: here the quick evaluations do.
    """
    config, progress = session.config, start
    before = after = None
    with leaving_checkpoint(lambda: keep(session, progress, after)):
        if not is_stage:
            before = after = session.first_evaluation()
            if progress.step == 0:
                session.report(0, eval_metrics(before))
        session.engines.sleep()
        while progress.step < config.run.steps:
            clock = PhaseClock()
            progress, update = _train_step(session, progress, clock)
            metrics = {
                **update_figures([update.ranks]),
                SKIPPED.name: float(not update.taken),
                **clock.metrics(),
                **session.memory(),
            }
            last = progress.step == config.run.steps
            if last or progress.step % config.run.eval_every == 0:
                session.verified_sync(progress.policy_version)
                after = session.evaluate(progress.step, quick=is_stage or not last)
                session.engines.sleep()
                metrics |= eval_metrics(after)
            session.report(progress.step, metrics)
            if last or progress.step % config.run.checkpoint_every == 0:
                checkpoint(session, progress, after)
    return Outcome(progress=progress, before=before, after=after)


def _train_step(session: Session, progress: Progress, clock: PhaseClock) -> tuple[Progress, Update]:
    """One optimizer step on the next demonstrations."""
    config = session.config
    with session.phase("train", clock):
        picks, cursor = progress.cursor.take(config.policy.train_batch_size)
        examples = [_demonstration(session, named_prompt(session.train, pick)) for pick in picks]
        (samples,) = step_samples(config.learner, examples, step_ask(config, progress)).updates
        update = optimizer_step(
            session.pool,
            samples,
            num_ranks=config.policy.num_ranks,
            nonfinite=config.guard.nonfinite,
            deadline_s=session.deadline_s,
        )
    done = replace(
        progress,
        step=progress.step + 1,
        num_updates=progress.num_updates + update.taken,
        policy_version=progress.policy_version + update.taken,
        cursor=cursor,
    )
    return done, update


def _demonstration(session: Session, prompt: Prompt) -> Example:
    encoded = session.encoder.encode(prompt)
    target = session.encoder.encode_target(prompt.target or "")
    sequence = Sequence(
        uid=prompt.uid,
        sample_index=0,
        input_ids=np.asarray((*encoded.prompt_ids, *target), dtype=np.int64),
        prompt_len=len(encoded.prompt_ids),
        media=prompt.media,
    )
    return Example(uid=prompt.uid, sequences=(sequence,))
