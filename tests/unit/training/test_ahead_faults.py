"""What goes wrong while engines sample ahead: nothing that was learned is lost, and a run that stops can go on."""

import logging
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.feed import Unwanted
from orchestrator.cluster.waits import WorkerLost, current_waits
from orchestrator.errors import GuardStop
from orchestrator.rewards.reward import Reward
from orchestrator.run.ahead import read_ahead
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import read_rollouts
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training import ahead, updates
from tests.loops import metric_rows
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


def _in_stretch(number: int, call: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one stretch beside the policy, counted from 0, come to this."""
    plain = SeededEngines.sample_meanwhile

    def sample_meanwhile(self: SeededEngines, *args: Any, **given: Any) -> None:
        # Two updates a step.
        (call if self.version == 2 * number else plain)(self, *args, **given)

    monkeypatch.setattr(SeededEngines, "sample_meanwhile", sample_meanwhile)


def _stops(*_: Any, **__: Any) -> None:
    raise GuardStop("a prompt took two engines down")


def _until_unwanted(*_: Any, is_wanted: Callable[[], bool], **__: Any) -> None:
    while is_wanted():
        time.sleep(0.01)
    assert "sampling ahead stops" in " ".join(wait.name for wait in current_waits())
    raise Unwanted


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sampling ahead"]


def test_a_stop_beside_the_policy_loses_neither_the_updates_nor_what_is_known_of_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_ahead(model, tmp_path / "whole", _STEPS, monkeypatch, *WHOLE)
    with monkeypatch.context() as patch:
        _in_stretch(1, _stops, patch)
        with pytest.raises(GuardStop, match="two engines down"):
            run_ahead(model, tmp_path / "stopped", _STEPS, patch, *WHOLE)
    folder = RunFolder(tmp_path / "stopped" / "run")
    assert folder.read_manifest(folder.checkpoint(2))["step"] == 2
    row, known = metric_rows(folder)[-1], metric_rows(whole)[2]
    assert row["step"] == 2 and not any(name.startswith("sync/") for name in row)
    assert all(row[name] == known[name] for name in ("policy/loss", "reward/mean", "rollout/drift", "policy/lr"))
    assert rollouts_of(folder)[1] == rollouts_of(whole)[1]
    again, _ = run_ahead(model, tmp_path / "stopped", _STEPS, monkeypatch, *WHOLE)
    rows = [row for step in rollouts_of(again) for row in step]
    assert Counter(row.uid.partition("~")[0] for row in rows) == {f"train-{n}": 2 * SAMPLES for n in range(6)}
    assert [row["step"] for row in metric_rows(again)] == list(range(_STEPS + 1))


def test_a_stop_between_updates_keeps_those_that_were_taken_and_what_waits(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags, checked = ("--rollout.staleness", "3", "--rollout.tokens_per_round", "3"), list[int]()

    def check_finite(*_: Any, **__: Any) -> bool:
        checked.append(0)
        if len(checked) == 4:  # the second one of step 1
            raise GuardStop("the gradient is not finite")
        return True

    with monkeypatch.context() as patch:
        patch.setattr(updates, "check_finite", check_finite)
        _in_stretch(1, _until_unwanted, patch)
        with pytest.raises(GuardStop, match="not finite"):
            run_ahead(model, tmp_path, _STEPS, patch, *flags)
    assert not _threads()
    folder = RunFolder(tmp_path / "run")
    manifest, before = folder.read_manifest(folder.checkpoint(2)), read_ahead(folder.checkpoint(1))
    assert (manifest["step"], manifest["policy_version"]) == (2, 3)
    learned = [row.uid for row in read_rollouts(folder.rollout_file(1))]
    waits = read_ahead(folder.checkpoint(2))
    assert len(waits) == len(before) - PROMPTS and {g.uid for g in waits} < {g.uid for g in before}
    again, _ = run_ahead(model, tmp_path, _STEPS, monkeypatch, *flags)
    rest = [row.uid for step in (3, 4) for row in read_rollouts(again.rollout_file(step))]
    lost = {group.uid for group in before} - {group.uid for group in waits}
    taken = Counter(
        name.partition("~")[0] for name in [*learned, *rest, *(uid for uid in lost for _ in range(SAMPLES))]
    )
    assert taken == {f"train-{n}": 2 * SAMPLES for n in range(6)}


def test_a_stretch_beside_a_policy_that_is_lost_is_not_waited_for(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def learn(*_: Any) -> None:
        raise WorkerLost(["policy-0"], "its process ended")

    monkeypatch.setattr(ahead, "learn", learn)
    _in_stretch(0, _until_unwanted, monkeypatch)
    with caplog.at_level(logging.ERROR), pytest.raises(WorkerLost, match="its process ended"):
        run_ahead(model, tmp_path, _STEPS, monkeypatch, *WHOLE)
    assert not _threads() and "failed too" not in caplog.text


def test_of_two_errors_the_policy_s_is_raised_and_the_other_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def learn(*_: Any) -> None:
        raise WorkerLost(["policy-0"], "its process ended")

    monkeypatch.setattr(ahead, "learn", learn)
    _in_stretch(0, _stops, monkeypatch)
    with caplog.at_level(logging.ERROR), pytest.raises(WorkerLost, match="its process ended"):
        run_ahead(model, tmp_path, _STEPS, monkeypatch, *WHOLE)
    assert "sampling ahead failed too: GuardStop: a prompt took two engines down" in caplog.text


def test_a_critic_learns_beside_and_a_run_that_goes_on_is_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (*WHOLE, "--algorithm.kl_coef", "0")
    whole, _ = run_ahead(model, tmp_path / "whole", _STEPS, monkeypatch, *flags, algo="ppo")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    for step in (3, 4):
        shutil.rmtree(tmp_path / "again" / "run" / "checkpoints" / f"step_{step:06d}")
    again, _ = run_ahead(model, tmp_path / "again", _STEPS, monkeypatch, *flags, algo="ppo")
    assert told_figures(again) == told_figures(whole)
    assert told_figures(whole)[1]["rollout/staleness_max"] == 1.0 and "critic/loss" in told_figures(whole)[1]


def test_a_sync_is_proved_with_what_engines_have_seen_since_their_caches_were_emptied(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, engines = run_ahead(model, tmp_path, _STEPS, monkeypatch, *WHOLE)
    # The first one is of no step; beside the last step nothing is sampled.
    for probe, seen in engines.probed[1:-1]:
        assert probe and probe <= {name.partition("~")[0] for name in seen}


def test_strikes_end_where_there_is_nothing_to_compare(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_ahead(model, tmp_path, _STEPS, monkeypatch, *WHOLE, "--guard.max_mismatch", "0.001")
    assert [row["guard/mismatch_strikes"] for row in told_figures(folder)] == [1.0, 0.0, 0.0, 0.0]
