"""evalscope: ModelScope's kit, the one that ms-swift evaluates with.

    FOLDER/reviews/MODEL/TASK_PART.jsonl    a line an answer: index, target, messages, sample_score
    FOLDER/reports/MODEL/TASK.json          metrics, each with its parts ("subsets")

Lines come in the order of answers, not of rows. A request that fails ends the kit, unless ``--ignore-errors`` is passed
on: then the answer is missing from the reviews and counted in the report.

Source: evalscope 1.14.1, as seen in what it writes.
"""

import glob
import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

from orchestrator.errors import GuardStop
from orchestrator.evaluation.kits.kit import (
    Kit,
    KitAsk,
    KitFigure,
    KitResults,
    KitRow,
    numbers_of,
    read_json,
    read_lines,
    texts,
    wanted,
)

_PLAIN = ("identity", "mean")
"""How rows are put together, where that need not be told."""


def command(ask: KitAsk) -> list[str]:
    """Greedy, each request with our time limit and without the kit's five retries of what has failed."""
    generation: dict[str, Any] = {"temperature": 0.0, "timeout": ask.timeout_s, "retries": 1}
    if ask.max_new_tokens is not None:
        generation["max_tokens"] = ask.max_new_tokens
    return [
        *(ask.python, "-m", "evalscope.cli.cli", "eval"),
        *("--model", ask.model, "--api-url", ask.url, "--api-key", "none", "--eval-type", "openai_api"),
        *("--datasets", *ask.tasks),
        *("--generation-config", json.dumps(generation)),
        *("--eval-batch-size", str(ask.parallel)),
        *("--work-dir", str(ask.folder), "--no-timestamp"),
        *ask.args,
    ]


def read(folder: Path) -> KitResults:
    """Rows and figures of every report.

    Raises:
        GuardStop: a file is missing or other than it was.
    """
    reports = sorted(folder.glob("reports/*/*.json"))
    if not reports:
        raise GuardStop(f"evalscope left no reports/MODEL/TASK.json in {str(folder)!r}")
    rows, figures, notes = list[KitRow](), list[KitFigure](), list[str]()
    for path in reports:
        report, task = read_json(path), path.stem
        figures += _figures(report, task, str(path))
        rows += _rows(folder, path.parent.name, task, {one.stem for one in reports})
        summary = report.get("execution_summary") or {}
        if failed := summary.get("errored", 0):
            notes.append(f"{failed} of {summary.get('requested')} requests of {task} failed and are in no figure")
    return KitResults(rows=tuple(rows), figures=tuple(figures), notes=tuple(notes))


def _figures(report: dict[str, Any], task: str, where: str) -> list[KitFigure]:
    figures = []
    for metric in wanted(report, where, "metrics", kind=list):
        name = _name(wanted(metric, where, "identity", kind=dict), where)
        parts = [
            (wanted(subset, where, "name", kind=str), wanted(subset, where, "score", kind=float))
            for category in wanted(metric, where, "categories", kind=list)
            for subset in wanted(category, where, "subsets", kind=list)
        ]
        if len(parts) != 1:
            parts.append(("", wanted(metric, where, "score", kind=float)))
        figures += [
            KitFigure(task=task, part="" if len(parts) == 1 else part, name=name, value=float(value))
            for part, value in parts
            if math.isfinite(value)
        ]
    return figures


def _name(identity: dict[str, Any], where: str) -> str:
    words = [wanted(identity, where, "name", kind=str)]
    if (how := identity.get("aggregation")) not in (*_PLAIN, None):
        words.append(str(how))
    dimensions = identity.get("dimensions") or {}
    return "_".join([*words, *(f"{key}_{value}" for key, value in dimensions.items())])


def _rows(folder: Path, model: str, task: str, tasks: Collection[str]) -> list[KitRow]:
    """Of the files TASK_PART; of ``mmmu_pro_x`` with the tasks ``mmmu`` and ``mmmu_pro``, the longer is meant."""
    longer = tuple(f"{other}_" for other in tasks if other.startswith(f"{task}_"))
    found = sorted((folder / "reviews" / model).glob(f"{glob.escape(task)}_*.jsonl"))
    paths = [path for path in found if not path.name.startswith(longer)]
    if not paths:
        raise GuardStop(f"evalscope left no reviews of {task} in {str(folder)!r}")
    return [
        _row(line, where, task, path.stem.removeprefix(f"{task}_"))
        for path in paths
        for where, line in read_lines(path)
    ]


def _row(line: dict[str, Any], where: str, task: str, part: str) -> KitRow:
    judged = wanted(line, where, "sample_score", kind=dict)
    score = wanted(judged, where, "score", kind=dict)
    metadata = judged.get("sample_metadata") or {}
    target = line.get("target")
    return KitRow(
        task=task,
        part=part,
        # Of repeated answers each has a sample_id of its own, and the group's is the row's.
        index=wanted(judged, where, "group_id", kind=int),
        sample=judged.get("generation_index") or 0,
        id=str(metadata.get("question_id") or metadata.get("id") or ""),
        question=_question(wanted(line, where, "messages", kind=list)),
        truth=", ".join(map(str, target)) if isinstance(target, list) else str(target or ""),
        text=str(score.get("prediction") or ""),
        status="answered" if score.get("status", "success") == "success" else "failed",
        scores=numbers_of(wanted(score, where, "value", kind=dict)),
    )


def _question(messages: list[Any]) -> str:
    asked = [message.get("content") for message in messages if message.get("role") == "user"]
    return "\n".join(content if isinstance(content, str) else texts(content or ()) for content in asked)


KIT = Kit(
    package="evalscope",
    version="1.14.1",
    needs=("evalscope==1.14.1",),
    command=command,
    read=read,
)
