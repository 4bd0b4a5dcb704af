"""What a stage was made from: kept beside its result, and compared whole."""

from pathlib import Path

from orchestrator.pipeline.stages import fits, keep


def test_something_fits_only_what_it_was_made_from(tmp_path: Path) -> None:
    made_from = {"run.seed": 3, "optimizer.betas": [0.9, 0.95], "reward.url": None}
    file = tmp_path / "stage" / "made_from.json"
    assert not fits(file, made_from)
    keep(file, made_from)
    assert fits(file, made_from)
    assert not fits(file, {**made_from, "run.seed": 4})
    assert not fits(file, {name: value for name, value in made_from.items() if name != "run.seed"})
