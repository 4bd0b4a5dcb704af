"""One step off, or more: engines sample for later steps while the policy learns, and rest where the two meet.

    engines   ──── later steps' answers, weights k ────┐         ┌── weights k + 1 ──
    policy    ──── learns step k, of answers that wait ┴─ sync ──┴── learns step k + 1
                                                       └ evaluation, checkpoint: no request is in any engine

No weights change while a request is in an engine. What waits is part of the run's progress, and so of a checkpoint.
"""

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Generic, Self, TypeVar

from orchestrator.cluster.feed import Unwanted
from orchestrator.cluster.waits import WaitTimeout, waiting
from orchestrator.run.checkpoint import Progress
from orchestrator.run.metrics import PhaseClock
from orchestrator.training.learning import check_learnable, learn, recorded, stored, synced, told_anyway
from orchestrator.training.online_metrics import Rate
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.refills import Drawn
from orchestrator.training.rounds import Stretch, sample_ahead
from orchestrator.training.session import Evaluation, Metrics
from orchestrator.training.staleness import Taken, next_batch, staleness_figures
from orchestrator.training.waiting import Waiting

_log = logging.getLogger(__name__)
_T = TypeVar("_T")
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class AheadWork:
    """Learning from answers that weights of up to ``rollout.staleness`` steps ago sampled."""

    online: OnlineWork
    waiting: Waiting

    @property
    def measures_start(self) -> bool:
        """Always."""
        return True

    def step(self, progress: Progress, clock: PhaseClock) -> tuple[Progress, Metrics]:
        """Learn from the next batch while engines sample later ones, then a verified sync."""
        answering, waiting = self.online.answering, self.waiting
        rollout, session = answering.session.config.rollout, answering.session
        with session.phase("rollout", clock):
            answering.engines.make_ready()
            progress, rate, seen = self._with_batch(progress)
            taken = self._batch(progress)
            assert taken is not None, "sampling ends when the batch is there"
            batch, rest = taken
            sampled = waiting.batch(batch)
        found = Drawn(
            prompts={group.uid: waiting.prompt(group) for group in batch},
            sampled=sampled,
            rewards=sampled.rewards,
            cursor=progress.cursor,
            figures={},
        )
        check_learnable(session.config, found)
        waiting.forget(batch)
        del sampled
        progress = replace(progress, ahead=rest)
        steps_left = session.config.run.steps - progress.step - 1
        most = min(rollout.staleness, steps_left) * rollout.prompts_per_step
        meanwhile = Meanwhile(
            lambda: self._sampled(progress, most, found.prompts, meanwhile), within_s=session.deadline_s
        )
        with meanwhile:
            with stored(answering, progress.step + 1, found) as kept:
                found = kept.found
                learned = learn(answering, progress, found, clock)
            with told_anyway(answering, learned, kept, rate, clock), session.phase("rollout", clock):
                later = meanwhile.result()
        rate = Rate(tokens=rate.tokens + later.rate.tokens, seconds=rate.seconds + later.rate.seconds)
        with told_anyway(answering, learned, kept, rate, clock):
            sync = synced(answering, learned, [*seen, *later.seen], clock)
        metrics = recorded(answering, learned, kept, sync, rate)
        metrics |= staleness_figures(batch, step=progress.step, late=later.num_late)
        return replace(learned.done, cursor=later.cursor, ahead=later.groups), metrics

    def evaluate(self, progress: Progress, *, last: bool) -> Evaluation:
        """No request is in any engine, and they have the policy's weights."""
        return self.online.evaluate(progress, last=last)

    def _with_batch(self, progress: Progress) -> tuple[Progress, Rate, tuple[str, ...]]:
        """With the step's batch, and what was asked for it, where it is not there.

        That is at the beginning, and where all engines were lost meanwhile.
        """
        if self._batch(progress) is not None:
            return progress, Rate(tokens=0, seconds=0.0), ()
        engines, most = self.online.answering.engines, self.waiting.config.rollout.prompts_per_step
        found = sample_ahead(self.waiting, progress, most=most, due=progress.step, draw=engines.sample)
        return replace(progress, cursor=found.cursor, ahead=found.groups), found.rate, found.seen

    def _sampled(
        self, progress: Progress, most: int, beside: Collection[str], meanwhile: "Meanwhile[Stretch]"
    ) -> Stretch:
        draw = partial(self.online.answering.engines.sample_meanwhile, is_wanted=meanwhile.is_wanted)
        due = progress.step + 1
        return sample_ahead(self.waiting, progress, most=most, due=due, draw=draw, beside=beside)

    def _batch(self, progress: Progress) -> Taken | None:
        rollout = self.waiting.config.rollout
        return next_batch(
            progress.ahead, count=rollout.prompts_per_step, step=progress.step, staleness=rollout.staleness
        )


class Meanwhile(Generic[_T]):
    """One call in a thread of its own, which has ended when the block is left; an error in the block stops it."""

    def __init__(self, call: Callable[[], _T], *, within_s: float) -> None:
        """
        Args:
            within_s: Longest wait for a call that is stopped, seconds.
        """
        self._call, self._within_s, self._stopped = call, within_s, threading.Event()
        self._found: list[_T] = []
        self._error: BaseException | None = None
        # An interrupt does not wait for it, nor does the end of the process.
        self._thread = threading.Thread(target=self._run, name="sampling ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self._thread.join()
        elif issubclass(kind, Exception):
            self._stop()

    def is_wanted(self) -> bool:
        """Whether anybody waits for what it finds."""
        return not self._stopped.is_set()

    def result(self) -> _T:
        """Wait for it.

        Raises:
            Exception: what it has raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._found[0]

    def _stop(self) -> None:
        """Throw away what it finds; the error that there is counts, and one of its own is only told."""
        failed = self._error
        self._stopped.set()
        try:
            with waiting("rollout: sampling ahead stops", self._within_s) as wait:
                while self._thread.is_alive():
                    self._thread.join(_LOOK_EVERY_S)
                    wait.check()
        except WaitTimeout as late:
            _log.error("sampling ahead goes on: %s", late)
        failed = failed or (None if isinstance(self._error, Unwanted) else self._error)
        if failed is not None:
            _log.error("sampling ahead failed too: %s: %s", type(failed).__name__, failed)

    def _run(self) -> None:
        try:
            self._found.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
