"""Asking the process that looks, check by check, each with a deadline."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.diagnosis.checks import Job
from orchestrator.diagnosis.finding import Finding

_END_S = 5.0
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "RAY_USAGE_STATS_ENABLED": "0"}


def examined(flags: Sequence[str], jobs: Sequence[Job]) -> Iterator[tuple[Job, Finding]]:
    """Every line of the answer, as soon as it is known.

    Args:
        flags: Of ``orchestrator.train``; none for the machine alone.
    """
    failed: set[str] = set()
    with TemporaryDirectory() as scratch:
        looking = _Looking(flags, Path(scratch))
        try:
            for job in jobs:
                first = next((one for one in job.check.after if _key(job, one) in failed), None)
                if first is not None:
                    yield job, Finding("warn", f"not looked at, as {first} comes first")
                    continue
                for finding in looking.ask(job):
                    if finding.verdict == "FAIL":
                        failed.add(_key(job, job.check.subject))
                    yield job, finding
        finally:
            looking.end()


def _key(job: Job, subject: str) -> str:
    return f"{job.run} {subject}"


class _Looking:
    """One process after another: a new one where the last was ended or fell over."""

    def __init__(self, flags: Sequence[str], scratch: Path) -> None:
        self._flags, self._scratch = list(flags), scratch
        self._process: subprocess.Popen[str] | None = None
        self._errors = scratch / "stderr.txt"

    def ask(self, job: Job) -> list[Finding]:
        """What one check finds, or that it did not come to an end."""
        process = self._process or self._start()
        question, answers = process.stdin, process.stdout
        assert question is not None and answers is not None
        deadline_s = job.check.deadline_s
        try:
            question.write(json.dumps({"looks": job.check.looks, "run": job.run}) + "\n")
            question.flush()
            if not select.select([answers], [], [], deadline_s)[0]:
                self.end()
                return [
                    Finding(
                        "FAIL",
                        f"no end of it within {deadline_s:g} s",
                        "see what it waits for: a mount, a pipe, a host",
                    )
                ]
            if line := answers.readline():
                return [Finding(**one) for one in json.loads(line)]
        except BrokenPipeError:
            pass  # it has ended, and says below why
        return [Finding("FAIL", f"could not be looked at: {self._last_words()}")]

    def end(self) -> None:
        """End the process with all that it has started."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_END_S)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # of a question that it has not read
                    pipe.close()

    def _start(self) -> "subprocess.Popen[str]":
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"{__package__}.worker", str(self._scratch), *self._flags],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **_ENVIRONMENT},
                start_new_session=True,  # so that it ends with its own children
            )
        return self._process

    def _last_words(self) -> str:
        assert self._process is not None
        process = self._process
        code = process.wait(_END_S)
        self.end()
        lines = self._errors.read_text(errors="replace").strip().splitlines()
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return f"{lines[-1]} ({ended})" if lines else ended
