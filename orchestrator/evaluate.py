"""``python -m orchestrator.evaluate --benchmark NAME --model DIR --data PATH``: a model on a benchmark's released file.

Answers are kept in the folder ``--out`` as they come: a second call, or one after an interruption, asks only for the
rest. Any option of ``orchestrator.train`` may follow, e.g. ``--data.media_root``, ``--rollout.num_engines``,
``--rollout.max_new_tokens``, ``--rollout.temperature`` (of samples that vote), ``--run.seed``, ``--reward.judge_url``.

``--kit evalscope|lmms-eval --kit-python PYTHON --model DIR --tasks NAMES`` has a kit of others ask it instead.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from orchestrator import command_line
from orchestrator.command_line import ended, refuse_paths
from orchestrator.config.benchmarks import VerdictForm
from orchestrator.config.flags import parted
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.items import Asks, Benchmark, CountOptions
from orchestrator.evaluation.benchmarks.judgements import BENCHMARK as JUDGEMENTS
from orchestrator.evaluation.benchmarks.prompts import request_of
from orchestrator.evaluation.benchmarks.registry import benchmark_of, holdings
from orchestrator.evaluation.benchmarks.usable import usable_items
from orchestrator.evaluation.disagreements import write_disagreements
from orchestrator.evaluation.kits.registry import asks_kit
from orchestrator.evaluation.predictions import forget_predictions
from orchestrator.evaluation.results import (
    Scores,
    as_markdown,
    compared,
    comparison_markdown,
    summary_markdown,
    write_scores,
)
from orchestrator.evaluation.scorers.choice import Endpoint, ScorerKind, asks_of, kind_of, scorer_of
from orchestrator.run.folder import RunFolder, write_atomic

ALL = "all"
COMPARISON_FILE, SUMMARY_FILE = "comparison.md", "summary.md"
_OF_VERDICTS = ("order", "form", "template")
_KINDS = {
    "generative": "model that writes",
    "critique": "critique reward model",
    "scalar": "scalar reward model",
    "endpoint": "model at an endpoint",
}


@dataclass(frozen=True)
class Evaluate:
    """Measure a model on a benchmark, from the file as it is released: every way of counting, side by side."""

    benchmark: str
    """Name of the benchmark; all = each one that the folder of --data holds, as a subfolder or file of its name."""
    model: str
    """Folder of the model, or the name that it is served under."""
    data: str
    """File of the benchmark, or a folder of its shards."""
    out: str | None = None
    """Folder for answers and scores, of all benchmarks with one for each; none = evaluations/BENCHMARK."""
    compat: tuple[str, ...] = ()
    """Ways of counting beside strict; none = all that the benchmark has."""
    votes: int | None = None
    """Samples that vote on each pair, odd; none = the greedy verdict."""
    order: Literal["both", "one"] = "both"
    """Whether pairs are shown in both orders, or in one that the seed chooses."""
    form: VerdictForm = "tagged"
    """How a judge writes its verdict, and the template that asks for it."""
    template: str | None = None
    """File with a template of one's own, with {question}, {first} and {second}; its verdict is of the same form."""
    scorer: ScorerKind | None = None
    """What answers; none = the endpoint if one is given, else what the folder holds: a critique or scalar reward model,
    or a model that writes."""
    endpoint: str | None = None
    """Address of an OpenAI-compatible endpoint that serves the model."""
    endpoint_key_file: str | None = None
    """File holding its API key."""
    against: str | None = None
    """Folder of another model's answers to the same data, to compare with."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code; see ``command_line``."""
    return ended(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(words: Sequence[str]) -> int:
    if asks_kit(words):
        sys.stdout.write(as_markdown(by_kit(words)))
        return 0
    command, rest = parsed(words)
    if command.benchmark == ALL:
        return run_all(command, rest)
    sys.stdout.write(as_markdown(run(command, rest)))
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
    served = None if command.endpoint is None else Endpoint(command.endpoint, command.endpoint_key_file)
    kind = kind_of(command.model, command.scorer, served)
    asks = asks_of(benchmark.asks, kind, benchmark=command.benchmark)
    request = checked(command, benchmark, asks)
    flags = ["--algo", "sft", "--model.path", command.model, "--data.path", command.data, "--run.dir", str(out)]
    config, _ = load_config([*flags, *rest])
    if benchmark.judge is not None and (config.reward.judge_url is None or config.reward.judge_model is None):
        raise RefusedInput(f"{command.benchmark} is rated by a judge: give --reward.judge_url, --reward.judge_model")
    file, items = usable_items(
        command.data,
        config.data.media_root,
        benchmark=benchmark,
        data=config.data,
        pictures=out / "pictures",
        tell=lambda line: sys.stderr.write(f"{line}\n"),
    )
    # Deferred: the refusals above need neither torch nor Ray.
    from orchestrator.evaluation.benchmark_run import BenchmarkRun, answers_of, scores_in, scores_of
    from orchestrator.run.log import quiet_libraries

    sys.stderr.write(f"{command.model} is asked as a {_KINDS[kind]}: --scorer {kind}\n")
    quiet_libraries()
    options, folder = _ask_options(command, config, request), RunFolder(out)
    scorer = scorer_of(kind, config, options, asks=asks, folder=folder, endpoint=served)
    folder.create()
    measured = BenchmarkRun(
        name=command.benchmark,
        benchmark=benchmark,
        file=file,
        items=items,
        options=options,
        counting=CountOptions(reading=command.form, votes=command.votes, seed=config.run.seed),
        ways=("strict", *(way for way in command.compat if way != "strict")) if command.compat else None,
        config=config,
        folder=folder,
    )
    try:
        other = None if command.against is None else scores_in(measured, Path(command.against))
        if config.run.resume == "never":
            forget_predictions(out)
        kept = answers_of(measured, scorer)
        scores = scores_of(measured, kept.current(), kept.asked, model=command.model)
        write_scores(out, scores)
        if command.against is not None and other is not None:
            found = compared(other, scores, seed=config.run.seed)
            write_atomic(out / COMPARISON_FILE, comparison_markdown(found, first=other.model, second=scores.model))
            write_disagreements(
                out,
                items.items,
                (other, scores),
                (Path(command.against), kept.current()),
                readings=(str(other.asked["reading"]), command.form),
                votes=command.votes,
            )
    finally:
        folder.release()
    return scores


def run_all(command: Evaluate, rest: Sequence[str] = ()) -> int:
    """Measure on every benchmark that the folder ``data`` holds, and write ``summary.md``.

    Returns:
        2 if one of them was refused, which keeps none of the others from being measured, else 0.
    Raises:
        RefusedInput: the folder holds none, or ``compat`` names a way that none of them has.
        GuardStop: see ``run``; what is done by then is kept.
    """
    held, out = holdings(Path(command.data)), Path(command.out or "evaluations")
    if held.unknown:
        sys.stderr.write(f"named after no benchmark: {', '.join(held.unknown)}\n")
    ways = {way for name in held.paths for way in benchmark_of(name).ways}
    if unknown := [way for way in command.compat if way not in ways]:
        raise RefusedInput(f"compat = {unknown[0]!r}: these benchmarks are counted as {', '.join(sorted(ways))}")
    found: dict[str, Scores | str] = {}
    for name, (path, *others) in held.paths.items():
        try:
            if others:
                raise RefusedInput(f"{path.name} and {others[0].name} are both named after it")
            found[name] = run(_of_one(command, name, path, out), rest)
        except RefusedInput as refusal:
            found[name] = str(refusal)
            sys.stderr.write(f"refused: {name}: {refusal}\n")
    table = summary_markdown(command.model, found)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / SUMMARY_FILE, table)
    sys.stdout.write(table)
    return 2 if any(isinstance(scores, str) for scores in found.values()) else 0


def _of_one(command: Evaluate, name: str, data: Path, out: Path) -> Evaluate:
    """The command for one of all benchmarks, with what is said of pairs where it has pairs."""
    benchmark = benchmark_of(name)
    ways = tuple(way for way in ("strict", *command.compat) if way in benchmark.ways) if command.compat else ()
    against = None if command.against is None else str(Path(command.against) / name)
    own = replace(command, benchmark=name, data=str(data), out=str(out / name), compat=ways, against=against)
    votes = command.votes if benchmark.asks == "verdict" else None
    unused = _unused(benchmark, benchmark.asks)
    return replace(own, votes=votes, **{option: getattr(Evaluate, option) for option in unused})


def _unused(benchmark: Benchmark, asks: Asks) -> tuple[str, ...]:
    """Options of verdicts that have no meaning here."""
    if asks != "verdict":
        return _OF_VERDICTS
    return ("order", "template") if benchmark is JUDGEMENTS else ()


def parsed(argv: Sequence[str]) -> tuple[Evaluate, list[str]]:
    """The command's own flags, and those of ``orchestrator.train``.

    Raises:
        RefusedInput: a value before all flags, or an option that measuring has no use for.
    """
    own, rest = parted(
        argv,
        [field.name for field in dataclasses.fields(Evaluate)],
        unasked=("algo", "model.path", "data.path", "run.dir", "dry_run"),
        why="a model is measured by --benchmark, --model, --data and --out",
    )
    command = command_line.parsed(Evaluate, own, prog="python -m orchestrator.evaluate")
    refuse_paths(command, "benchmark", "model", "data", "out", "template", "endpoint_key_file", "against")
    return command, rest


def checked(command: Evaluate, benchmark: Benchmark, asks: Asks) -> str:
    """The template that pairs are asked with.

    Raises:
        RefusedInput: options that do not fit the benchmark or who is asked, or a template that lacks a place.
    """
    if unknown := [way for way in command.compat if way not in benchmark.ways]:
        ways = ", ".join(benchmark.ways)
        raise RefusedInput(f"compat = {unknown[0]!r}: {command.benchmark} is counted as {ways}")
    if command.votes is not None and (asks != "verdict" or command.votes < 1 or command.votes % 2 == 0):
        raise RefusedInput(f"votes = {command.votes}: expected an odd number, and verdicts on a benchmark of pairs")
    for name in _unused(benchmark, asks):
        if (value := getattr(command, name)) != getattr(Evaluate, name):
            why = "a judgement asks in its own words" if asks == "verdict" else "nobody is asked for one here"
            raise RefusedInput(f"{name} = {value!r} says how a verdict is asked for, and {why}")
    return request_of(command.form, command.template)


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
