"""A log file gets one plain line a step; a terminal gets a panel."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.run.console import Console

ROOT = Path(__file__).parents[3]
_STEPS = """
from orchestrator.run import console
from orchestrator.cluster.waits import waiting
console._SLOW_WAIT_S = -1.0
with console.Console(9, title="sft in runs/[a]") as shown:
    shown.phase("rollout")
    shown.update(4, {"reward/mean": 1.25, "eval/accuracy": 0.5, "memory/rss_gib/policy": 1.5})
    with waiting("rollout: engine [/b]", 600.0):
        shown._live.refresh()
    shown.note("[red]kept as written")
"""


def test_without_a_terminal_each_step_is_one_plain_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Console(60, title="stable_reinforce in runs/[a]") as console:
        console.phase("rollout")
        console.update(1, {"reward/mean": 1.25, "mismatch/logprob_abs_mean": 3e-7, "memory/rss_gib/policy": 1.5})
        console.update(2, {})
        console.note("[bold]done[/nonsense]")
    assert capsys.readouterr().out.splitlines() == [
        "stable_reinforce in runs/[a]",
        "step 1/60  reward 1.250  mismatch 3.0e-07",
        "step 2/60",
        "[bold]done[/nonsense]",
    ]


def test_the_first_figure_of_each_benchmark_is_shown_and_no_source_of_the_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_source = {"eval/accuracy": 0.5, "eval/accuracy/web": 0.25, "eval/mean_at_4": 0.5, "eval/mean_at_4/web": 0.5}
    benchmarks = {"eval/pope/accuracy": 0.75, "eval/pope/recall": 1.0, "eval/mmbench/circular": 0.125}
    with Console(60, title="t") as console:
        console.update(1, by_source | benchmarks)
    assert capsys.readouterr().out.splitlines()[1] == (
        "step 1/60  held-out accuracy 0.500  pope accuracy 0.750  mmbench circular 0.125"
    )


def test_a_long_line_is_not_wrapped_in_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    with Console(1, title="t") as console:
        console.note("word " * 100)
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_terminal_shows_step_figures_memory_and_waits_with_their_limit() -> None:
    shown = _on_a_terminal(_STEPS)
    for text in (
        "sft in runs/[a]",
        "step 4/9   rollout",
        "1.250",
        "policy 1.5",
        "waiting for rollout: engine [/b]",
        "(limit 600 s)",
        "[red]kept as written",
    ):
        assert text in shown, shown


def test_plain_says_one_line_a_step_on_a_terminal_too() -> None:
    shown = _on_a_terminal(
        "from orchestrator.run.console import Console\n"
        "with Console(9, title='sft in runs/a', plain=True) as shown:\n"
        "    shown.update(4, {'reward/mean': 1.25})\n"
        "    shown.alarm(['one_answer: 100%'], standing=['100%'])\n"
        "    shown.update(5, {'reward/mean': 1.5})\n",
        NO_COLOR="",
    )
    assert shown.splitlines() == [
        "sft in runs/a",
        "step 4/9  reward 1.250",
        "alarm after step 4: one_answer: 100%",
        "step 5/9  reward 1.500",
    ]


def test_a_panel_shows_an_alarm_for_as_long_as_it_stands() -> None:
    shown = _on_a_terminal(
        "from orchestrator.run.console import Console\n"
        "with Console(9, title='t') as shown:\n"
        "    shown.alarm(['low_entropy: it is 0'], standing=['it is 0'])\n"
        "    shown._live.refresh()\n"
    )
    assert "alarm after step 0: low_entropy: it is 0" in shown and "alarm: it is 0" in shown


def _on_a_terminal(code: str, **variables: str) -> str:
    """Output of ``code`` in a process whose standard output is a terminal of 120 columns."""
    here, there = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", "NO_COLOR": "1"} | variables
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=there, env=environment) as process:
        os.close(there)
        output = b""
        try:
            while part := os.read(here, 4096):
                output += part
        except OSError:
            pass  # Linux ends a terminal whose other side is closed with an error, not with an empty read.
        os.close(here)
    assert process.returncode == 0
    return output.decode()
