"""The bound of a step for people: a table of its phases, what our plan has beyond it, and what was assumed."""

from collections.abc import Sequence

from orchestrator.cluster.roofline.hardware import Reach
from orchestrator.cluster.roofline.lengths import Lengths
from orchestrator.cluster.roofline.phase import Phase
from orchestrator.cluster.roofline.step import StepBound

_HEAD = (
    "phase", "GPUs", "PFLOP", "HBM GB", "link GB", "net GB", "host GB", "messages", "peak s", "bound s", "ours s",
    "reached", "bound by",
)  # fmt: skip
_LARGE, _SMALL = 100.0, 0.01


def describe_bound_table(step: StepBound) -> list[str]:
    """One line a phase: what our plan's GPUs do in all, least seconds, and the share of the bound that it reaches."""
    rows = [_HEAD, *(_row(phase) for phase in step.phases)]
    whole = ("step", *[""] * 7, *map(_number, (step.peak_s, step.bound_s, step.ours_s)), _reached(step), "")
    rows.append(whole)
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
    return [_line(row, widths) for row in rows]


def describe_excess(step: StepBound) -> list[str]:
    """Why an update of ours has more FLOPs than it need have, a line for each phase that learns."""
    lines = []
    for phase in step.phases:
        told = [
            f"{reason} {share:.1%}"
            for reason, flops in phase.excess.items()
            if (share := flops / phase.ours.flops) >= _SMALL / 10
        ]
        if told:
            lines.append(f"{phase.name}: of its FLOPs {', '.join(told)}")
    return lines


def describe_lengths(lengths: Lengths) -> str:
    """What the step is made of."""
    answers = [n for asked in lengths for n in asked.answers]
    mean = sum(answers) / max(1, len(answers))
    return (
        f"bound of a step: {len(lengths)} prompts of {_mean([a.prompt for a in lengths])} tokens "
        f"({_mean([a.image for a in lengths])} of images), {len(answers)} answers of {mean:.0f}, the longest of "
        f"{max(answers, default=0)}"
    )


def describe_reach(reach: Reach) -> str:
    """What the columns mean."""
    return (
        f"peak: at the data sheet's numbers; bound: at {reach.flops:.0%} of its FLOP/s, {reach.memory:.0%} of its "
        f"memory's speed, {reach.links:.0%} of its links'; ours: our plan of the step at the same"
    )


def _row(phase: Phase) -> tuple[str, ...]:
    ours, gpus = phase.ours, max(1, phase.gpus)
    amounts = (ours.flops / 1e15, ours.memory / 1e9, ours.link / 1e9, ours.network / 1e9, ours.host / 1e9)
    return (
        phase.name,
        str(phase.gpus),
        *(_number(amount * gpus) for amount in amounts),
        f"{ours.messages:.0f}",
        *map(_number, (phase.peak_s, phase.bound_s, phase.ours_s)),
        _reached(phase),
        phase.bound_by,
    )


def _reached(whole: Phase | StepBound) -> str:
    if whole.ours_s <= 0:
        return "-"
    return f"{min(1.0, whole.bound_s / whole.ours_s):.0%}"


def _number(amount: float) -> str:
    if amount == 0:
        return "0"
    if amount >= _LARGE:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 1 else f"{amount:.3f}"


def _mean(amounts: Sequence[int]) -> str:
    return f"{sum(amounts) / max(1, len(amounts)):.0f}"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=False))]
    return "  ".join([*cells, row[-1]]).rstrip()
