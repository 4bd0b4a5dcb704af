"""GPUs as the driver reports them, whether torch can use them, and what joins them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator

from orchestrator.diagnosis.finding import Finding

_PROBE_S = 50.0
_LINK = re.compile(r"NV\d+|PIX|PXB|PHB|NODE|SYS")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def gpus() -> Iterator[Finding]:
    """None is fine: everything runs on CPUs too."""
    if shutil.which("nvidia-smi") is None:
        yield Finding("ok", f"no GPU, {os.cpu_count()} CPU cores")
        return
    answer = _ask("--query-gpu=name,memory.total", "--format=csv,noheader")
    if answer.returncode != 0:
        said = (answer.stdout.strip() or answer.stderr.strip()).splitlines()[:1]
        yield Finding("warn", f"no GPU, {os.cpu_count()} CPU cores; nvidia-smi failed: {''.join(said)}")
        return
    names = answer.stdout.strip().splitlines()
    import torch  # deferred: it takes seconds

    yield judge_gpus(names, seen=torch.cuda.device_count(), cuda=torch.version.cuda)
    if len(names) > 1:
        yield judge_links(_ask("topo", "-m").stdout)


def judge_gpus(names: list[str], *, seen: int, cuda: str | None) -> Finding:
    """Whether torch can use what the driver has.

    Args:
        seen: GPUs that torch sees.
        cuda: Version that torch was built for; None of a build without.
    """
    told = f"{len(names)}: {'; '.join(dict.fromkeys(names))}"
    if seen:
        return Finding("ok", f"{told}; torch sees {seen}, CUDA {cuda}")
    if cuda is None:
        return Finding("warn", f"{told}, but torch is a build without CUDA", "install the extra gpu")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return Finding("warn", f"{told}, but CUDA_VISIBLE_DEVICES = {hidden!r} hides them")
    found = f"{told}, but torch for CUDA {cuda} can use none"
    return Finding("FAIL", found, "install a driver for this version of CUDA, or torch for the driver's")


def judge_links(topology: str) -> Finding:
    """What joins the GPUs, of what ``nvidia-smi topo -m`` prints: the worst of all pairs is what a sum waits for."""
    rows = [_COLOUR.sub("", line).split() for line in topology.splitlines()]
    matrix = [row for row in rows if row and re.fullmatch(r"GPU\d+", row[0]) and "X" in row]
    links = {
        (row[0], f"GPU{column}"): kind
        for place, row in enumerate(matrix)
        for column, kind in enumerate(row[1 : 1 + len(matrix)])
        if column > place and _LINK.fullmatch(kind)
    }
    if not links:
        return Finding("warn", "what joins the GPUs is not known: nvidia-smi topo -m said nothing of it")
    slow = {pair: kind for pair, kind in links.items() if not kind.startswith("NV")}
    if not slow:
        return Finding(
            "ok", f"all {len(links)} pairs of GPUs are joined by NVLink ({', '.join(sorted(set(links.values())))})"
        )
    (first, second), kind = next(iter(slow.items()))
    found = f"{len(slow)} of {len(links)} pairs of GPUs are joined by PCIe alone, {first} and {second} as {kind}"
    return Finding("warn", found, "sharded training (policy.zero_stage of 2 or 3) waits for the slowest pair")


def _ask(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_PROBE_S)
