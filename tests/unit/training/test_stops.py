"""Every loop, on real workers in this process: what a stop leaves, and what a skipped update's row says."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.config import TrainConfig
from orchestrator.data.stores import open_data
from orchestrator.errors import GuardStop
from orchestrator.pipeline.summary import next_lines
from orchestrator.run.checkpoint import find_checkpoint
from orchestrator.run.folder import RunFolder
from orchestrator.run.manifest import write_config
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training import answering as answering_module
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.loop import run
from orchestrator.training.offline import offline_identity, offline_work
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import open_session
from orchestrator.training.supervised import SupervisedWork
from tests.in_process import InProcessPool, OneWord
from tests.loops import BUDGET, ScoresByChance, loop_config, metric_rows, run_folder, told_prompts
from tests.unit.data.rows import write_jsonl
from tests.unit.data.store_rows import plain
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_RUINOUS = "1e30"
"""A learning rate after whose first step no loss is finite."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("loops") / "model", seed=0)


def _supervise(
    config: TrainConfig, root: Path, folder: RunFolder, monkeypatch: pytest.MonkeyPatch, *, is_stage: bool = False
) -> tuple[Any, OneWord]:
    encoder = PromptEncoder(str(config.model.path))
    engines = OneWord(encoder.encode_target("which")[0])
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: engines)
    pool = InProcessPool(tokens_per_microbatch=BUDGET)
    data = told_prompts(root)
    with open_session(
        config, folder, pool, identity=online_identity(config, data), counts=data.counts, figures=()
    ) as opened:
        asked = answering(opened[0], encoder, data, policy_version=opened[1].policy_version)
        return run(opened[0], SupervisedWork(answering=asked, is_stage=is_stage), opened[1]), engines


def _last(folder: RunFolder) -> dict[str, Any]:
    """What the newest checkpoint says of the run."""
    return folder.read_manifest(folder.complete_checkpoints()[-1])


def test_a_supervised_run_is_evaluated_before_and_after_whatever_the_interval(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loop_config(model, tmp_path, "sft", "--data.path", "rows.json")
    with run_folder(tmp_path) as folder:
        outcome, _ = _supervise(config, tmp_path, folder, monkeypatch)
        rows = metric_rows(folder)
    assert outcome.before.judged is not None and outcome.after.judged is not None
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [0, 2, 3]
    assert folder.evaluation_file(3).is_file() and folder.evaluation_file(0).is_file()
    trained = [{name for name in row if not name.startswith("eval/")} for row in rows[1:]]
    assert trained == [trained[0]] * 3
    assert {"policy/loss", "guard/skipped_updates", "time/step_s", "memory/rss_gib/policy"} <= trained[0]


def test_a_run_that_gets_no_better_ends_and_keeps_its_best(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["--data.path", "rows.json", "--run.steps", "9", "--run.eval_every", "1", "--run.keep_checkpoints", "1"]
    config = loop_config(model, tmp_path, "sft", *argv, "--eval.best", "eval/accuracy", "--eval.patience", "2")
    with run_folder(tmp_path) as folder:
        _supervise(config, tmp_path, folder, monkeypatch)
        assert [row["step"] for row in metric_rows(folder)] == [0, 1, 2, 3]
        assert [path.name for path in folder.complete_checkpoints()] == ["step_000001", "step_000003"]


def test_a_stage_is_evaluated_quickly_and_not_before(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loop_config(model, tmp_path, "sft", "--data.path", "rows.json")
    with run_folder(tmp_path) as folder:
        outcome, engines = _supervise(config, tmp_path, folder, monkeypatch, is_stage=True)
    assert outcome.before.judged is None and outcome.after.judged is not None
    assert outcome.after.judged.accuracy_shuffled_images is None
    assert engines.log.count("sample") == 2


def test_prompts_without_an_image_do_not_end_a_run_that_trains_vision_alone(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loop_config(model, tmp_path, "sft", "--data.path", "rows.json", "--model.freeze", "language")
    config = config.model_copy(update={"policy": config.policy.model_copy(update={"train_batch_size": 1})})
    with run_folder(tmp_path) as folder:
        _supervise(config, tmp_path, folder, monkeypatch)
        assert _last(folder)["num_updates"] == 3


def test_a_supervised_run_that_a_guard_stops_leaves_a_checkpoint(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = loop_config(model, tmp_path, "sft", "--data.path", "rows.json", "--optimizer.lr", _RUINOUS)
    with run_folder(tmp_path) as folder:
        with pytest.raises(GuardStop, match=r"samples is not finite \(train-"):
            _supervise(config, tmp_path, folder, monkeypatch)
        found = find_checkpoint(folder, config, online_identity(config, told_prompts(tmp_path)))
        assert found is not None
        assert (found[1].step, found[1].num_updates, found[1].cursor.position) == (1, 1, 4)
        assert (found[0] / "policy" / "model.safetensors").is_file()


def test_answers_that_nobody_can_read_are_told_once_and_stop_a_run_that_wants_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data.path", "rows.json", "--run.steps", "4", "--run.eval_every", "1"]
    with run_folder(tmp_path) as folder:
        _supervise(loop_config(model, tmp_path, "sft", *argv), tmp_path, folder, monkeypatch)
        (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("alarm ")]
        assert told.startswith(
            "alarm after step 2: unread_verdicts: 100% of the policy's held-out answers have no verdict"
        )
        assert [row["guard/alarms"] for row in metric_rows(folder)] == [0.0, 0.0, 1.0, 1.0, 1.0]
        assert next_lines(folder.root)[0].startswith("The run:")  # this one has no config.json
        write_config(loop_config(model, tmp_path, "sft", *argv), folder)
        assert next_lines(folder.root)[0].startswith("Alarm since step 2: 100% of the policy's held-out answers")
    (again := tmp_path / "again").mkdir()
    with run_folder(again) as folder:
        config = loop_config(model, again, "sft", *argv, "--run.alarms", "stop")
        with pytest.raises(GuardStop, match=r"held-out answers have no verdict .* \(run.alarms = 'stop'"):
            _supervise(config, again, folder, monkeypatch)
        assert _last(folder)["step"] == 2
        _supervise(config, again, folder, monkeypatch)  # a person who goes on has read it
        assert _last(folder)["step"] == 4


def test_a_skipped_update_has_a_whole_row_and_names_its_samples(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flags = ("--data.path", "rows.json", "--optimizer.lr", _RUINOUS, "--guard.nonfinite", "skip")
    config = loop_config(model, tmp_path, "sft", *flags)
    with run_folder(tmp_path) as folder, caplog.at_level(logging.WARNING):
        _supervise(config, tmp_path, folder, monkeypatch)
        rows, last = metric_rows(folder), _last(folder)
    assert [row["guard/skipped_updates"] for row in rows[1:]] == [0.0, 1.0, 1.0]
    assert set(rows[1]) <= set(rows[2])
    assert rows[2]["policy/loss"] is None and rows[2]["policy/grad_norm"] is None
    assert rows[2]["policy/lr"] == config.optimizer.lr * _cosine(1 / 3)
    assert (last["num_updates"], last["policy_version"]) == (1, 1)
    assert "not finite (train-" in caplog.text


def _cosine(done: float) -> float:
    return 0.1 + 0.9 * 0.5 * (1.0 + np.cos(np.pi * done))


@pytest.mark.parametrize("action", ["stop", "skip"])
@pytest.mark.parametrize("algo", ["dpo", "sft"])
def test_an_offline_run_likewise(algo: str, action: str, model: Path, tmp_path: Path) -> None:
    rows = [plain(prompt=f"which {word} ?", chosen="which", rejected="? ?") for word in ("a", "b", "c", "d", "e")]
    file = write_jsonl(tmp_path / "rows.jsonl", *rows)
    flags = ("--data.path", str(file), "--data.format", "plain_dpo", "--data.held_out_frac", "0.3")
    ruin = ("--optimizer.lr", _RUINOUS, "--guard.nonfinite", action, "--policy.train_batch_size", "2")
    config = loop_config(model, tmp_path, algo, *flags, *ruin)
    with run_folder(tmp_path) as folder:
        data = open_data(config, folder)
        encoder, pool = PromptEncoder(str(model)), InProcessPool(tokens_per_microbatch=BUDGET)
        identity = offline_identity(config, data, {})
        with open_session(config, folder, pool, identity=identity, counts=data.counts, figures=()) as (session, start):
            work = offline_work(session, encoder, data, {})
            if action == "stop":
                with pytest.raises(GuardStop, match="not finite"):
                    run(session, work, start)
                found = find_checkpoint(folder, config, session.identity)
                assert found is not None and (found[1].step, found[1].num_updates) == (1, 1)
                return
            run(session, work, start)
        told = metric_rows(folder)
    assert [row["guard/skipped_updates"] for row in told[1:]] == [0.0, 1.0, 1.0]
    assert set(told[1]) <= set(told[2]) | set(told[0])
    assert folder.evaluation_file(3).is_file()


@pytest.mark.parametrize(("failing", "minimum"), [(0.0, 0.9), (0.5, 0.0), (0.9, 0.0), (1.0, 0.0), (0.5, 0.9)])
def test_rewards_that_fail_at_random_are_masked_or_stop_the_run_with_a_checkpoint(
    failing: float, minimum: float, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "2", "--rollout.max_new_tokens", "4")
    bound = ("--reward.min_coverage", str(minimum), "--guard.max_mismatch", "100")
    config = loop_config(model, tmp_path, "stable_reinforce", "--data.path", "rows.json", *flags, *bound)
    encoder = PromptEncoder(str(model))
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: OneWord(encoder.encode_target("which")[0]))
    pool, scores = InProcessPool(tokens_per_microbatch=BUDGET), ScoresByChance(failing)
    with run_folder(tmp_path) as folder:
        try:
            data = told_prompts(tmp_path)
            identity = online_identity(config, data)
            with open_session(config, folder, pool, identity=identity, counts=data.counts, figures=()) as (
                session,
                start,
            ):
                asked = answering(session, encoder, data, policy_version=start.policy_version)
                run(session, OnlineWork(answering=asked, client=scores), start)  # type: ignore[arg-type]
        except GuardStop as stop:
            assert failing > 0.5 or minimum > 1 - failing
            assert (
                "the judge is away" in str(stop)
                and find_checkpoint(folder, config, online_identity(config, told_prompts(tmp_path))) is not None
            )
            return
        rows, last = metric_rows(folder), _last(folder)
    assert failing < 1 and last["step"] == 3
    taken = sum(2 - row["guard/skipped_updates"] for row in rows[1:])
    assert last["num_updates"] == taken > 0
