"""Where engines may sample while the policy learns, and where that is refused."""

import re
from pathlib import Path

import pytest

from orchestrator.cluster.plan import plan_run
from orchestrator.config import TrainConfig, load_config
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.derived import cold_start_config
from orchestrator.pipeline.run import describe_batches

_AHEAD = ("--rollout.staleness", "1")


def _config(*flags: str, algo: str = "grpo") -> TrainConfig:
    return load_config(["--algo", algo, *flags])[0]


@pytest.mark.parametrize(
    ("algo", "flags", "told"),
    [
        ("dapo", (), "rollout.staleness = 1 must be 0 with rollout.max_refills = 10"),
        ("fact_ppo", (), "rollout.staleness = 1 must be 0 for algo = 'fact_ppo'"),
        ("distill", ("--distill.teacher_path", "t"), "rollout.staleness = 1 must be 0 for algo = 'distill'"),
        ("sft", (), "rollout.staleness = 1 has no meaning for algo = 'sft'"),
        ("dpo", (), "rollout.staleness = 1 has no meaning for algo = 'dpo'"),
        (
            "grpo",
            ("--placement.share_base", "true", "--model.lora_rank", "4"),
            "rollout.staleness = 1 must be 0 with placement.share_base",
        ),
        (
            "grpo",
            ("--rollout.tokens_per_round", "8"),
            "rollout.tokens_per_round = 8 needs rollout.staleness of at least 2",
        ),
    ],
)
def test_what_cannot_learn_from_earlier_weights_is_refused(algo: str, flags: tuple[str, ...], told: str) -> None:
    with pytest.raises(RefusedInput, match=re.escape(told)):
        _config(*_AHEAD, *flags, algo=algo)


def test_rounds_end_before_answers_do() -> None:
    flags = ("--rollout.staleness", "2", "--rollout.max_new_tokens", "64", "--rollout.tokens_per_round")
    with pytest.raises(RefusedInput, match="= 64 must be below"):
        _config(*flags, "64")
    assert _config(*flags, "63").rollout.tokens_per_round == 63


@pytest.mark.parametrize("algo", ["grpo", "gspo", "cispo", "sapo", "rloo", "reinforce_pp", "ppo", "stable_reinforce"])
def test_whoever_weighs_tokens_can_learn_from_earlier_weights(algo: str) -> None:
    config = _config(*_AHEAD, algo=algo)
    assert config.learner.weighing is not None and config.learner.weighing.maximum == 2.0
    kept = _config(*_AHEAD, "--algorithm.correction", "token_mask", "--algorithm.correction_max", "3", algo=algo)
    assert kept.learner.weighing is not None and kept.learner.weighing.maximum == 3.0


def test_what_comes_before_the_run_does_not_sample_ahead() -> None:
    stage = cold_start_config(_config("--rollout.staleness", "2", "--rollout.tokens_per_round", "8"))
    assert (stage.rollout.staleness, stage.rollout.tokens_per_round) == (0, None)


def test_engines_that_share_a_gpu_with_the_policy_sleep_while_it_learns(tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('[[nodes]]\nname = "a"\ncpus = 64\ngpus = 8\nmemory_gib = 512\n')
    place = ("--placement.cluster", str(cluster), "--placement.layout")
    with pytest.raises(RefusedInput, match="= 1 needs place"):
        plan_run(_config(*_AHEAD, *place, "colocated"))
    plan_run(_config(*_AHEAD, *place, "separate"))


def test_what_waits_is_told_before_the_run() -> None:
    flags = ("--rollout.staleness", "2", "--rollout.prompts_per_step", "16", "--rollout.tokens_per_round", "8")
    sizes = ("--rollout.samples_per_prompt", "8")
    told = [line for line in describe_batches(_config(*flags, *sizes)) if line.startswith("ahead")]
    assert told == [
        "ahead: up to 32 prompts are sampled while the policy learns, in rounds of 8 tokens an answer; none is learned "
        "from more than 2 steps later"
    ]
    assert any("max_mismatch looks at the first step" in line for line in describe_batches(_config(*flags, *sizes)))
    assert not [line for line in describe_batches(_config()) if line.startswith(("ahead", "guard.max_mismatch"))]
