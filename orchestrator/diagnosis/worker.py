"""The process that looks: ``python -m orchestrator.diagnosis.worker SCRATCH [flags of orchestrator.train]``.

A line in names a check and a run; a line out is what was found. Whatever hangs, or ends this process, costs one check
and not the doctor. What libraries print goes nowhere: only findings reach a person.
"""

import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any

from orchestrator.config.load import load_runs
from orchestrator.diagnosis.finding import Finding, Patient
from orchestrator.errors import RefusedInput


def main(argv: Sequence[str]) -> None:
    """Answer until nobody asks any more."""
    scratch, flags = argv[0], argv[1:]
    tempfile.tempdir = scratch  # what a process that is ended leaves is removed with it
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    runs = load_runs(flags)[0] if flags else []
    patients = [Patient(runs, number) for number in range(len(runs))]
    for line in sys.stdin:
        asked = json.loads(line)
        patient = None if asked["run"] is None else patients[asked["run"]]
        answers.write(json.dumps([asdict(one) for one in looked(asked["looks"], patient)]) + "\n")
        answers.flush()


def looked(looks: str, patient: Patient | None) -> list[Finding]:
    """What one check finds; what a run would refuse is a finding too.

    Args:
        looks: See ``Check``.
    """
    from workers.types import UnusablePrompt  # deferred: it imports numpy

    module, _, function = looks.partition(":")
    look: Any = getattr(import_module(f"orchestrator.diagnosis.{module}"), function)
    try:
        return list(look() if patient is None else look(patient))
    except (RefusedInput, UnusablePrompt) as refusal:
        return [Finding("FAIL", str(refusal))]


if __name__ == "__main__":
    main(sys.argv[1:])
