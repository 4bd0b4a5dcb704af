"""The whole data set of a run: every row read, every image opened, every length counted, as the run would."""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.diagnosis.finding import Finding, Patient
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.look_at_data import data_lines

if TYPE_CHECKING:
    from orchestrator.data.prompts import RunData

_TODO = "mend or remove the rows; data.max_bad_frac lets a share of them be passed over"
_MENDABLE = ("data.max_bad_frac", "data.max_prompt_tokens")
_PASSED_OVER = ("bad rows", "not learned from", "left out", "not read", "without an image")


def data(patient: Patient) -> Iterator[Finding]:
    """What a dry run says of the data."""
    config = patient.known if patient.known.data == patient.config.data else patient.config
    try:
        lines = data_lines(config)
    except RefusedInput as refusal:
        told = str(refusal)
        yield Finding("FAIL", told, _TODO if any(option in told for option in _MENDABLE) else "")
        return
    odd = [line for line in lines if any(word in line for word in _PASSED_OVER)]
    yield Finding("ok", "; ".join(line for line in lines if line not in odd) or "read")
    for line in odd:
        yield Finding("warn", line)


@cache
def run_data(patient: Patient) -> "RunData":
    """Prompts of an online run, read once."""
    from orchestrator.data.prompts import read_data

    return read_data(patient.known, pictures=Path(tempfile.mkdtemp()))
