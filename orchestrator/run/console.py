"""What a person sees while a run is going: a live panel on a terminal, one plain line a step elsewhere."""

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from orchestrator.cluster.waits import Wait, current_waits
from orchestrator.run.metrics import MEMORY_PREFIX

_SHOWN = (
    ("reward", "reward/mean", "{:.3f}"),
    ("held-out accuracy", "eval/accuracy", "{:.3f}"),
    ("held-out pair accuracy", "eval/pair_accuracy", "{:.3f}"),
    ("held-out token accuracy", "eval/token_accuracy", "{:.3f}"),
    ("loss", "policy/loss", "{:+.4f}"),
    ("pairs right", "preference/accuracy", "{:.3f}"),
    ("margin", "preference/margin", "{:+.3f}"),
    ("mismatch", "mismatch/logprob_abs_mean", "{:.1e}"),
    ("drift", "rollout/drift", "{:.1e}"),
    ("coverage", "judge/coverage", "{:.2f}"),
    ("rollout tokens/s", "throughput/rollout_tokens_per_s", "{:.0f}"),
    ("step s", "time/step_s", "{:.2f}"),
)
_REFRESH_PER_S = 4
_SLOW_WAIT_S = 2.0


class Console:
    """Shows step, phase, named waits with their deadlines, and the last figures."""

    def __init__(self, total_steps: int, *, title: str, plain: bool = False) -> None:
        """
        Args:
            plain: No colours and no panel, also on a terminal.
        """
        self._rich = RichConsole(file=sys.stdout, color_system=None if plain else "auto")
        # Not left to rich alone: with FORCE_COLOR set it would redraw the panel into a log file.
        is_screen = sys.stdout.isatty() and self._rich.is_terminal and not self._rich.is_dumb_terminal
        self._can_redraw = is_screen and not plain
        self._total, self._title = total_steps, title
        self._step, self._phase, self._phase_since = 0, "start", time.monotonic()
        self._latest: dict[str, float] = {}
        self._alarms: Sequence[str] = ()
        self._live: Live | None = None

    def __enter__(self) -> "Console":
        if self._can_redraw:
            self._live = Live(get_renderable=self._panel, console=self._rich, refresh_per_second=_REFRESH_PER_S)
            self._live.start()
        else:
            self.note(self._title)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def phase(self, name: str) -> None:
        """Say what the run is doing now."""
        self._phase, self._phase_since = name, time.monotonic()

    def note(self, text: str) -> None:
        """Print one line that stays."""
        self._rich.print(text, highlight=False, markup=False, soft_wrap=True)

    def alarm(self, begun: Sequence[str], *, standing: Sequence[str]) -> None:
        """Say what has begun to go wrong, once; a panel shows what stands for as long as it does."""
        self._alarms = standing
        for told in begun:
            self._rich.print(Text(f"alarm after step {self._step}: {told}", style="bold red"), soft_wrap=True)

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the figures of a finished step."""
        self._step = step
        # Only evaluations are not of every step; any other figure that is missing has no value any more.
        kept = {name: value for name, value in self._latest.items() if name.startswith("eval/")}
        self._latest = {**kept, **metrics}
        if self._live is None:
            figures = [f"{label} {form.format(metrics[name])}" for label, name, form in _shown(metrics)]
            self.note("  ".join([f"step {step}/{self._total}", *figures]))

    def _panel(self) -> RenderableType:
        figures = Table.grid(padding=(0, 2))
        for label, name, form in _shown(self._latest):
            figures.add_row(label, form.format(self._latest[name]))
        latest = self._latest.items()
        memory = {name.removeprefix(MEMORY_PREFIX): v for name, v in latest if name.startswith(MEMORY_PREFIX)}
        if memory:
            figures.add_row("memory GiB", "  ".join(f"{role} {gib:.1f}" for role, gib in memory.items()))
        now = f"step {self._step}/{self._total}   {self._phase} {time.monotonic() - self._phase_since:.0f} s"
        # Text, not str: rich would read the brackets in a name or a path as markup.
        waits = [Text(_wait_line(wait)) for wait in current_waits() if wait.elapsed_s > _SLOW_WAIT_S]
        alarms = [Text(f"alarm: {told}", style="bold red") for told in self._alarms]
        return Panel(Group(Text(now), figures, *waits, *alarms), title=Text(self._title), title_align="left")


def _shown(metrics: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """Label, name and form of the figures that are shown, of those that there are; the first one of a benchmark."""
    found = [one for one in _SHOWN if one[1] in metrics]
    seen = set[str]()
    for name in metrics:
        first, _, rest = name.removeprefix("eval/").partition("/")
        # What is cut by the sources of the data has the whole beside it.
        if name.startswith("eval/") and rest and first not in seen and f"eval/{first}" not in metrics:
            seen.add(first)
            found.append((f"{first} {rest}", name, "{:.3f}"))
    return found


def _wait_line(wait: Wait) -> str:
    progress = f" ({wait.note})" if wait.note else ""
    return f"waiting for {wait.name}{progress}: {wait.elapsed_s:.0f} s (limit {wait.deadline_s:.0f} s)"
