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
    prefix = f"{stored['repository']}@{stored['commit']}:"
    return tuple(
        Case(
            source=case["source"].replace(prefix, ""),
            name=case["case"],
            dtype=torch.float64 if case["dtype"] == "float64" else torch.float32,
            inputs=_numbers(case["inputs"]),
            params=case["params"],
            outputs=_numbers(case["outputs"]),
        )
        for case in stored["cases"]
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


def mask_of(rows: list[list[int]] | None, like: Tensor) -> Tensor:
    """Stored 0/1 rows as a bool mask; null means all ones."""
    return torch.ones_like(like, dtype=torch.bool) if rows is None else torch.tensor(rows, dtype=torch.bool)


def assert_close(actual: Tensor, expected: Any) -> None:
    """Equal within the tolerance of ``actual``'s precision."""
    tolerance = TOLERANCE[actual.dtype]
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=tolerance, atol=tolerance, equal_nan=True
    )


def _numbers(stored: Any) -> Any:
    if isinstance(stored, dict):
        return {key: _numbers(value) for key, value in stored.items()}
    if isinstance(stored, list):
        return [_numbers(value) for value in stored]
    return _NONFINITE.get(stored, stored) if isinstance(stored, str) else stored
