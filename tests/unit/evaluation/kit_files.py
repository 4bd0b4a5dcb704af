"""Files as evaluation kits leave them, made by hand after their pinned versions; and programs like theirs."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.evaluation.released_files import jsonl, whole


@dataclass(frozen=True)
class Told:
    """One answer of a kit."""

    question: str
    truth: str
    text: str
    right: float


def evalscope_files(
    folder: Path, task: str, parts: dict[str, Sequence[Told]], figures: dict[str, float], **report: Any
) -> Path:
    """Its report, and its reviews with the last answer first, as answers come.

    Args:
        figures: Value of each metric, the same in every part.
        report: Further fields of the report.
    """
    for part, told in parts.items():
        lines = [_review(index, one) for index, one in enumerate(told)]
        jsonl(folder / "reviews" / "policy" / f"{task}_{part}.jsonl", *reversed(lines))
    metrics = [
        {
            "identity": {"name": name, "aggregation": "identity", "dimensions": {}},
            "score": value,
            "categories": [
                {"name": ["default"], "subsets": [{"name": part, "score": value, "num": 1} for part in parts]}
            ],
        }
        for name, value in figures.items()
    ]
    whole(folder / "reports" / "policy" / f"{task}.json", {"name": f"policy@{task}", "metrics": metrics, **report})
    return folder


def _review(index: int, one: Told) -> dict[str, Any]:
    picture = {"type": "image", "image": "data:image/png;base64,AAAA"}
    asked = {"role": "user", "content": [{"type": "text", "text": f"{one.question}\nYES or NO."}, picture]}
    score = {"value": {"acc": one.right}, "status": "success", "prediction": one.text}
    judged = {"score": score, "sample_id": index, "group_id": index, "generation_index": 0}
    return {
        "index": index,
        "target": [one.truth.upper()],
        "messages": [asked, {"role": "assistant", "content": one.text}],
        "sample_score": {**judged, "sample_metadata": {"question_id": f"q{index}", "answer": one.truth.upper()}},
    }


def lmms_eval_files(folder: Path, task: str, told: Sequence[Told], figures: dict[str, float]) -> Path:
    """Its results and samples; an answer that it stripped stands there twice."""
    results = {f"{name},none": value for name, value in figures.items()}
    spread = {f"{name}_stderr,none": "N/A" for name in figures} | {f"{name}_stderr_clt,none": 0.5 for name in figures}
    whole(folder / "policy" / "20261130_1_results.json", {"results": {task: {"alias": task, **results, **spread}}})
    lines = []
    for index, one in enumerate(told):
        score = {"question_id": f"q{index}", "score": one.right, "prediction": one.text.lower()}
        said = {"filtered_resps": one.text.strip()} | ({"resps": one.text} if one.text != one.text.strip() else {})
        asked = {"input": f"{one.question}\nAnswer with a word.", "target": one.truth}
        lines.append({"doc_id": index, **asked, **said, **dict.fromkeys(figures, score)})
    jsonl(folder / "policy" / f"20261130_1_samples_{task}.jsonl", *lines)
    return folder


def program(path: Path, code: str, *, version: str | None) -> Path:
    """An interpreter of an environment with a kit of this version, or with none; asked to run it, it runs code."""
    path.write_text(
        f"#!{sys.executable}\nimport json, pathlib, shutil, sys\n"
        f"if '-c' in sys.argv:\n    version = {json.dumps(version)!s}\n".replace("null", "None")
        + f"    sys.exit('no such package') if version is None else print(version)\n    sys.exit()\n{code}\n"
    )
    path.chmod(0o755)
    return path


def leaving(folder: Path, flag: str) -> str:
    """Code of a kit that leaves the files of ``folder`` where ``flag`` says."""
    place = f"sys.argv[sys.argv.index({flag!r}) + 1]"
    return f"print('asking ...', flush=True)\nshutil.copytree({str(folder)!r}, {place}, dirs_exist_ok=True)"


SERVER = """
import http.server, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""
"""A server that is healthy at once; its argument is the port."""
