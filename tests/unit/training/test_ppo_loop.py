"""PPO's loop on real ranks in this process: the critic learns beside the policy, and goes on where it was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from orchestrator.cluster.specs import critic_spec, policy_spec
from orchestrator.pipeline.run import describe_batches
from orchestrator.rewards.reward import Reward
from orchestrator.run.cursor import sample_seed
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.training import answering as answering_module
from orchestrator.training.answering import answering, online_identity
from orchestrator.training.loop import run
from orchestrator.training.online_step import OnlineWork
from orchestrator.training.session import open_session
from tests.in_process import InProcessPool, OneWord
from tests.loops import BUDGET, loop_config, metric_rows, run_folder, told_prompts
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_STEPS = 4


class _ByName:
    """Rewards that are the same whenever a sample is scored again."""

    def open_stream(self) -> Any:
        return _Stream()


class _Stream:
    def __init__(self) -> None:
        self._found: dict[str, Reward] = {}

    def add(self, item: Any) -> None:
        value = float(sample_seed(0, item.uid, item.sample_index, 0) % 3)
        self._found[f"{item.uid}/{item.sample_index}"] = Reward(value=value, parts={}, status="scored", detail=None)

    def results(self) -> dict[str, Reward]:
        return self._found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("loops") / "model", seed=0)


def _run(
    model: Path, root: Path, steps: int, monkeypatch: pytest.MonkeyPatch, *flags: str, algo: str = "ppo"
) -> RunFolder:
    root.mkdir(exist_ok=True)
    sizes = ("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "2", "--rollout.max_new_tokens", "4")
    config = loop_config(
        model, root, algo, "--data.path", "rows.json", *sizes, "--guard.max_mismatch", "100", "--run.steps",
        str(steps), "--optimizer.lr", "1e-3", "--critic.lr", "1e-2", "--optimizer.schedule", "constant", *flags,
    )  # fmt: skip
    encoder = PromptEncoder(str(model))
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: OneWord(encoder.encode_target("which")[0]))
    data = told_prompts(root)
    pool = InProcessPool(tokens_per_microbatch=BUDGET)
    with (
        run_folder(root) as folder,
        open_session(config, folder, pool, identity=online_identity(config, data), counts=data.counts, figures=()) as (
            session,
            start,
        ),
    ):
        asked = answering(session, encoder, data, policy_version=start.policy_version)
        run(session, OnlineWork(answering=asked, client=_ByName()), start)  # type: ignore[arg-type]
        return folder


def test_the_critic_learns_in_every_step_and_a_run_that_goes_on_is_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(model, tmp_path / "whole", _STEPS, monkeypatch)
    rows = metric_rows(whole)[1:]
    named = {"critic/loss", "critic/grad_norm", "critic/lr", "critic/clip_frac", "critic/value_mean"}
    assert all(named <= set(row) for row in rows)
    assert rows[0]["critic/value_mean"] == 0.0 and rows[-1]["critic/value_mean"] != 0.0
    assert [row["critic/lr"] for row in rows] == pytest.approx([1e-2] * _STEPS)
    assert [row["policy/lr"] for row in rows] == pytest.approx([1e-3] * _STEPS)
    last = whole.read_manifest(whole.complete_checkpoints()[-1])
    assert (last["num_updates"], last["num_critic_updates"]) == (2 * _STEPS, 2 * _STEPS)

    _run(model, tmp_path / "halves", 2, monkeypatch)
    halves = _run(model, tmp_path / "halves", _STEPS, monkeypatch)
    compared = ("step", "critic/loss", "critic/value_mean", "critic/return_mean", "policy/loss", "policy/grad_norm")
    for one, other in zip(rows, metric_rows(halves)[1:], strict=True):
        assert {name: one[name] for name in compared} == {name: other[name] for name in compared}
    for part in ("policy", "critic/policy"):
        files = [f.complete_checkpoints()[-1] / part / "model.safetensors" for f in (whole, halves)]
        one, other = (load_file(file) for file in files)
        assert one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)


_AGAIN = ("--critic.warmup_steps", "1", "--critic.epochs", "3", "--algorithm.epochs", "2")


def test_epochs_and_warm_up_are_of_the_step_alone_so_that_a_run_that_goes_on_is_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _run(model, tmp_path / "whole", _STEPS, monkeypatch, *_AGAIN)
    rows = metric_rows(whole)[1:]
    last = whole.read_manifest(whole.complete_checkpoints()[-1])
    assert (last["num_updates"], last["num_critic_updates"]) == (2 * 2 * (_STEPS - 1), 2 * 3 * _STEPS)
    # The policy stands still at first, and its log-probs are compared with the engines' all the same.
    assert "policy/loss" not in rows[0] and "policy/loss" in rows[1]
    assert rows[0]["guard/skipped_updates"] == 0.0 and rows[0]["mismatch/logprob_abs_mean"] > 0.0
    assert all(row["critic/grad_norm"] > 0.0 for row in rows)

    _run(model, tmp_path / "halves", 2, monkeypatch, *_AGAIN)
    halves = _run(model, tmp_path / "halves", _STEPS, monkeypatch, *_AGAIN)
    compared = ("critic/loss", "critic/value_mean", "policy/loss", "policy/grad_norm", "policy/clip_frac")
    for one, other in zip(rows, metric_rows(halves)[1:], strict=True):
        assert {name: one.get(name) for name in compared} == {name: other.get(name) for name in compared}


def test_a_cost_that_adapts_goes_on_where_it_was(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ("--algorithm.kl_coef", "0.1", "--algorithm.kl_target", "0.01", "--algorithm.kl_horizon", "20")
    flags = (*flags, "--algorithm.kl_estimator", "k3")
    whole = _run(model, tmp_path / "whole", _STEPS, monkeypatch, *flags)
    rows = metric_rows(whole)[1:]
    costs = [row["kl/coef"] for row in rows]
    # At first the policy is the reference: 8 rollouts of a KL of 0, so 0.2 · 8 / 20 less; then it is far from it.
    assert costs[:2] == pytest.approx([0.1, 0.1 * 0.92]) and costs[-1] > costs[-2]
    halves = _run(model, tmp_path / "halves", 3, monkeypatch, *flags, "--run.checkpoint_every", "1")
    before, last = halves.complete_checkpoints()
    assert [halves.read_manifest(one)["learner_state"] for one in (before, last)] == [{"coef": c} for c in costs[2:]]
    (last / "manifest.json").unlink()  # killed behind a step and before its checkpoint is one
    halves = _run(model, tmp_path / "halves", _STEPS, monkeypatch, *flags)
    for name in ("kl/coef", "kl/ref", "critic/loss", "policy/loss", "policy/grad_norm"):
        assert [row[name] for row in metric_rows(halves)[1:]] == [row[name] for row in rows]


def test_padding_is_valued_and_learned_as_released_and_a_run_that_goes_on_is_the_same_run(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--fact_ppo.columns", "released", "--algorithm.aggregation", "seq-mean-token-sum-norm")
    flags = (*flags, "--critic.reward_scale", "10")
    whole = _run(model, tmp_path / "whole", 2, monkeypatch, *flags, algo="fact_ppo")
    rows = metric_rows(whole)[1:]
    # A step has 8 rollouts, two updates and two epochs; the score, 0 to 2, is paid ten times behind 4 columns.
    last = whole.read_manifest(whole.complete_checkpoints()[-1])
    assert (last["num_updates"], last["num_critic_updates"]) == (8, 8)
    assert rows[0]["critic/return_mean"] == pytest.approx(10 * rows[0]["reward/mean"], rel=1e-3)
    assert rows[0]["critic/value_mean"] == 0.0 and rows[1]["critic/value_mean"] != 0.0
    plain = _run(model, tmp_path / "plain", 2, monkeypatch, "--critic.reward_scale", "10", algo="fact_ppo")
    # Only one of four columns is a token that was sampled, and in them all there is as much to learn.
    assert metric_rows(plain)[1]["critic/loss"] == pytest.approx(rows[0]["critic/loss"], rel=0.2)
    assert metric_rows(plain)[1]["critic/grad_norm"] != rows[0]["critic/grad_norm"]

    _run(model, tmp_path / "halves", 1, monkeypatch, *flags, algo="fact_ppo")
    halves = _run(model, tmp_path / "halves", 2, monkeypatch, *flags, algo="fact_ppo")
    for name in ("critic/loss", "critic/value_mean", "policy/loss", "policy/grad_norm", "kl/ref"):
        assert [row[name] for row in metric_rows(halves)[1:]] == [row[name] for row in rows]


def test_both_schedules_span_the_updates_that_there_will_be(model: Path, tmp_path: Path) -> None:
    sizes = ("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "2")  # two updates of four
    config = loop_config(model, tmp_path, "ppo", "--data.path", "rows.json", *sizes, "--run.steps", "5", *_AGAIN)
    assert policy_spec(config, None).optimizer.schedule.total_steps == (5 - 1) * 2 * 2
    assert critic_spec(config, None).optimizer.schedule.total_steps == 5 * 2 * 3
    told = (
        "they are gone through by the policy 2 times, by the critic 3 times, by the critic alone in the first 1 steps"
    )
    assert describe_batches(config)[-1] == told
    once = loop_config(model, tmp_path, "ppo", "--data.path", "rows.json", *sizes, "--run.steps", "5")
    assert {spec(once, None).optimizer.schedule.total_steps for spec in (policy_spec, critic_spec)} == {5 * 2}
    assert "gone through" not in " ".join(describe_batches(once))


def test_a_critic_update_that_is_not_finite_is_skipped_and_counted_by_itself(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _run(model, tmp_path, 2, monkeypatch, "--critic.lr", "1e30", "--guard.nonfinite", "skip")
    last = folder.read_manifest(folder.complete_checkpoints()[-1])
    assert last["num_critic_updates"] < 4
