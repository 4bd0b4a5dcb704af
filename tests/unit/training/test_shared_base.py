"""Policy, reference, critic and reward model on one base learn what they would with a model each, and go on so."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orchestrator.preflight import check_other_models
from orchestrator.rewards.judge_service import sample_judges
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
from tests.learned_adapters import learned_adapter
from tests.loops import BUDGET, loop_config, metric_rows, run_folder, told_prompts
from tests.tiny_prompts import picture_prompts, respond
from workers.multimodal.prompt_encoder import PromptEncoder

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_STEPS = 4
_ROLES = ("policy", "reference", "critic", "scalar_reward")
_CRITIC = ("--critic.init", "reward", "--critic.path")


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


@dataclass(frozen=True)
class Begun:
    """One base, and what earlier stages have left on it."""

    base: Path
    policy: Path
    reward: Path

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            *("--model.lora_rank", "4", "--model.freeze", "vision", "--model.adapter", str(self.policy)),
            *(
                "--critic.init",
                "reward",
                "--critic.path",
                str(self.reward),
                "--critic.head",
                "reward_head",
                "--algorithm.kl_coef",
                "0.05",
            ),
            *("--reward.functions", "scalar?weight=0.5", "--reward.scalar_path", str(self.reward)),
        )


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    root = tmp_path_factory.mktemp("begun")
    base = build_digits_model(root / "model", seed=0)
    encoder, rng = PromptEncoder(base), np.random.default_rng(0)
    prompts = picture_prompts(root, {"picture": 1, "text": 0})
    sequences = [respond(encoder, p, rng.integers(8, 30, 4)) for p in prompts]
    learned_adapter(base, sequences[:1], root / "sft", seed=1)
    learned_adapter(base, sequences[1:], root / "rm", seed=2)
    yield Begun(base, root / "sft" / "policy", root / "rm" / "policy")


def _run(
    begun: Begun, root: Path, monkeypatch: pytest.MonkeyPatch, *flags: str, steps: int = _STEPS
) -> tuple[RunFolder, InProcessPool]:
    root.mkdir(exist_ok=True)
    sizes = ("--rollout.prompts_per_step", "4", "--rollout.samples_per_prompt", "2", "--rollout.max_new_tokens", "4")
    config = loop_config(
        begun.base, root, "ppo", "--data.path", "rows.json", *sizes, "--guard.max_mismatch", "100", "--run.steps",
        str(steps), "--optimizer.lr", "1e-3", "--critic.lr", "1e-2", "--optimizer.schedule", "constant", *begun.flags,
        *flags,
    )  # fmt: skip
    check_other_models(config, config)
    encoder = PromptEncoder(str(begun.base))
    monkeypatch.setattr(answering_module, "policy_engines", lambda *_, **__: OneWord(encoder.encode_target("which")[0]))
    data, pool = told_prompts(root), InProcessPool(tokens_per_microbatch=BUDGET)
    with (
        run_folder(root) as folder,
        open_session(config, folder, pool, identity=online_identity(config, data), counts=data.counts, figures=()) as (
            session,
            start,
        ),
        sample_judges(config, folder, pool, data.train.prompts) as judges,
    ):
        asked = answering(session, encoder, data, policy_version=start.policy_version)
        run(session, OnlineWork(answering=asked, client=_ByName(), judges=judges), start)  # type: ignore[arg-type]
        return folder, pool


def _weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    newest = folder.complete_checkpoints()[-1]
    files = {
        "policy": newest / "policy" / "adapter_model.safetensors",
        "critic": newest / "critic" / "policy" / "adapter_model.safetensors",
        "head": newest / "critic" / "policy" / "reward_head" / "model.safetensors",
    }
    return {f"{part}.{name}": tensor for part, file in files.items() for name, tensor in load_file(file).items()}


_NOT_TIMED = ("time/", "memory/", "throughput/")


def _told(folder: RunFolder) -> list[dict[str, float]]:
    return [{n: v for n, v in row.items() if not n.startswith(_NOT_TIMED)} for row in metric_rows(folder)]


def test_four_adapters_on_one_base_are_four_models(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, models = _run(begun, tmp_path / "apart", monkeypatch)
    shared, tenants = _run(begun, tmp_path / "shared", monkeypatch, "--placement.share_base", "true")
    assert all(pool.role(name).actors for pool in (models, tenants) for name in _ROLES)
    rows, others = _told(apart), _told(shared)
    assert len(rows) == len(others) == _STEPS + 1
    assert {"policy/loss", "critic/loss", "critic/value_mean", "reward/scalar"} <= set(rows[-1]), sorted(rows[-1])
    for one, other in zip(rows, others, strict=True):
        assert other == pytest.approx(one, abs=1e-6, rel=1e-6)
    assert rows[-1]["policy/loss"] != rows[1]["policy/loss"] and rows[-1]["critic/loss"] != rows[1]["critic/loss"]
    kept, as_kept = _weights(apart), _weights(shared)
    assert kept.keys() == as_kept.keys()
    assert max(float((kept[name] - as_kept[name]).abs().max()) for name in kept) < 1e-6


def test_a_shared_run_that_goes_on_is_the_same_run(
    begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = ("--placement.share_base", "true")
    whole, _ = _run(begun, tmp_path / "whole", monkeypatch, *share)
    _run(begun, tmp_path / "halves", monkeypatch, *share, steps=2)
    halves, _ = _run(begun, tmp_path / "halves", monkeypatch, *share)
    told = [{row["step"]: row for row in _told(folder)} for folder in (whole, halves)]
    compared = (
        "critic/loss",
        "critic/value_mean",
        "critic/return_mean",
        "policy/loss",
        "policy/grad_norm",
        "reward/scalar",
    )
    for step in range(1, _STEPS + 1):
        assert [told[0][step][name] for name in compared] == [told[1][step][name] for name in compared]
    one, other = _weights(whole), _weights(halves)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def _held(worker: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every parameter of the models of a policy rank and of those it has admitted, by the role."""
    named = {"policy": worker, **worker._tenants}
    for role, one in named.items():
        module = one._engine.module if role in ("policy", "critic") else one._module
        yield from ((f"{role}.{name}", tensor) for name, tensor in module.named_parameters())


def test_the_base_is_in_memory_once(begun: Begun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, pool = _run(begun, tmp_path / "shared", monkeypatch, "--placement.share_base", "true", steps=1)
    (host,) = pool.role("policy").actors
    held = list(_held(host.worker))
    assert {name.partition(".")[0] for name, _ in held} == set(_ROLES)
    of_base = [(n, t) for n, t in held if ".lora_" not in n and ".score." not in n]
    distinct = {t.data_ptr(): t.numel() for _, t in of_base}
    weights = load_file(begun.base / "model.safetensors").values()
    assert sum(distinct.values()) == sum(t.numel() for t in weights) and not any(t.requires_grad for _, t in of_base)
    assert len({t.data_ptr() for n, t in held if ".lora_" in n}) == sum(".lora_" in n for n, _ in held)
