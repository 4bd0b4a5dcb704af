"""No setting of any command line, whatever is written there, is met by a traceback, a long wait or a page of text."""

import random
from pathlib import Path

import pytest

from orchestrator.tasks.digits_model import build_digits_model
from tests.fuzz.command_lines import Case, all_cases, counted, ground_in, number_of_keys

_SLICE = 120
_LEAST_VALUES = 40


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    folder = tmp_path_factory.mktemp("sweep")
    return list(all_cases(ground_in(folder, build_digits_model(folder / "model", seed=0))))


def _faults(cases: list[Case], work: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(work)  # what is written to a name without a folder is written here
    faults = list[str]()
    print(counted(cases, tell=faults.append))  # noqa: T201
    return faults


def test_every_key_has_at_least_forty_values(cases: list[Case]) -> None:
    counts = number_of_keys(cases)
    assert {key: count for key, count in counts.items() if count < _LEAST_VALUES and " file with " not in key} == {}


def test_a_seeded_slice_of_the_settings_ends_in_one_line_or_is_accepted(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _faults(random.Random(0).sample(cases, _SLICE), tmp_path, monkeypatch) == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_setting_ends_in_one_line_or_is_accepted(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        assert _faults(cases, tmp_path, monkeypatch) == []
