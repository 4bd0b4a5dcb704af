"""What README and the Dockerfile tell people to type can be resolved, for machines with GPUs and without.

The package manager looks the versions up and downloads none of them.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_EXTRAS = ("cpu", "gpu")


def _made(extra: str) -> str:
    """What ``make install`` would run, line by line."""
    command = ["make", "--no-print-directory", "--dry-run", "--always-make", "install", f"EXTRA={extra}"]
    # Not as a part of the make that runs the tests, whose flags it would take over.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    made = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return made.replace("\\\n", " ")


def _resolved(extra: str) -> str:
    (line,) = [line for line in _made(extra).splitlines() if "uv pip install" in line]
    command = [word for word in shlex.split(line) if word not in ("--quiet", "--compile-bytecode")]
    found = subprocess.run([*command, "--dry-run"], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stderr


@pytest.mark.parametrize("extra", _EXTRAS)
def test_the_install_line_resolves(extra: str) -> None:
    _resolved(extra)


def test_the_gpu_build_has_its_engine_and_a_flash_attention_that_nobody_has_to_compile() -> None:
    added = _resolved("gpu")
    assert re.search(r"^ \+ vllm==", added, re.MULTILINE)
    assert re.search(r"^ \+ flash-attn-4==", added, re.MULTILINE)


def test_one_environment_is_not_taken_for_the_other() -> None:
    ready = {extra: _made(extra).splitlines()[-1] for extra in _EXTRAS}
    assert ready["cpu"] != ready["gpu"]


def test_every_image_has_the_files_that_its_install_line_reads() -> None:
    text = (_ROOT / "deploy" / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert {"pyproject.toml", "constraints.txt", "overrides.txt", "Makefile"} <= copied
    assert re.findall(r"make install EXTRA=(\w+)", text) == list(_EXTRAS)
