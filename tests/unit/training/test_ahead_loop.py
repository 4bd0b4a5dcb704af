"""Learning from what earlier weights sampled, on real ranks in this process: exact behind a stop at every step."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.rewards.reward import Reward
from orchestrator.run.ahead import FILE, read_ahead
from orchestrator.run.cursor import sample_seed
from orchestrator.run.folder import RunFolder
from orchestrator.run.rollout_store import RolloutRow, read_rollouts
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training import answering as answering_module
from orchestrator.training.ahead import AheadWork
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.loop import run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import open_session
from orchestrator.training.waiting import Waiting
from tests.in_process import InProcessPool
from tests.loops import BUDGET, loop_config, metric_rows, run_folder, told_prompts
from tests.unit.training.ahead_engines import SeededEngines
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_STEPS, _PROMPTS, _SAMPLES, _LONGEST = 6, 3, 2, 8
_WHOLE = ("--rollout.staleness", "1")
_PARTIAL = ("--rollout.staleness", "3", "--rollout.tokens_per_round", "3")
_REFERRED = (*_PARTIAL, "--algorithm.kl_coef", "0.1", "--algorithm.kl_estimator", "k3")


class _ByText:
    """Rewards that are a function of what is said."""

    def open_stream(self) -> Any:
        found: dict[str, Reward] = {}

        class Stream:
            def add(self, item: Any) -> None:
                value = float(sample_seed(0, item.response, item.length, 0) % 5)
                found[item.id] = Reward(value=value, parts={"format": 1.0}, status="scored")

            def results(self) -> dict[str, Reward]:
                return found

        return Stream()


def _length(uid: str, index: int) -> int:
    return 1 + sample_seed(2, uid, index, 0) % _LONGEST


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("ahead") / "model", seed=0)


def _run(
    model: Path, root: Path, steps: int, monkeypatch: pytest.MonkeyPatch, *flags: str, lost_after: int | None = None
) -> tuple[RunFolder, SeededEngines]:
    root.mkdir(exist_ok=True)
    config = loop_config(
        model, root, "grpo", "--data.path", "rows.json", "--rollout.prompts_per_step", str(_PROMPTS),
        "--rollout.samples_per_prompt", str(_SAMPLES), "--rollout.max_new_tokens", str(_LONGEST),
        "--policy.train_batch_size", "3", "--guard.max_mismatch", "100", "--run.steps", str(steps), "--optimizer.lr",
        "1e-3", "--optimizer.schedule", "constant", "--run.checkpoint_every", "1", "--run.keep_checkpoints", "10",
        *flags,
    )  # fmt: skip
    encoder, data = PromptEncoder(str(model)), told_prompts(root)
    words = [encoder.encode_target(word)[0] for word in ("which", "?")]
    lens = {prompt.uid: len(encoder.encode(prompt).prompt_ids) for prompt in (*data.train.prompts, *data.held_out)}
    engines = SeededEngines(words, _length, prompt_lens=lens)
    engines.lost_after = lost_after
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: engines)
    pool = InProcessPool(tokens_per_microbatch=BUDGET)
    identity = online_identity(config, data)
    with (
        run_folder(root) as folder,
        open_session(config, folder, pool, identity=identity, counts=data.counts, figures=()) as (session, start),
    ):
        asked = answering(session, encoder, data, policy_version=start.policy_version)
        work = OnlineWork(answering=asked, client=_ByText())  # type: ignore[arg-type]
        run(session, AheadWork(online=work, waiting=Waiting(work)), start)
        return folder, engines


def _rollouts(folder: RunFolder) -> list[list[RolloutRow]]:
    """Without the folders that the pictures lie in."""
    steps = [read_rollouts(folder.rollout_file(step)) for step in folder.rollout_steps()]
    return [[replace(row, media_paths=()) for row in rows] for rows in steps]


def _told(folder: RunFolder) -> list[dict[str, Any]]:
    """Figures without times and memory."""
    rows = metric_rows(folder)[1:]
    return [{k: v for k, v in r.items() if not k.startswith(("time/", "memory/", "throughput/"))} for r in rows]


@pytest.mark.parametrize("flags", [_WHOLE, _PARTIAL, _REFERRED], ids=["whole", "partial", "referred"])
def test_a_run_that_goes_on_from_any_checkpoint_is_the_same_run(
    flags: tuple[str, ...], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = _run(model, tmp_path / "whole", _STEPS, monkeypatch, *flags)
    assert len(_told(whole)) == _STEPS
    for step in range(1, _STEPS):
        again = tmp_path / f"from_{step}"
        shutil.copytree(tmp_path / "whole", again)
        for later in range(step + 1, _STEPS + 1):
            shutil.rmtree(again / "run" / "checkpoints" / f"step_{later:06d}")
        resumed, _ = _run(model, again, _STEPS, monkeypatch, *flags)
        assert _told(resumed) == _told(whole)
        assert _rollouts(resumed) == _rollouts(whole)
    assert not (whole.checkpoint(_STEPS) / FILE).exists(), "nothing is sampled that no step learns from"


@pytest.mark.parametrize(("flags", "bound"), [(_WHOLE, 1), (_PARTIAL, 3)], ids=["whole", "partial"])
def test_every_prompt_is_learned_once_and_no_answer_is_older_than_allowed(
    flags: tuple[str, ...], bound: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, engines = _run(model, tmp_path, _STEPS, monkeypatch, *flags)
    rows = [row for step in _rollouts(folder) for row in step]
    assert len(rows) == _STEPS * _PROMPTS * _SAMPLES
    taken = Counter(row.uid.partition("~")[0] for row in rows if row.sample_index == 0)
    assert taken == {f"train-{n}": _STEPS * _PROMPTS // 6 for n in range(6)}
    figures = _told(folder)
    assert max(row["rollout/staleness_max"] for row in figures) == bound
    assert figures[0]["rollout/staleness_max"] == 0.0 and figures[1]["rollout/drift"] > 0.0
    assert "mismatch/logprob_abs_mean" in figures[0] and "mismatch/logprob_abs_mean" not in figures[1]
    # Two updates a step: weights of step s have version 2 s.
    for step, found in enumerate(_rollouts(folder)):
        assert all(0 <= 2 * step - row.oldest_version <= 2 * bound for row in found)
        assert all(row.oldest_version <= row.policy_version <= 2 * step for row in found)
        assert all(row.seed == sample_seed(0, row.uid, row.sample_index, row.oldest_version) for row in found)
        assert all(len(row.completion_ids) == _length(row.uid.partition("~")[0], row.sample_index) for row in found)
    training = [asked for asked in engines.asked if asked[0].partition("~")[0] in taken]
    assert Counter(asked[:2] for asked in training if asked[2] == 0).total() == len(rows)
    assert all(seed == sample_seed(0, uid, i, version, drawn) for uid, i, drawn, seed, version in training)


def test_what_waits_is_in_the_checkpoint_with_ids_versions_and_rewards(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = _run(model, tmp_path, _STEPS, monkeypatch, *_REFERRED)
    waits = read_ahead(folder.checkpoint(3))
    assert folder.read_manifest(folder.checkpoint(3))["ahead"] == FILE
    samples = [sample for group in waits for sample in group.samples]
    assert {sample.finish_reason for sample in samples} == {None, "stop"}
    for group in waits:
        assert all((sample.reward is not None) == group.is_whole for sample in group.samples)
        assert all((sample.ref_logprobs is not None) == group.is_whole for sample in group.samples)
        assert all(sum(tokens for tokens, _ in sample.spans) == len(sample.ids) for sample in group.samples)
    learned = {(row.uid, row.sample_index): row for step in _rollouts(folder)[3:] for row in step}
    for group in waits:
        for index, sample in enumerate(group.samples):
            row = learned[group.uid, index]
            assert np.array_equal(sample.ids, np.asarray(row.completion_ids)[: len(sample.ids)])
            assert np.array_equal(sample.logprobs, np.asarray(row.rollout_logprobs, np.float32)[: len(sample.ids)])


def test_without_an_engine_answers_wait_for_the_next_weights_and_none_is_lost(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = _run(model, tmp_path, _STEPS, monkeypatch, *_WHOLE, lost_after=3)
    figures = _told(folder)
    assert [row["rollout/late"] for row in figures] == [_PROMPTS * _SAMPLES - 3.0, 0, 0, 0, 0, 0]
    rows = [row for step in _rollouts(folder) for row in step]
    assert Counter(row.uid.partition("~")[0] for row in rows) == {f"train-{n}": 6 for n in range(6)}
    # Three came back under the first weights, three were sampled behind the sync.
    assert sorted(row.policy_version for row in _rollouts(folder)[1]) == [0, 0, 0, 2, 2, 2]


def test_an_error_beside_the_policy_is_raised_and_the_updates_that_were_taken_are_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SeededEngines, "sample_meanwhile", _fails)
    with pytest.raises(KeyError, match="an engine's"):
        _run(model, tmp_path, _STEPS, monkeypatch, *_WHOLE)


def _fails(*_: Any, **__: Any) -> None:
    raise KeyError("an engine's")
