"""``python -m orchestrator.evaluate --benchmark NAME --model DIR --data PATH``: a model on a benchmark's released file.

Answers are kept in the folder ``--out`` as they come: a second call, or one after an interruption, asks only for the
rest. Any option of ``orchestrator.train`` may follow, e.g. ``--data.media_root``, ``--rollout.num_engines``,
``--rollout.max_new_tokens``, ``--rollout.temperature`` (of samples that vote), ``--run.seed``, ``--reward.judge_url``.

``--kit evalscope|lmms-eval --kit-python PYTHON --model DIR --tasks NAMES`` has a kit of others ask it instead.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from orchestrator.cluster.waits import WaitTimeout, WorkerLost
from orchestrator.config.flags import split_words
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.shards import beside
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.files import ItemFile, Items, read_items
from orchestrator.evaluation.benchmarks.items import Benchmark, CountOptions
from orchestrator.evaluation.benchmarks.prompts import REQUESTS, checked_request
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.kits.registry import asks_kit
from orchestrator.evaluation.results import Scores, as_markdown, compared, comparison_markdown, write_scores
from orchestrator.run.folder import RunFolder, write_atomic

COMPARISON_FILE = "comparison.md"


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a benchmark, from the file as it is released: every way of counting, side by side."""

    benchmark: str
    """Name of the benchmark."""
    model: str
    """Folder of the model."""
    data: str
    """File of the benchmark, or a folder of its shards."""
    out: str | None = None
    """Folder for answers and scores; none = evaluations/BENCHMARK."""
    compat: tuple[str, ...] = ()
    """Ways of counting beside strict; none = all that the benchmark has."""
    votes: int | None = None
    """Samples that vote on each pair, odd; none = the greedy verdict."""
    order: Literal["both", "one"] = "both"
    """Whether pairs are shown in both orders, or in one that the seed chooses."""
    form: Literal["tagged", "answer_is_better", "bracketed", "overall_judgment"] = "tagged"
    """How a judge writes its verdict, and the template that asks for it."""
    template: str | None = None
    """File with a template of one's own, with {question}, {first} and {second}; its verdict is of the same form."""
    against: str | None = None
    """Folder of another model's answers to the same file, to compare with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 0 done, 2 refused, 3 stopped."""
    try:
        words = sys.argv[1:] if argv is None else argv
        sys.stdout.write(as_markdown(by_kit(words) if asks_kit(words) else run(*parsed(words))))
    except RefusedInput as refusal:
        sys.stderr.write(f"refused: {refusal}\n")
        return 2
    except (GuardStop, WaitTimeout, WorkerLost) as stop:
        sys.stderr.write(f"stopped: {stop}\n")
        return 3
    return 0


def by_kit(argv: Sequence[str]) -> Scores:
    """What a kit of others finds, see ``KitCommand``."""
    from orchestrator.evaluation.kits.run import measured_by_kit  # deferred: nobody else needs it

    return measured_by_kit(argv)


def run(command: Evaluate, rest: Sequence[str] = ()) -> Scores:
    """Answer what is not answered, count, and write ``predictions.parquet``, ``scores.json`` and ``scores.md``.

    Args:
        rest: Options of ``orchestrator.train``.
    Raises:
        RefusedInput: model, file, rows or options that cannot be used.
        GuardStop: the judge, or an engine, cannot go on.
    """
    benchmark = benchmark_of(command.benchmark)
    out = Path(command.out or f"evaluations/{command.benchmark}")
    request = request_of(command, benchmark)
    flags = ["--algo", "sft", "--model.path", command.model, "--data.path", command.data, "--run.dir", str(out)]
    config, _ = load_config([*flags, *rest])
    if benchmark.judge is not None and (config.reward.judge_url is None or config.reward.judge_model is None):
        raise RefusedInput(f"{command.benchmark} is rated by a judge: give --reward.judge_url, --reward.judge_model")
    file, items = usable(command, benchmark, config, out)
    # Deferred: the refusals above need neither torch nor Ray.
    from orchestrator.evaluation.benchmark_run import BenchmarkRun, answers_of, scores_in, scores_of
    from orchestrator.preflight import check_model, check_processors
    from orchestrator.run.log import quiet_libraries

    check_model(config)
    check_processors(config)
    quiet_libraries()
    folder = RunFolder(out)
    folder.create()
    measured = BenchmarkRun(
        name=command.benchmark,
        benchmark=benchmark,
        file=file,
        items=items,
        options=_ask_options(command, config, request),
        counting=CountOptions(reading=command.form, votes=command.votes, seed=config.run.seed),
        ways=("strict", *(way for way in command.compat if way != "strict")) if command.compat else None,
        config=config,
        folder=folder,
    )
    try:
        kept = answers_of(measured)
        scores = scores_of(measured, kept.current(), kept.asked, model=command.model)
        write_scores(out, scores)
        if command.against is not None:
            other = scores_in(measured, Path(command.against))
            found = compared(other, scores, seed=config.run.seed)
            write_atomic(out / COMPARISON_FILE, comparison_markdown(found, first=other.model, second=scores.model))
    finally:
        folder.release()
    return scores


def parsed(argv: Sequence[str]) -> tuple[Evaluate, list[str]]:
    """The command's own flags, and those of ``orchestrator.train``.

    Raises:
        RefusedInput: a value before all flags, or an option that measuring has no use for.
    """
    names = {field.name for field in dataclasses.fields(Evaluate)} | {"help", "h"}
    own, rest = list[str](), list[str]()
    for name, texts in split_words(argv):
        if name in ("algo", "model.path", "data.path", "run.dir", "dry_run"):
            raise RefusedInput(f"--{name}: a model is measured by --benchmark, --model, --data and --out")
        (own if name in names else rest).extend([f"--{name}", *texts])
    return tyro.cli(Evaluate, prog="python -m orchestrator.evaluate", args=own), rest


def request_of(command: Evaluate, benchmark: Benchmark) -> str:
    """The template that pairs are asked with.

    Raises:
        RefusedInput: options that do not fit the benchmark, or a template that lacks a place.
    """
    if benchmark.asks == "rewards":
        raise RefusedInput(f"benchmark = {command.benchmark!r} is of rewards, which this command does not ask for")
    if unknown := [way for way in command.compat if way not in benchmark.ways]:
        ways = ", ".join(benchmark.ways)
        raise RefusedInput(f"compat = {unknown[0]!r}: {command.benchmark} is counted as {ways}")
    if command.votes is not None and (benchmark.asks != "verdict" or command.votes < 1 or command.votes % 2 == 0):
        raise RefusedInput(f"votes = {command.votes}: expected an odd number, and a benchmark of pairs")
    if command.template is None:
        return REQUESTS[command.form]
    try:
        return checked_request(Path(command.template).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedInput(f"template {command.template!r} cannot be read as text") from error


def usable(command: Evaluate, benchmark: Benchmark, config: TrainConfig, out: Path) -> tuple[ItemFile, Items]:
    """The file and its rows.

    Raises:
        RefusedInput: the file cannot be read, or more of its rows than ``data.max_bad_frac``: the others are another
            benchmark.
    """
    path, root = Path(command.data), config.data.media_root
    file = ItemFile(
        path=path,
        media_root=beside(path) if root is None else Path(root),
        pictures=out / "pictures",
        max_pixels=config.data.refused_above,
        video_frames=config.data.video_frames,
    )
    found = read_items(file, benchmark)
    for line in found.lines():
        sys.stderr.write(f"{line}\n")
    bad, count = len(found.bad_rows), len(found.bad_rows) + len(found.items)
    if bad > config.data.max_bad_frac * count:
        first = found.bad_rows[0]
        raise RefusedInput(
            f"{bad} of {count} rows of {command.data!r} cannot be used, more than data.max_bad_frac = "
            f"{config.data.max_bad_frac:g}; row {first.row}: {first.reason}"
        )
    return file, found


def _ask_options(command: Evaluate, config: TrainConfig, request: str) -> AskOptions:
    return AskOptions(
        request=request,
        both_orders=command.order == "both",
        samples=command.votes or 0,
        temperature=config.rollout.temperature,
        seed=config.run.seed,
        max_new_tokens=config.rollout.max_new_tokens,
    )


if __name__ == "__main__":
    sys.exit(main())
