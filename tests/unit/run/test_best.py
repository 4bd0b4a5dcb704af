"""The best checkpoint by a figure stays, and a run that gets no better may end."""

import json
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.errors import RefusedInput
from orchestrator.run.best import best_step, has_stalled
from orchestrator.run.folder import RunFolder
from orchestrator.training.figures import check_best


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Evaluated every second step; before training it was better than ever after."""
    found = RunFolder(tmp_path)
    values = {0: 0.9, 2: 0.5, 4: 0.7, 6: 0.7, 8: 0.6, 10: None}
    rows = [{"step": step, **({"eval/accuracy": values[step]} if step in values else {})} for step in range(11)]
    found.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (2, 4, 6, 8, 10):
        found.checkpoint(step).mkdir(parents=True)
        (found.checkpoint(step) / "manifest.json").write_text("{}")
    return found


def test_of_equal_ones_the_earliest_is_best(folder: RunFolder) -> None:
    assert best_step(folder, "eval/accuracy") == 4
    assert best_step(folder, "eval/other") is None


def test_patience_counts_evaluations_since_the_best(folder: RunFolder) -> None:
    assert [has_stalled(folder, "eval/accuracy", patience=n) for n in (1, 2, 3)] == [True, True, False]
    assert not has_stalled(folder, "eval/other", patience=1)


def test_pruning_spares_the_best(folder: RunFolder) -> None:
    folder.prune(keep=2, besides=4)
    assert [path.name for path in folder.complete_checkpoints()] == ["step_000004", "step_000008", "step_000010"]
    folder.prune(keep=2)
    assert [path.name for path in folder.complete_checkpoints()] == ["step_000008", "step_000010"]


def test_patience_needs_a_figure() -> None:
    with pytest.raises(RefusedInput, match=r"eval\.patience = 3 needs eval\.best"):
        load_config(["--algo", "grpo", "--eval.patience", "3"])


def test_a_figure_that_no_evaluation_has_is_refused() -> None:
    for name in ("eval/accuracy", "eval/accuracy/geo", "eval/pass_at_4"):
        check_best(load_config(["--algo", "grpo", "--eval.best", name])[0])
    wrong = load_config(["--algo", "grpo", "--eval.best", "eval/acuracy"])[0]
    with pytest.raises(
        RefusedInput, match=r"eval\.best = 'eval/acuracy' is no figure of this run's evaluations: eval/acc"
    ):
        check_best(wrong)
