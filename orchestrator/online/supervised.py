"""Supervised fine-tuning over the same workers: the cold start of reinforcement learning."""

import time

import numpy as np

from orchestrator.evaluation.types import EvalResult
from orchestrator.online.experience import supervised_samples
from orchestrator.online.loop import Outcome, checkpoint, named_prompt
from orchestrator.online.session import Session, eval_metrics
from orchestrator.online.step_metrics import update_metrics
from orchestrator.online.updates import optimizer_step
from orchestrator.run.checkpoint import Progress
from workers.types import Prompt, Sequence


def run_supervised(session: Session, start: Progress) -> Outcome:
    """Train on demonstrations from ``start`` to ``run.steps``."""
    config, progress = session.config, start
    evaluation: EvalResult | None = None
    session.engines.sleep()
    while progress.step < config.run.steps:
        started = time.monotonic()
        session.console.phase("train")
        picks, cursor = progress.cursor.take(config.policy.train_batch_size)
        sequences = [_demonstration(session, named_prompt(session.train, pick)) for pick in picks]
        samples = supervised_samples(sequences, aggregation=config.algorithm.aggregation)
        stats = optimizer_step(
            session.pool,
            samples,
            session.pool.microbatches(sequences, num_ranks=config.policy.num_ranks),
            nonfinite=config.guard.nonfinite,
            deadline_s=session.deadline_s,
        )
        taken = [stats] if stats is not None else []
        progress = Progress(
            step=progress.step + 1,
            num_updates=progress.num_updates + len(taken),
            policy_version=progress.policy_version + len(taken),
            cursor=cursor,
        )
        metrics = update_metrics(taken) | {"time/train_s": time.monotonic() - started}
        if progress.step % config.run.eval_every == 0:
            session.verified_sync(progress.policy_version)
            evaluation = session.evaluate(progress.step, quick=True)
            session.engines.sleep()
            metrics |= eval_metrics(evaluation)
        last = progress.step == config.run.steps
        session.report(progress.step, metrics)
        if last or progress.step % config.run.checkpoint_every == 0:
            checkpoint(session, progress, evaluation)
    return Outcome(progress=progress, before=None, after=evaluation)


def _demonstration(session: Session, prompt: Prompt) -> Sequence:
    encoded = session.encoder.encode(prompt)
    target = session.encoder.encode_target(prompt.target or "")
    return Sequence(
        uid=prompt.uid,
        sample_index=0,
        input_ids=np.asarray((*encoded.prompt_ids, *target), dtype=np.int64),
        prompt_len=len(encoded.prompt_ids),
        media=prompt.media,
    )
