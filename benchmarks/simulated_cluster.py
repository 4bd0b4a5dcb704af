"""Online steps of many GPUs as discrete events: engines, the driver that feeds them, judges, and the ranks that learn.

    driver   hands prompts to engines, windows at a time; takes each completion in turn        one server
    engine   runs its slots; a token takes longer the more sequences run                       one of many
    judge    answers after a while, as many questions at once as there are                     no server
    ranks    learn from a whole step, then bring its weights to the engines                    one server

Nothing is drawn here: lengths and latencies are given, so equal questions have equal answers.
"""

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

TokenSeconds = Callable[[int, float], float]
"""Seconds of one token of each running sequence, by their number and mean length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a run is made of."""

    num_engines: int
    slots: int
    """Sequences that one engine runs at once."""
    token_seconds: TokenSeconds
    prefill_s: float
    """Of one prompt, in which its engine does nothing else."""
    prompt: int
    """Tokens of a prompt."""
    window: int
    """Prompts that the driver hands to an engine at a time; one engine alone is handed all."""
    prompts_per_step: int
    driver_s: float
    """For one completion as it arrives."""
    driver_after_s: float
    """For one completion before the ranks learn."""
    learn_s: float
    sync_s: float
    colocated: bool
    """Engines hold still while the ranks learn."""
    staleness: int = 0
    """Steps that sampling may be ahead."""
    partial: bool = False
    """A step takes the first groups that are complete; what still runs goes on in the next."""
    ahead: float = 0.5
    """Share of a step's prompts that are in flight beyond it where ``partial``."""


@dataclass(slots=True)
class Outcome:
    """What happened."""

    step_ends: list[float] = field(default_factory=list)
    """Seconds since the beginning."""
    consumed: list[list[int]] = field(default_factory=list)
    """The groups that each step learned from."""
    completions: list[tuple[int, int]] = field(default_factory=list)
    """Group and sample of each completion, as it reached the driver."""
    engines_busy_s: float = 0.0
    """Of all engines, with at least one sequence."""
    driver_busy_s: float = 0.0
    learning_s: float = 0.0
    syncing_s: float = 0.0

    @property
    def step_s(self) -> float:
        """Mean of all steps but the first, which begins with idle engines; or of that alone."""
        ends = self.step_ends
        return (ends[-1] - ends[0]) / (len(ends) - 1) if len(ends) > 1 else ends[0]


class _Engine:
    """One engine: what it runs and what waits for a slot."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, int, int]] = deque()
        self.running: list[tuple[float, int, int, float]] = []
        self.held = 0
        """Requests that the driver has handed over and not got back."""
        self.tokens = 0.0
        """That a sequence running since the beginning would have."""
        self.since = 0.0
        self.pace = 0.0
        """Seconds a token; 0 = it holds still."""
        self.stalled_until = 0.0
        self.began_at = 0.0
        """Sum over what runs of ``tokens`` as each began."""
        self.planned = 0
        """Number of its next event; any other has been overtaken."""


class Cluster:
    """A run that is simulated."""

    def __init__(
        self, setting: Setting, groups: Sequence[Sequence[int]], latency: Callable[[int, int], float], *, steps: int
    ) -> None:
        """
        Args:
            groups: For each prompt the tokens of its answers; gone through again and again.
            latency: Seconds that a judge takes for a sample of a prompt.
            steps: To simulate.
        """
        self._set, self._groups, self._latency, self._steps = setting, groups, latency, steps
        self._engines = [_Engine() for _ in range(setting.num_engines)]
        self._samples = sum(map(len, groups)) / len(groups)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self.now = 0.0
        self._queue: deque[int] = deque()
        self._issued = self._learned = self._in_flight = 0
        self._left: dict[int, int] = {}
        self._complete: deque[int] = deque()
        self._driver_free = 0.0
        self._learning = self._still = False
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Until every step has been learned from and its weights are in the engines."""
        self._issue()
        while self._learned < self._steps:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        return self.outcome

    def _at(self, when: float, happen: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, happen))

    def _answers(self, group: int) -> Sequence[int]:
        return self._groups[group % len(self._groups)]

    def _issue(self) -> None:
        """Let the driver hand out the prompts that may begin."""
        setting, size = self._set, self._set.prompts_per_step
        if setting.partial:
            most = size * (self._learned + 1 + setting.staleness) + int(setting.ahead * size)
        elif self._in_flight or self._queue:
            return
        else:  # the next batch, as its own call
            ahead = self._issued // size - self._learned
            most = self._issued + (size if ahead <= setting.staleness else 0)
        most = min(most, size * self._steps + (int(setting.ahead * size) if setting.partial else 0))
        while self._issued < most:
            self._queue.append(self._issued)
            self._left[self._issued] = len(self._answers(self._issued))
            self._in_flight += 1
            self._issued += 1
        for engine in self._engines:
            self._fill(engine)

    def _fill(self, engine: _Engine) -> None:
        """As ``orchestrator.cluster.feed`` does: a window more, where fewer requests are held than half a window's."""
        window = len(self._queue) if len(self._engines) == 1 else self._set.window
        if engine.held * 2 >= window * self._samples or not self._queue:
            return
        for _ in range(min(window, len(self._queue))):
            group = self._queue.popleft()
            answers = self._answers(group)
            engine.held += len(answers)
            engine.waiting.extend((group, sample, length) for sample, length in enumerate(answers))
        if not self._still:
            self._settle(engine)
            self._go_on(engine)

    def _settle(self, engine: _Engine) -> None:
        """Bring the engine's tokens up to now."""
        begins = max(engine.since, min(self.now, engine.stalled_until))
        if engine.pace:
            engine.tokens += max(0.0, self.now - begins) / engine.pace
            self.outcome.engines_busy_s += self.now - engine.since
        engine.since = self.now

    def _go_on(self, engine: _Engine) -> None:
        """Fill free slots and plan the end of the sequence that ends next."""
        setting, running = self._set, engine.running
        while engine.waiting and len(running) < setting.slots:
            group, sample, length = engine.waiting.popleft()
            heapq.heappush(running, (engine.tokens + length, group, sample, engine.tokens))
            engine.began_at += engine.tokens
            if sample == 0:
                engine.stalled_until = max(engine.stalled_until, self.now) + setting.prefill_s
        engine.planned += 1
        if not running:
            engine.pace, engine.began_at = 0.0, 0.0
            return
        left = max(0.0, running[0][0] - engine.tokens)
        written = engine.tokens - engine.began_at / len(running)
        engine.pace = setting.token_seconds(len(running), setting.prompt + written + left / 2)
        plan = engine.planned
        ends = max(self.now, engine.stalled_until) + left * engine.pace
        self._at(ends, lambda: self._ended(engine, plan))

    def _ended(self, engine: _Engine, plan: int) -> None:
        if plan != engine.planned:
            return
        self._settle(engine)
        engine.tokens = max(engine.tokens, engine.running[0][0])
        while engine.running and engine.running[0][0] <= engine.tokens:
            _, group, sample, began = heapq.heappop(engine.running)
            engine.began_at -= began
            self._driver_free = max(self._driver_free, self.now) + self._set.driver_s
            self._at(self._driver_free, lambda g=group, s=sample: self._arrived(engine, g, s))
        self._go_on(engine)

    def _arrived(self, engine: _Engine, group: int, sample: int) -> None:
        """The driver has taken a completion, and asks for its reward."""
        self.outcome.driver_busy_s += self._set.driver_s
        self.outcome.completions.append((group, sample))
        engine.held -= 1
        self._fill(engine)
        self._at(self.now + self._latency(group, sample), lambda: self._rewarded(group))

    def _rewarded(self, group: int) -> None:
        self._left[group] -= 1
        if self._left[group] == 0:
            self._in_flight -= 1
            self._complete.append(group)
            self._issue()
            self._learn()

    def _learn(self) -> None:
        setting, size = self._set, self._set.prompts_per_step
        if self._learning or len(self._complete) < size:
            return
        self._learning = True
        taken = [self._complete.popleft() for _ in range(size)]
        self.outcome.consumed.append(taken)
        if setting.colocated:
            self._hold()
        handled = setting.driver_after_s * sum(len(self._answers(group)) for group in taken)
        self.outcome.driver_busy_s += handled
        self._driver_free = max(self._driver_free, self.now) + handled
        self.outcome.learning_s += setting.learn_s
        self._at(self._driver_free + setting.learn_s, self._synced if setting.colocated else self._send)

    def _send(self) -> None:
        """Engines of their own hold still only while weights arrive."""
        self._hold()
        self._synced()

    def _synced(self) -> None:
        self.outcome.syncing_s += self._set.sync_s
        self._at(self.now + self._set.sync_s, self._done)

    def _hold(self) -> None:
        self._still = True
        for engine in self._engines:
            self._settle(engine)
            engine.pace = 0.0
            engine.planned += 1

    def _done(self) -> None:
        self._still, self._learning = False, False
        self._learned += 1
        self.outcome.step_ends.append(self.now)
        for engine in self._engines:
            engine.since = self.now
            self._go_on(engine)
        self._issue()
        self._learn()
