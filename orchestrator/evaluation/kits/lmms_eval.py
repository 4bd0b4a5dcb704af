"""lmms-eval: the kit of most published figures.

    FOLDER/MODEL/DATE_results.json          results: by task, "NAME,FILTER" to a number
    FOLDER/MODEL/DATE_samples_TASK.jsonl    a line a row: doc_id, target, input, filtered_resps, resps if they differ,
                                            and a number, or an object with a "score", under each metric's name

It ends with exit code 0 whatever went wrong, and takes a request that failed for a wrong answer: both are looked for.

Source: lmms-eval 0.7.3, as seen in what it writes; models/simple/openai.py has the time limit of 10 s,
models/chat/openai.py the text of a request that failed.
"""

import math
from pathlib import Path
from typing import Any

from orchestrator.errors import GuardStop, one_line
from orchestrator.evaluation.kits.kit import (
    Kit,
    KitAsk,
    KitFigure,
    KitResults,
    KitRow,
    numbers_of,
    read_json,
    read_lines,
    wanted,
)

_FAILED = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")
_SAMPLES = "_samples_"
_MOST_CHARS = 300


def command(ask: KitAsk) -> list[str]:
    """Its ``openai`` model, which sends images as they are; ``async_openai`` bounds the pixels of videos' frames."""
    endpoint = f"model_version={ask.model},base_url={ask.url},api_key=none"
    limits = f"timeout={math.ceil(ask.timeout_s)},max_retries=1,num_concurrent={ask.parallel}"
    # Whatever is given here replaces a task's own value, and nothing else of it.
    generation = () if ask.max_new_tokens is None else ("--gen_kwargs", f"max_new_tokens={ask.max_new_tokens}")
    return [
        *(ask.python, "-m", "lmms_eval", "--model", "openai", "--model_args", f"{endpoint},{limits}"),
        *("--tasks", ",".join(ask.tasks), "--batch_size", "1"),
        *generation,
        *("--log_samples", "--output_path", str(ask.folder)),
        *ask.args,
    ]


def read(folder: Path) -> KitResults:
    """Rows and figures of the one run in the folder.

    Raises:
        GuardStop: a file is missing or other than it was, or a request failed.
    """
    found = sorted(folder.glob("*/*_results.json"))
    if len(found) != 1:
        raise GuardStop(f"lmms-eval left {len(found)} files MODEL/DATE_results.json in {str(folder)!r}, expected 1")
    (path,) = found
    results = wanted(read_json(path), str(path), "results", kind=dict)
    date = path.name.removesuffix("_results.json")
    rows = [
        row
        for samples in sorted(path.parent.glob(f"{date}{_SAMPLES}*.jsonl"))
        for where, line in read_lines(samples)
        for row in _rows(line, where, samples.stem.removeprefix(f"{date}{_SAMPLES}"), results)
    ]
    if failed := [row for row in rows if row.status == "failed"]:
        first = failed[0]
        raise GuardStop(
            f"{len(failed)} of {len(rows)} requests failed, which lmms-eval counts as wrong answers; row "
            f"{first.index + 1} of {first.task}: {one_line(first.text, most=_MOST_CHARS)}"
        )
    return KitResults(rows=tuple(rows), figures=tuple(_figures(results)))


def _figures(results: dict[str, Any]) -> list[KitFigure]:
    return [
        KitFigure(task=task, part="", name=_name(key), value=value)
        for task, told in results.items()
        for key, value in numbers_of(told).items()
        if "," in key and "_stderr" not in key and math.isfinite(value)
    ]


def _name(key: str) -> str:
    """``NAME,FILTER`` without a filter that is none."""
    return key.removesuffix(",none").replace(",", "_")


def _rows(line: dict[str, Any], where: str, task: str, results: dict[str, Any]) -> list[KitRow]:
    said = line.get("resps", line.get("filtered_resps"))
    told = said if isinstance(said, list) else [said]
    index, question = wanted(line, where, "doc_id", kind=int), line.get("input")
    metrics = {_name(key) for key in results.get(task, {}) if "," in key and "_stderr" not in key}
    judged = {name: line[name] for name in sorted(metrics) if name in line}
    inside = [value for value in judged.values() if isinstance(value, dict)]
    scores = {name: one.get("score") if isinstance(one, dict) else one for name, one in judged.items()}
    texts = [str(one[0] if isinstance(one, list) and one else one) for one in told]
    return [
        KitRow(
            task=task,
            part="",
            index=index,
            sample=number,
            id=next((str(one["question_id"]) for one in inside if "question_id" in one), ""),
            question=question if isinstance(question, str) else "",
            truth=str(line.get("target", "")),
            text=text,
            status="failed" if text.startswith(_FAILED) else "answered",
            scores=numbers_of(scores),
        )
        for number, text in enumerate(texts)
    ]


KIT = Kit(
    package="lmms-eval",
    version="0.7.3",
    # It reads a module of filelock that version 4 no longer has.
    needs=("lmms-eval==0.7.3", "filelock==3.20.4"),
    command=command,
    read=read,
    environment={"LMMS_IMAGE_ENCODE_FORMAT": "PNG"},
)
