"""Broken files of a model folder are refused by name before anything starts, or turn out to be harmless."""

import random
import shutil
from pathlib import Path

import pytest

from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from tests.contract.bad_inputs import valid_case
from tests.fuzz.model_files import damages
from tests.fuzz.observed import observed

_SLICE = 20


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("damaged") / "model", seed=0)


def _faults(model: Path, folder: Path, chosen: list[tuple[str, str, bytes]]) -> list[str]:
    case = valid_case(folder, model)
    damaged = folder / "model"
    shutil.copytree(model, damaged)
    case.flags["--model.path"] = str(damaged)
    argv, faults, refused = [*case.argv(), "--dry-run"], list[str](), 0
    for name, file, content in chosen:
        (damaged / file).write_bytes(content)
        ending = observed(main, argv)
        refused += ending.code == 2
        if ending.fault is not None:
            faults.append(f"{name}: {ending.fault}")
        (damaged / file).unlink()
        if (model / file).is_file():
            shutil.copy(model / file, damaged / file)
    print(f"{len(chosen)} damages: {refused} refused, {len(faults)} faults")  # noqa: T201
    return faults


def test_a_seeded_slice_of_the_damages_is_refused_or_harmless(model: Path, tmp_path: Path) -> None:
    assert _faults(model, tmp_path, random.Random(0).sample(list(damages(model)), _SLICE)) == []


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_every_damage_is_refused_or_harmless(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        assert _faults(model, tmp_path, list(damages(model))) == []
