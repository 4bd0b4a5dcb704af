"""The end of a run, for a person: did it learn, does it look, what did it say before and after, where is it all."""

from pathlib import Path

from rich.console import Console as RichConsole
from rich.table import Table

from orchestrator.evaluation.types import EvalResult, EvalSample

_SHOWN = 3


def print_summary(before: EvalResult | None, after: EvalResult | None, folder: Path) -> None:
    """Print the closing summary."""
    console = RichConsole(soft_wrap=True)
    if before is not None and after is not None:
        console.print()
        console.print(
            f"[bold]Held-out accuracy {before.accuracy:.3f} -> {after.accuracy:.3f}[/bold] "
            f"on {after.num_pairs} pairs (chance 0.500)",
            highlight=False,
        )
        if after.accuracy_shuffled_images is not None:
            console.print(
                f"With the images shuffled among the pairs: {after.accuracy_shuffled_images:.3f} "
                "(near 0.500 means it judges by looking)",
                highlight=False,
            )
        console.print(_verdicts(before, after))
    console.print(f"The run: {folder}", highlight=False, markup=False)
    console.print(f"Report:  python -m orchestrator.report {folder}", highlight=False, markup=False)


def chosen_samples(before: EvalResult, after: EvalResult) -> list[tuple[EvalSample, EvalSample]]:
    """A few pairs to show: judgements that changed first, then the rest, in file order."""
    pairs = [(old, new) for old, new in zip(before.samples, after.samples, strict=True) if old.uid == new.uid]
    changed = [p for p in pairs if p[0].verdict != p[1].verdict]
    same = [p for p in pairs if p[0].verdict == p[1].verdict]
    return [*changed, *same][:_SHOWN]


def _verdicts(before: EvalResult, after: EvalResult) -> Table:
    table = Table(title="Held-out judgements", title_justify="left", show_lines=True)
    for column in ("question", "before", "after", "label"):
        table.add_column(column)
    for old, new in chosen_samples(before, after):
        table.add_row(old.prompt_text, _said(old), _said(new), new.label or "-")
    return table


def _said(sample: EvalSample) -> str:
    mark = "right" if sample.verdict == sample.label else "wrong"
    return f"{sample.completion_text}\n({mark})"
