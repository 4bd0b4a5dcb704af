"""Drivers without their imports, which are a third of a short run: forked from a process that has them behind it.

Each is a process of its own that has started nothing yet, as one of ``python -m orchestrator.train`` is once its
modules are there. What that command itself does is for those tests that start it.
"""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

_CONTEXT = multiprocessing.get_context("forkserver")
# The command first, as Ray decides where to listen when it is imported.
_CONTEXT.set_forkserver_preload(["orchestrator.train", "orchestrator.pipeline.online", "orchestrator.pipeline.offline"])


def forked_driver(arguments: Sequence[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """What came of ``orchestrator.train`` with these arguments, in this process's folder and environment.

    Raises:
        subprocess.TimeoutExpired: it has been killed.
    """
    with TemporaryDirectory() as folder:
        told = Path(folder)
        driver = _CONTEXT.Process(target=_drive, args=(list(arguments), told, os.getcwd(), dict(os.environ)))
        driver.start()
        driver.join(timeout_s)
        if driver.exitcode is None:
            driver.kill()
            driver.join()
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        out, err = ((told / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(list(arguments), driver.exitcode, out, err)


def _drive(arguments: list[str], told: Path, folder: str, environment: Mapping[str, str]) -> None:
    from orchestrator.train import main  # deferred: the server has loaded it; whoever starts drivers may not have

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        with (told / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    try:
        code = main(arguments)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    sys.exit(code)
