"""What goes wrong while engines sample ahead: nothing that was learned is lost, and a run that stops can go on."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import GuardStop
from orchestrator.rewards.reward import Reward
from orchestrator.run.ahead import read_ahead
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.training.ahead_engines import SeededEngines
from tests.unit.training.ahead_runs import PROMPTS, SAMPLES, WHOLE, ByText, rollouts_of, run_ahead, told_figures

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_STEPS = 4
_FAILED = Reward(value=None, status="failed", detail="the service is away")
_UNKNOWN = Reward(value=0.0, status="unknown", detail="the judge says hm")
_GUARDED = (*WHOLE, "--reward.max_unknown", "0.5")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("ahead") / "model", seed=0)


@pytest.mark.parametrize("instead", [_FAILED, _UNKNOWN], ids=["failed", "unknown"])
def test_a_run_that_a_reward_guard_stopped_asks_again_and_goes_on(
    instead: Reward, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_ahead(model, tmp_path / "whole", _STEPS, monkeypatch, *_GUARDED)
    # Of step 1: asked as they are sampled, and again as they are taken.
    with pytest.raises(GuardStop, match=r"reward coverage|gave no verdict"):
        run_ahead(model, tmp_path / "stopped", _STEPS, monkeypatch, *_GUARDED, client=ByText({1, 2}, instead))
    kept = tmp_path / "stopped" / "run" / "checkpoints" / "step_000001"
    assert {sample.reward for group in read_ahead(kept) for sample in group.samples} == {None}
    client = ByText()
    again, _ = run_ahead(model, tmp_path / "stopped", _STEPS, monkeypatch, *_GUARDED, client=client)
    assert len(client.asked[0]) == PROMPTS * SAMPLES
    assert told_figures(again) == told_figures(whole)
    assert rollouts_of(again) == rollouts_of(whole)


def test_rewards_that_failed_while_the_policy_learned_are_asked_for_again_by_the_step_that_takes_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_ahead(model, tmp_path / "whole", _STEPS, monkeypatch, *_GUARDED)
    client = ByText({1})
    folder, _ = run_ahead(model, tmp_path / "away", _STEPS, monkeypatch, *_GUARDED, client=client)
    assert client.asked[2] == client.asked[1] and len(client.asked[2]) == PROMPTS * SAMPLES
    assert told_figures(folder) == told_figures(whole)


def test_what_would_fail_again_is_not_asked_for_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, final = ByText({1}, replace(_FAILED, is_final=True)), (*_GUARDED, "--reward.min_coverage", "0.5")
    with pytest.raises(GuardStop, match="reward coverage"):
        run_ahead(model, tmp_path, _STEPS, monkeypatch, *final, client=client)
    assert len(client.asked) == 2


def test_no_engine_is_asked_beside_a_batch_that_cannot_be_learned_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[object]()
    monkeypatch.setattr(SeededEngines, "sample_meanwhile", lambda *_, **given: begun.append(given))
    with pytest.raises(GuardStop, match="reward coverage"):
        run_ahead(model, tmp_path, _STEPS, monkeypatch, *_GUARDED, client=ByText({0, 1}))
    assert not begun
