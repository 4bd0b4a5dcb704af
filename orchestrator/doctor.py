"""``python -m orchestrator.doctor [flags of orchestrator.train]``: can this machine run the project, and this run?

A line a subject: ok, warn (it costs a feature or speed) or FAIL, what was found, what to do. The last line is ``fit``,
or ``unfit:`` and why; exit code 0 or 2. Nothing is trained, and nothing is written but what is removed again.
"""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from orchestrator.config.load import load_runs
from orchestrator.config.tables import NamedRun
from orchestrator.diagnosis.checks import jobs_of
from orchestrator.diagnosis.examination import examined
from orchestrator.diagnosis.finding import Finding
from orchestrator.diagnosis.secrets import secrets_of, without
from orchestrator.errors import RefusedInput

_STYLE = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}
_SUBJECT = 15
"""Characters of the column of subjects."""
_UNFIT = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Print every finding and the last line; 0 where the run can start, else 2."""
    flags, console = sys.argv[1:] if argv is None else list(argv), Console(highlight=False)
    try:
        runs = load_runs(flags)[0] if flags else []
    except RefusedInput as refusal:
        console.print(Text(f"unfit: {refusal}"), soft_wrap=True)
        return _UNFIT
    try:
        failed = _findings(flags, runs, console)
    except KeyboardInterrupt:
        failed = ["interrupted before everything was looked at"]
    console.print(Text(_last_line(failed)), soft_wrap=True)
    return _UNFIT if failed else 0


def _findings(flags: Sequence[str], runs: Sequence[NamedRun], console: Console) -> list[str]:
    """Print each as it comes; what keeps the run from starting."""
    secrets, failed = secrets_of(run.config for run in runs), list[str]()
    for job, seen in examined(flags, list(jobs_of(runs))):
        # Before it is cut to a line, or a piece of one stays.
        finding = Finding(seen.verdict, without(secrets, seen.found), without(secrets, seen.todo))
        if finding.verdict == "FAIL":
            failed.append(f"{job.subject}: {Finding('FAIL', finding.found).told}")
        console.print(_line(job.subject, finding), soft_wrap=True)
    return failed


def _line(subject: str, finding: Finding) -> Text:
    # Text, not str: rich would read the brackets in a path as markup.
    return Text.assemble((f"{finding.verdict:<6}", _STYLE[finding.verdict]), f"{subject:<{_SUBJECT}} {finding.told}")


def _last_line(failed: Sequence[str]) -> str:
    if not failed:
        return "fit"
    return f"unfit: {failed[0]}" + (f" (and {len(failed) - 1} more)" if len(failed) > 1 else "")


if __name__ == "__main__":
    sys.exit(main())
