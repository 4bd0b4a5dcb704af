"""A kit's own environment: that it is there, that it holds the version whose files are read, and a run in it."""

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cluster.waits import waiting
from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.kits.kit import Kit, KitAsk, KitResults
from orchestrator.evaluation.kits.process import ended, failure, last_line, started

if TYPE_CHECKING:  # it takes transformers, and most refusals can be had without
    from orchestrator.evaluation.kits.serving import Served

_ASK_S, _POLL_S = 60.0, 0.5
_VERSION = "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))"
_VARIABLES = {
    # Nothing is fetched: data are local, or in the caches that the user has filled.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # The GPUs are the endpoint's.
    "CUDA_VISIBLE_DEVICES": "",
    # Our modules are none of the kit's, nor are those of the folder we are in.
    "PYTHONSAFEPATH": "1",
    "PYTHONPATH": None,
    "PYTHONHOME": None,
    "VIRTUAL_ENV": None,
}


def check_environment(kit: Kit, python: str) -> None:
    """
    Args:
        python: Interpreter of the kit's environment.
    Raises:
        RefusedInput: it is none, or the kit is not there in the version whose files are read here.
    """
    making = f"make it: uv venv KIT; uv pip install --python KIT/bin/python {' '.join(kit.needs)}"
    # Isolated: neither our modules nor those of the folder we are in.
    command = [python, "-I", "-c", _VERSION, kit.package]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RefusedInput(f"kit-python = {python!r} is no interpreter that runs; {making}") from error
    version = told.stdout.strip()
    if told.returncode != 0:
        raise RefusedInput(f"kit-python = {python!r} has no {kit.package}; {making}")
    if version != kit.version:
        raise RefusedInput(
            f"kit-python = {python!r} has {kit.package} {version}, expected {kit.version}, whose files are read "
            f"here; {making}"
        )


def _unproxied() -> dict[str, str]:
    """What the user asks without a proxy, and the endpoint."""
    named = [os.environ.get(name, "") for name in ("NO_PROXY", "no_proxy")]
    hosts = ",".join(dict.fromkeys([*filter(None, named), "127.0.0.1", "localhost"]))
    return {"NO_PROXY": hosts, "no_proxy": hosts}


def results_of(kit: Kit, ask: KitAsk, endpoint: "Served", log: Path, *, silent_s: float) -> KitResults:
    """Run it to its end and read what it leaves.

    Args:
        log: File for what it says.
        silent_s: Longest time in which it says nothing, seconds.
    Raises:
        GuardStop: it, or the endpoint, ends with an error, or leaves no results.
        WaitTimeout: it is silent for longer.
    """
    process = started(kit.command(ask), {**_VARIABLES, **_unproxied(), **kit.environment}, log)
    try:
        with waiting(f"{kit.package}: its next words", silent_s) as wait:
            size = 0
            while process.poll() is None:
                endpoint.check()
                if (now := log.stat().st_size) != size:
                    size = now
                    wait.progress(f"{size} bytes in {log}")
                wait.check()
                time.sleep(_POLL_S)
    finally:
        ended(process)
    if process.returncode:
        raise failure(kit.package, process, log)
    try:
        return kit.read(ask.folder)
    except GuardStop as stop:
        # A kit may end well and say in its log alone what went wrong.
        raise GuardStop(f"{stop}; its last words: {last_line(log)} (see {log})") from stop
