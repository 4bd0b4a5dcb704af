"""Reader of golden files. ``conventions`` inside each file say how its numbers were made."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Both absolute and relative; inputs are exact in either precision. Never loosened."""
DECIMAL_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
"""The same for files whose inputs are decimal fractions, so rounded before anything is computed."""
_NONFINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call of the original code."""

    source: str
    """File and lines inside the original repository."""
    name: str
    dtype: torch.dtype
    inputs: dict[str, Any]
    params: dict[str, Any]
    outputs: dict[str, Any]


@cache
def load(file: str) -> tuple[Case, ...]:
    """All cases of ``tests/golden/{file}``, in file order."""
    stored = json.loads((Path(__file__).parent / file).read_text())
    return tuple(
        Case(
            # Before the first colon stands the repository and commit, or the package and version.
            source=case["source"].partition(":")[2],
            name=case["case"],
            dtype=torch.float64 if case["dtype"] == "float64" else torch.float32,
            inputs=_numbers(case["inputs"]),
            params=case["params"],
            outputs=_numbers(case["outputs"]),
        )
        for case in (stored["cases"] if isinstance(stored, dict) else stored)
    )


def select(file: str, source: str, *, without: tuple[str, ...] = ()) -> list[Case]:
    """Cases whose source begins with ``source``, less the named ones; never an empty list."""
    found = [case for case in load(file) if case.source.startswith(source)]
    unknown = set(without) - {case.name for case in found}
    chosen = [case for case in found if case.name not in without]
    if unknown or not chosen:
        raise LookupError(f"{file}: no such cases of {source}: {sorted(unknown)}")
    return chosen


def one(file: str, source: str, name: str) -> Case:
    """The single case of that source and name."""
    (case,) = [case for case in select(file, source) if case.name == name]
    return case


def floats(case: Case, *names: str, grad: bool = False) -> list[Tensor]:
    """Named inputs in the precision of the case."""
    return [torch.tensor(case.inputs[name], dtype=case.dtype, requires_grad=grad) for name in names]


def mask_of(rows: list[list[int]] | None, like: Tensor) -> Tensor:
    """Stored 0/1 rows as a bool mask; null means all ones."""
    return torch.ones_like(like, dtype=torch.bool) if rows is None else torch.tensor(rows, dtype=torch.bool)


def assert_close(actual: Tensor, expected: Any, *, tolerances: dict[torch.dtype, float] = TOLERANCE) -> None:
    """Equal within the tolerance of ``actual``'s precision."""
    tolerance = tolerances[actual.dtype]
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _numbers(stored: Any) -> Any:
    if isinstance(stored, dict):
        return {key: _numbers(value) for key, value in stored.items()}
    if isinstance(stored, list):
        return [_numbers(value) for value in stored]
    return _NONFINITE.get(stored, stored) if isinstance(stored, str) else stored
