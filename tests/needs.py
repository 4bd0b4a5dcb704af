"""What a registered algorithm needs with its own settings; and what a test needs of the machine, or is skipped."""

import shutil

import pytest

from algorithms.algorithm import Needs
from algorithms.registry import algorithm_class


def needs_of(algo: str) -> Needs:
    """Of its name."""
    kind = algorithm_class(algo)
    return kind(algo, {name: section() for name, section in kind.sections.items()}).needs


def chromium() -> str:
    """Path of the browser; without it the test is skipped."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("chromium is missing: apt-get install -y chromium")
    return found
