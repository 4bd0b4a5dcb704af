"""Preferences without critiques cannot train a critique reward model: said before any process is started."""

from pathlib import Path

import pytest

from orchestrator.pipeline import offline as offline_run
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, ranked


@pytest.mark.parametrize("algo", ["critique_rm", "mm_dpo"])
def test_a_response_without_a_critique_is_named(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def started(*_: object) -> None:
        raise AssertionError("the cluster was started")

    monkeypatch.setattr(offline_run, "ray_cluster", started)
    picture(tmp_path / "a.png")
    said = [{"response": "one", "reason": "right ."}, {"response": "two"}]
    rows = [ranked("1>2", *said, id=f"m-{n}", prompt=f"which digit ? {n}") for n in range(4)]
    store = imported(tmp_path, "mm_rlhf", *rows)
    model = build_digits_model(tmp_path / "model", seed=0)
    flags = ["--reward.critique.max_new_tokens", "8", "--run.dir", str(tmp_path / "run")]

    assert main(["--algo", algo, "--model.path", str(model), "--data.path", str(store.folder), *flags]) == 2

    refused = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused: ")]
    assert len(refused) == 1
    assert "response 2 of 2 has no critique" in refused[0] and "row 1" in refused[0]
