"""A stage that measures a model on a benchmark: refused before the first stage starts, told, and done in its folder.

Answers are kept as they come, so that the same command goes on where it was interrupted and asks nothing twice.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.cluster.placement import describe_plan
from orchestrator.cluster.plan import single_role_plan
from orchestrator.config.benchmarks import Measure
from orchestrator.config.schema import TrainConfig
from orchestrator.config.tables import made
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.asking import AskOptions
from orchestrator.evaluation.benchmarks.files import ItemFile, Items
from orchestrator.evaluation.benchmarks.items import Asks, Benchmark, CountOptions
from orchestrator.evaluation.benchmarks.prompts import request_of
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.benchmarks.usable import usable_items
from orchestrator.evaluation.predictions import forget_predictions
from orchestrator.evaluation.results import JSON_FILE, TABLE_FILE, Scores, as_markdown, write_scores
from orchestrator.evaluation.scorers.choice import ScorerKind, asks_of, kind_of, role_of, scorer_of
from orchestrator.preflight import check_model, check_processors
from orchestrator.run.folder import RunFolder
from orchestrator.run.log import quiet_libraries


def check_measure(
    measure: Measure, config: TrainConfig, known: TrainConfig, *, makes: ScorerKind = "generative"
) -> list[str]:
    """Refuse what can be refused before there is a model; say what will be asked.

    Args:
        known: The stage without what other stages make before it.
        makes: What the stage makes whose model it measures.
    Raises:
        RefusedInput: in one sentence.
    """
    benchmark, model = _benchmark(measure, config), made("model.path", config.model.path)
    kind = makes if model is None else kind_of(model)
    asks = _asks(measure, benchmark, kind)
    if known.model.path is not None and kind != "scalar":  # which may be an adapter, and is looked at in its turn
        check_model(known)
        check_processors(known)
    placed = describe_plan(single_role_plan(config, role_of(kind, asks)))
    path = made("data.path", config.data.path)
    if path is None:
        told = f"evaluate: {measure.evaluate} on {config.data.path}, which is not looked at: it is not there yet"
        return [told, *placed]
    with TemporaryDirectory() as pictures:
        _, items = _items(benchmark, known, path, Path(pictures))
    shown = "" if benchmark.asks != "verdict" else f", {measure.order} order{'s' * (measure.order == 'both')}"
    samples = f", {measure.votes} samples that vote" if measure.votes else ""
    return [f"evaluate: {measure.evaluate}, {len(items.items)} rows of {path}{shown}{samples}", *placed]


def measured(measure: Measure, config: TrainConfig) -> str:
    """Answer what is not answered, count, and write what orchestrator.evaluate writes; its table.

    Raises:
        RefusedInput: see ``check_measure``; or the folder holds answers of another model.
        GuardStop: the judge, or an engine, cannot go on.
    """
    quiet_libraries()
    folder = RunFolder(Path(config.run.dir))
    folder.create()
    try:
        if config.run.resume == "never":
            forget_predictions(folder.root)
            for name in (JSON_FILE, TABLE_FILE):
                (folder.root / name).unlink(missing_ok=True)
        scores = _scores(measure, config, folder)
        write_scores(folder.root, scores)
    finally:
        folder.release()
    sys.stdout.write(f"{folder.root / TABLE_FILE}\n")
    return as_markdown(scores)


def _scores(measure: Measure, config: TrainConfig, folder: RunFolder) -> Scores:
    from orchestrator.evaluation.benchmark_run import BenchmarkRun, answers_of, scores_of  # deferred: it imports Ray

    benchmark, seed = _benchmark(measure, config), config.run.seed
    kind = kind_of(config.model.folder)
    asks = _asks(measure, benchmark, kind)
    options = AskOptions(
        request=request_of(measure.form, measure.template),
        both_orders=measure.order == "both",
        samples=measure.votes or 0,
        temperature=config.rollout.temperature,
        seed=seed,
        max_new_tokens=config.rollout.max_new_tokens,
    )
    scorer = scorer_of(kind, config, options, asks=asks, folder=folder)
    file, items = _items(benchmark, config, config.data.training_path, folder.root / "pictures")
    run = BenchmarkRun(
        name=measure.evaluate,
        benchmark=benchmark,
        file=file,
        items=items,
        options=options,
        counting=CountOptions(reading=measure.form, votes=measure.votes, seed=seed),
        ways=tuple(dict.fromkeys(("strict", *measure.compat))) if measure.compat else None,
        config=config,
        folder=folder,
    )
    kept = answers_of(run, scorer)
    return scores_of(run, kept.current(), kept.asked, model=config.model.folder)


def _benchmark(measure: Measure, config: TrainConfig) -> Benchmark:
    """The benchmark, which the stage's options fit."""
    name, benchmark = measure.evaluate, benchmark_of(measure.evaluate)
    if benchmark.judge is not None and (config.reward.judge_url is None or config.reward.judge_model is None):
        raise RefusedInput(f"evaluate = {name!r} is rated by a judge: give reward.judge_url and reward.judge_model")
    if unknown := [way for way in measure.compat if way not in benchmark.ways]:
        raise RefusedInput(f"compat = {unknown[0]!r}: {name} is counted as {', '.join(benchmark.ways)}")
    request_of(measure.form, measure.template)
    return benchmark


def _asks(measure: Measure, benchmark: Benchmark, kind: ScorerKind) -> Asks:
    """How the model is asked, which the stage's options fit."""
    asks = asks_of(benchmark.asks, kind, benchmark=measure.evaluate)
    if measure.votes is not None and asks != "verdict":
        raise RefusedInput(f"votes = {measure.votes}: {measure.evaluate} is asked for no verdicts that vote")
    return asks


def _items(benchmark: Benchmark, config: TrainConfig, path: str, pictures: Path) -> tuple[ItemFile, Items]:
    def tell(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    root = made("data.media_root", config.data.media_root)
    return usable_items(path, root, benchmark=benchmark, data=config.data, pictures=pictures, tell=tell)
