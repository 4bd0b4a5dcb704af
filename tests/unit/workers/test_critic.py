"""The critic: whole ranks in this process, which value states, learn returns, are saved and are loaded as they were."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from algorithms.critic import CLIP, EXPLAINED, CriticSection, ValueObjective, ValueSample
from algorithms.figures import values
from algorithms.policy_settings import AlgorithmSection
from algorithms.ppo import Ppo
from algorithms.records import Rollout, Sequence
from algorithms.tokens import step_weights
from tests.tiny_prompts import picture_prompts, respond
from tests.user_files import write_llava
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.critic import CriticSpec, CriticWorker
from workers.models.loading import ModelSpec
from workers.models.reward_head import save_reward_head
from workers.multimodal.prompt_encoder import PromptEncoder

pytestmark = pytest.mark.usefixtures("one_rank")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    """Two responses to a prompt with an image, two to one without, of different lengths."""
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path_factory.mktemp("pictures"), {"picture": 1, "text": 0})
    return [respond(encoder, p, rng.integers(8, 30, 3 + 2 * k), sample_index=k) for p in prompts for k in range(2)]


@pytest.fixture
def spec(folder: Path) -> CriticSpec:
    schedule = Schedule(peak_lr=3e-3, kind="constant", total_steps=40, warmup_frac=0.0, min_lr_frac=0.1)
    model = CriticSection(clip=None).model
    return CriticSpec(
        model=ModelSpec(path=str(folder), dtype="float32", share_prompts=True),
        source=str(folder),
        optimizer=OptimizerSpec(
            zero_stage=2,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            max_grad_norm=1.0,
            offload_optimizer=False,
            schedule=schedule,
        ),
        objective=model.objective,
        head=model.head,
        head_in=None,
        freeze=("vision",),
        gradient_checkpointing=False,
    )


def _worker(spec: CriticSpec) -> CriticWorker:
    worker = CriticWorker(rank=0, world_size=1, spec=spec, num_threads=1)
    assert worker.setup("127.0.0.1", 0) > 0
    return worker


def _samples(sequences: list[Sequence], returns: list[float]) -> list[ValueSample]:
    """Every token of a response is to be worth the same."""
    weights = step_weights(sequences, aggregation="token-mean", longest_response=8)
    return [
        ValueSample(
            sequence=s,
            loss_weight=w,
            returns=np.full(len(s.input_ids), r, np.float32),
            old_values=np.zeros(len(s.input_ids), np.float32),
        )
        for s, w, r in zip(sequences, weights, returns, strict=True)
    ]


def _with_a_head(folder: Path, into: Path) -> Path:
    """The model with a head that tells states apart."""
    into.mkdir()
    for file in folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    hidden = AutoConfig.from_pretrained(folder).get_text_config().hidden_size
    save_reward_head("linear", {"weight": torch.linspace(-1, 1, hidden)[None]}, into, request=None)
    return into


def test_a_new_critic_finds_every_state_worth_nothing_and_learns_what_it_is_told(
    spec: CriticSpec, sequences: list[Sequence], tmp_path: Path
) -> None:
    worker, wanted = _worker(spec), [1.0, 1.0, -1.0, -1.0]
    first = worker.values([sequences])
    assert [len(v) for v in first] == [len(s.input_ids) for s in sequences] and not any(v.any() for v in first)
    told = [values(worker.update([_samples(sequences, wanted)]).figures) for _ in range(25)]
    assert told[0]["critic/loss"] == pytest.approx(0.5) and told[-1]["critic/loss"] < 0.05
    assert told[0][CLIP] == 0.0 and "policy/loss" not in told[0]
    learned = worker.values([sequences])
    for sequence, value, r in zip(sequences, learned, wanted, strict=True):
        assert not value[: sequence.prompt_len].any()
        np.testing.assert_allclose(value[sequence.prompt_len :], r, atol=0.6)
    worker.save(str(tmp_path))
    assert load_file(tmp_path / "policy" / "reward_head" / "model.safetensors")["bias"].any(), "it has learned too"
    after = worker.update([_samples(sequences, wanted)])

    saved = str(tmp_path / "policy")
    again = _worker(replace(spec, model=replace(spec.model, path=saved), head_in=saved))
    again.load_state(str(tmp_path), num_steps=25)
    for one, other in zip(again.values([sequences]), learned, strict=True):
        assert np.array_equal(one, other)
    assert again.update([_samples(sequences, wanted)]) == after


def _explained(spec: CriticSpec, sequences: list[Sequence], *, epochs: int) -> list[float]:
    """By step, of the values before it, for rewards that the prompt decides; advantages and returns are PPO's own."""
    worker, rewards = _worker(spec), [1.0, 1.0, -1.0, -1.0]
    own = AlgorithmSection(adv_filter="none", preclip_min=None, preclip_max=None, aggregation="token-mean")
    algorithm = Ppo("ppo", {"algorithm": own, "critic": CriticSection(clip=None, epochs=epochs)})
    everything = list(range(len(sequences)))
    ask: Any = SimpleNamespace(longest_response=8, state={}, step=0, deal=lambda uids, epoch: [everything])
    found = []
    for _ in range(6):
        rollouts = [
            Rollout(
                sequence=s, reward=r, values=v, old_logprobs=None, ref_logprobs=None,
                rollout_logprobs=np.zeros(len(s.input_ids), np.float32),
            )
            for s, r, v in zip(sequences, rewards, worker.values([sequences]), strict=True)
        ]  # fmt: skip
        learned = algorithm.samples(rollouts, ask)
        found.append(learned.figures[EXPLAINED])
        for samples in learned.critic:
            worker.update([samples])
    return found


def test_what_a_critic_explains_grows_from_step_to_step_and_sooner_with_epochs(
    spec: CriticSpec, sequences: list[Sequence]
) -> None:
    once, often = (_explained(spec, sequences, epochs=epochs) for epochs in (1, 4))
    assert once[0] == often[0] == 0.0 and often[-1] > 0.8
    assert all(more > less for more, less in zip(often[1:], once[1:], strict=True))


def test_fresh_weights_are_drawn_by_the_seed_and_what_is_frozen_stays(spec: CriticSpec, tmp_path: Path) -> None:
    found = []
    for name, seed in (("loaded", None), ("one", 3), ("again", 3), ("other", 4)):
        torch.rand(5)
        _worker(replace(spec, fresh_seed=seed)).save(str(tmp_path / name))
        found.append(load_file(tmp_path / name / "policy" / "model.safetensors"))
    loaded, one, again, other = found
    assert {name for name in one if not torch.equal(one[name], again[name])} == set()
    kept = {name for name in one if torch.equal(one[name], loaded[name])}
    assert {name for name in one if "vision_tower" in name} < kept
    assert all("vision_tower" in name or "norm" in name or "bias" in name for name in kept)
    # Norms and biases begin with ones and zeros, whatever the seed.
    assert {name for name in one if torch.equal(one[name], other[name])} == kept


def test_a_value_is_of_the_state_before_its_token_however_rows_are_packed(
    spec: CriticSpec, folder: Path, sequences: list[Sequence], tmp_path: Path
) -> None:
    worker = _worker(replace(spec, head_in=str(_with_a_head(folder, tmp_path / "headed"))))
    together = worker.values([sequences])
    alone = [v for s in sequences for v in worker.values([[s]])]
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    # The last token is what the last value does not know: another one there changes none of them.
    s = sequences[0]
    ids = np.array(s.input_ids)
    ids[-1] = ids[-1] + 1
    (changed,) = worker.values([[replace(s, input_ids=ids)]])
    np.testing.assert_allclose(changed, alone[0], atol=1e-6)
    ids[-2] = ids[-2] + 1
    (earlier,) = worker.values([[replace(s, input_ids=ids)]])
    assert abs(earlier[-1] - alone[0][-1]) > 1e-4
    np.testing.assert_allclose(earlier[:-1], alone[0][:-1], atol=1e-6)


def test_a_clip_bounds_the_way_from_the_old_value() -> None:
    from algorithms.algorithm import Scores

    sequence = Sequence(uid="a", sample_index=0, input_ids=np.arange(4), prompt_len=2, media=())
    (sample,) = _samples([sequence], [2.0])
    found = torch.tensor([0.1, 0.5], requires_grad=True)
    loss = ValueObjective(clip=0.2)(Scores((), values=(found,)), [sample])
    # (2 - 0.1)² and (2 - 0.2)², halved, one half each; beyond the bound there is no gradient.
    assert float(loss.losses.detach().sum()) == pytest.approx((1.9**2 + 1.8**2) / 4)
    (gradient,) = torch.autograd.grad(loss.losses.sum(), found)
    assert gradient.tolist() == pytest.approx([-1.9 / 2, 0.0])
    assert values(loss.figures)[CLIP] == 0.5
