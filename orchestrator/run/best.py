"""Which evaluation of a run was the best by a figure, as its metrics tell: so a resumed run knows it too."""

import math

from orchestrator.run.folder import RunFolder


def best_step(folder: RunFolder, figure: str) -> int | None:
    """The step with the largest value, of equal ones the earliest; None before there is a step with one."""
    found = _evaluated(folder, figure)
    return max(found, key=lambda step: (found[step], -step)) if found else None


def has_stalled(folder: RunFolder, figure: str, *, patience: int) -> bool:
    """Whether the last ``patience`` evaluations were no better than one before them."""
    steps, best = sorted(_evaluated(folder, figure)), best_step(folder, figure)
    return best is not None and sum(step > best for step in steps) >= patience


def _evaluated(folder: RunFolder, figure: str) -> dict[int, float]:
    """By step the figure's value; what was measured before the first step is no result of training."""
    rows, _ = folder.metrics_rows()
    found = {row["step"]: row.get(figure) for row in rows if row["step"] > 0}
    numbers = {step: value for step, value in found.items() if isinstance(value, int | float)}
    return {step: value for step, value in numbers.items() if not isinstance(value, bool) and abs(value) < math.inf}
