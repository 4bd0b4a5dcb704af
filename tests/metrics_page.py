"""docs/metrics.md, written from the figures that are declared: ``python -m tests.metrics_page`` renews it."""

from collections.abc import Iterable
from pathlib import Path

from algorithms.figures import Figure
from algorithms.registry import ALGORITHMS, algorithm_class
from orchestrator.training.figures import EVERY_STEP, OFFLINE, ONLINE, of_benchmark

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def page() -> str:
    """The whole file."""
    by_figure: dict[Figure, list[str]] = {}
    for name in ALGORITHMS:
        for figure in algorithm_class(name).figures:
            by_figure.setdefault(figure, []).append(name)
    everywhere = {figure.name for figure in (*EVERY_STEP, *ONLINE, *OFFLINE)}
    own = sorted((f.name, f.meaning, names) for f, names in by_figure.items() if f.name not in everywhere)
    return "\n".join(
        [
            "# Metrics",
            "",
            "One JSON object a step in `metrics.jsonl`; the same names in TensorBoard, and with these sentences in",
            "the run's `manifest.json`. `step` is the number of steps finished; step 0 holds the evaluation before",
            "training. A name that ends in `*` stands for all that begin so.",
            "",
            "This page is written from the code: `python -m tests.metrics_page` renews it.",
            *_section("Of every run", EVERY_STEP),
            *_section(
                "Of a run that samples, and of one on demonstrations as far as it is judged",
                (*ONLINE, of_benchmark("<name>")),
            ),
            *_section("Of a run on stored responses", OFFLINE),
            "",
            "## Of an algorithm",
            "",
            "| name | meaning | algorithms |",
            "| --- | --- | --- |",
            *(f"| `{name}` | {meaning} | {', '.join(sorted(names))} |" for name, meaning, names in own),
            "",
        ]
    )


def _section(title: str, figures: Iterable[Figure]) -> list[str]:
    rows = [f"| `{figure.name}` | {figure.meaning} |" for figure in figures]
    return ["", f"## {title}", "", "| name | meaning |", "| --- | --- |", *rows]


if __name__ == "__main__":
    PAGE.write_text(page())
