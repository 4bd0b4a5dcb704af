"""PPO's critic on real ranks: one or two of them agree, and a run whose critic or driver is killed is the same run."""

import random
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from algorithms.critic import CriticSection, ValueSample
from algorithms.figures import values
from algorithms.tokens import step_weights
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.chaos import run_with_accidents
from tests.integration.conftest import run_cli
from tests.integration.kills import run_and_kill
from tests.integration.pools import make_pool, policy_spec
from tests.integration.runs import STEPS, metric_rows, online_arguments, rollout_trace, training_trace
from tests.tiny_prompts import respond
from workers.critic import CriticSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.trained_rank import RankSpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]
_UPDATES, _BATCH = 4, 12
_OF_CRITIC = ("critic/loss", "critic/value_mean", "critic/grad_norm", "critic/lr")


def _batches(model: Path, digits: DigitsPaths) -> list[list[ValueSample]]:
    """Responses of uneven lengths, with returns that differ from each other."""
    encoder, rng = PromptEncoder(model), np.random.default_rng(0)
    file = digits.train
    found = read_prompts(
        SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=None, video_frames=1)
    )
    batches = []
    for number in range(_UPDATES):
        prompts = found.prompts[number * _BATCH : (number + 1) * _BATCH]
        sequences = [respond(encoder, p, rng.integers(8, 30, 2 + k % 5)) for k, p in enumerate(prompts)]
        weights = step_weights(sequences, aggregation="token-mean", longest_response=8)
        batches.append(
            [
                ValueSample(
                    sequence=s,
                    loss_weight=w,
                    returns=rng.normal(size=len(s.input_ids)).astype(np.float32),
                    old_values=np.zeros(len(s.input_ids), np.float32),
                )
                for s, w in zip(sequences, weights, strict=True)
            ]
        )
    return batches


def _learn(
    model: Path, batches: list[list[ValueSample]], out: Path, *, num_ranks: int, zero_stage: int
) -> tuple[list[float], dict[str, np.ndarray], np.ndarray]:
    critic = CriticSection(clip=None).model
    plain = policy_spec(model, zero_stage=zero_stage, objective=critic.objective, head=critic.head)
    fields = {name: getattr(plain, name) for name in RankSpec.__dataclass_fields__}
    pool = make_pool(num_ranks=num_ranks)
    try:
        workers = pool.role("critic")
        workers.start(CriticSpec(**fields, head_in=None))
        losses = []
        for samples in batches:
            plan = pool.microbatches([s.sequence for s in samples], num_ranks=num_ranks)
            per_rank = [[[samples[i] for i in batch] for batch in of_rank] for of_rank in plan]
            ranks = workers.update(per_rank, deadline_s=120.0)
            losses.append(sum(values(rank.figures)["critic/loss"] for rank in ranks))
        (found,) = workers.each("values", [batches[-1][0].sequence], deadline_s=60.0)
        workers.shared("save", str(out), deadline_s=60.0)
    finally:
        pool.close()
    weights = {name: t.numpy() for name, t in load_file(out / "policy" / "model.safetensors").items()}
    head = load_file(out / "policy" / "reward_head" / "model.safetensors")
    return losses, weights | {f"head.{name}": t.numpy() for name, t in head.items()}, found


def test_ranks_and_zero_stages_of_a_critic_agree(
    cluster: None, random_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    batches = _batches(random_model, digits)
    losses, weights, found = _learn(random_model, batches, tmp_path / "1", num_ranks=1, zero_stage=2)
    others = _learn(random_model, batches, tmp_path / "2", num_ranks=2, zero_stage=3)
    assert others[0] == pytest.approx(losses, rel=1e-4)
    assert others[2] == pytest.approx(found, abs=1e-3)
    assert others[1].keys() == weights.keys()
    assert max(float(np.abs(others[1][name] - weights[name]).max()) for name in weights) < 1e-4


def _arguments(model: Path, digits: DigitsPaths, run_dir: Path) -> list[str]:
    own = ("--critic.lr", "2e-3", "--run.silent_after_s", "12")
    arguments = online_arguments(model, digits, run_dir)
    return ["--algo", "ppo", *arguments[2:], *own]


@pytest.mark.soak
def test_a_run_whose_critic_and_driver_are_killed_is_the_unbroken_run(
    tmp_path: Path, warm_model: Path, digits: DigitsPaths
) -> None:
    whole, moment = tmp_path / "whole", random.SystemRandom()
    result = run_cli(*_arguments(warm_model, digits, whole))
    assert result.returncode == 0, result.stderr[-3000:]
    assert [row["step"] for row in metric_rows(whole)] == list(range(STEPS + 1))

    killed, delay_s = tmp_path / "killed", moment.uniform(0.0, 1.5)
    print(f"driver killed {delay_s:.2f} s after row 2")  # noqa: T201 - so that a failure can be repeated
    run_and_kill(_arguments(warm_model, digits, killed), killed, rows_before=2, delay_s=delay_s)
    accidents = [("critic rank killed", 4, moment.uniform(0.0, 1.0))]
    print(accidents)  # noqa: T201
    result = run_with_accidents(_arguments(warm_model, digits, killed), killed, accidents)
    assert result.returncode == 0, result.stderr[-3000:]
    assert training_trace(killed) == training_trace(whole)
    assert rollout_trace(killed) == rollout_trace(whole)
    of_critic = [[{name: row[name] for name in _OF_CRITIC} for row in metric_rows(run)[1:]] for run in (whole, killed)]
    assert of_critic[0] == of_critic[1]
