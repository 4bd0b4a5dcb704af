"""Learning from what earlier weights sampled, on real ranks in this process: exact behind a stop at every step."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from orchestrator.run.ahead import FILE, read_ahead
from orchestrator.run.cursor import sample_seed
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.training.ahead_runs import (
    PARTIAL,
    PROMPTS,
    SAMPLES,
    WHOLE,
    answer_length,
    rollouts_of,
    run_ahead,
    told_figures,
)

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_STEPS = 6
_REFERRED = (*PARTIAL, "--algorithm.kl_coef", "0.1", "--algorithm.kl_estimator", "k3")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("ahead") / "model", seed=0)


@pytest.mark.parametrize("flags", [WHOLE, PARTIAL, _REFERRED], ids=["whole", "partial", "referred"])
def test_a_run_that_goes_on_from_any_checkpoint_is_the_same_run(
    flags: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run_ahead(model, tmp_path / "whole", _STEPS, monkeypatch, *flags)
    assert len(told_figures(whole)) == _STEPS
    for step in range(1, _STEPS):
        again = tmp_path / f"from_{step}"
        shutil.copytree(tmp_path / "whole", again)
        for later in range(step + 1, _STEPS + 1):
            shutil.rmtree(again / "run" / "checkpoints" / f"step_{later:06d}")
        resumed, _ = run_ahead(model, again, _STEPS, monkeypatch, *flags)
        assert told_figures(resumed) == told_figures(whole)
        assert rollouts_of(resumed) == rollouts_of(whole)
    assert not (whole.checkpoint(_STEPS) / FILE).exists(), "nothing is sampled that no step learns from"


@pytest.mark.parametrize(("flags", "bound"), [(WHOLE, 1), (PARTIAL, 3)], ids=["whole", "partial"])
def test_every_prompt_is_learned_once_and_no_answer_is_older_than_allowed(
    flags: tuple[str, ...], bound: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, engines = run_ahead(model, tmp_path, _STEPS, monkeypatch, *flags)
    rows = [row for step in rollouts_of(folder) for row in step]
    assert len(rows) == _STEPS * PROMPTS * SAMPLES
    taken = Counter(row.uid.partition("~")[0] for row in rows if row.sample_index == 0)
    assert taken == {f"train-{n}": _STEPS * PROMPTS // 6 for n in range(6)}
    figures = told_figures(folder)
    assert max(row["rollout/staleness_max"] for row in figures) == bound
    assert figures[0]["rollout/staleness_max"] == 0.0 and figures[1]["rollout/drift"] > 0.0
    assert "mismatch/logprob_abs_mean" in figures[0] and "mismatch/logprob_abs_mean" not in figures[1]
    # Two updates a step: weights of step s have version 2 s.
    for step, found in enumerate(rollouts_of(folder)):
        assert all(0 <= 2 * step - row.oldest_version <= 2 * bound for row in found)
        assert all(row.oldest_version <= row.policy_version <= 2 * step for row in found)
        assert all(row.seed == sample_seed(0, row.uid, row.sample_index, row.oldest_version) for row in found)
        assert all(
            len(row.completion_ids) == answer_length(row.uid.partition("~")[0], row.sample_index) for row in found
        )
    training = [asked for asked in engines.asked if asked[0].partition("~")[0] in taken]
    assert Counter(asked[:2] for asked in training if asked[2] == 0).total() == len(rows)
    assert all(seed == sample_seed(0, uid, i, version, drawn) for uid, i, drawn, seed, version in training)


def test_what_waits_is_in_the_checkpoint_with_ids_versions_and_rewards(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_ahead(model, tmp_path, _STEPS, monkeypatch, *_REFERRED)
    waits = read_ahead(folder.checkpoint(3))
    assert folder.read_manifest(folder.checkpoint(3))["ahead"] == FILE
    samples = [sample for group in waits for sample in group.samples]
    assert {sample.finish_reason for sample in samples} == {None, "stop"}
    for group in waits:
        assert all((sample.reward is not None) == group.is_whole for sample in group.samples)
        assert all((sample.ref_logprobs is not None) == group.is_whole for sample in group.samples)
        assert all(sum(tokens for tokens, _ in sample.spans) == len(sample.ids) for sample in group.samples)
    learned = {(row.uid, row.sample_index): row for step in rollouts_of(folder)[3:] for row in step}
    for group in waits:
        for index, sample in enumerate(group.samples):
            row = learned[group.uid, index]
            assert np.array_equal(sample.ids, np.asarray(row.completion_ids)[: len(sample.ids)])
            assert np.array_equal(sample.logprobs, np.asarray(row.rollout_logprobs, np.float32)[: len(sample.ids)])


def test_without_an_engine_answers_wait_for_the_next_weights_and_none_is_lost(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = run_ahead(model, tmp_path, _STEPS, monkeypatch, *WHOLE, lost_after=3)
    figures = told_figures(folder)
    assert [row["rollout/late"] for row in figures] == [PROMPTS * SAMPLES - 3.0, 0, 0, 0, 0, 0]
    rows = [row for step in rollouts_of(folder) for row in step]
    assert Counter(row.uid.partition("~")[0] for row in rows) == {f"train-{n}": 6 for n in range(6)}
    # Three came back under the first weights, three were sampled behind the sync.
    assert sorted(row.policy_version for row in rollouts_of(folder)[1]) == [0, 0, 0, 2, 2, 2]
