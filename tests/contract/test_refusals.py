"""Bad input: exit code 2, one sentence with field or row, value and bound, and nothing started."""

from pathlib import Path

import pytest

from orchestrator.pipeline import online as online_run
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from tests.contract.bad_inputs import SPOILED, Case, valid_case


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("refusals") / "model", seed=0)


@pytest.fixture
def case(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    def started(*_: object) -> None:
        raise AssertionError("the cluster was started")

    monkeypatch.setattr(online_run, "ray_cluster", started)
    return valid_case(tmp_path, model)


@pytest.mark.parametrize("name", SPOILED)
def test_bad_input_is_refused_in_one_sentence(name: str, case: Case, capfd: pytest.CaptureFixture[str]) -> None:
    spoil, expected = SPOILED[name]
    spoil(case)

    code = main(case.argv())

    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("refused: ")]
    assert code == 2
    assert len(lines) == 1, captured.err
    for part in expected:
        assert part in lines[0]
    assert captured.out == ""


def test_the_same_run_unspoiled_reaches_the_cluster(case: Case) -> None:
    with pytest.raises(AssertionError, match="the cluster was started"):
        main(case.argv())
