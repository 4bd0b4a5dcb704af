"""Models with two heads or a scalar one: whole workers in this process, which learn, are saved and are loaded."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from algorithms.critique_rm import RewardGroup
from algorithms.figures import Mean, values
from algorithms.groups import IMITATION, MARGIN, NUM_PAIRS, Group, PairGroup
from algorithms.records import Sequence
from algorithms.tokens import TOKEN_ACCURACY
from tests.tiny_prompts import picture_prompts, respond
from tests.unit.algorithms.asks import learner
from tests.user_files import write_llava
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.models.export import export_merged
from workers.models.folder import REWARD_HEAD_FOLDER, critique_request, has_reward_head
from workers.models.loading import ModelSpec, load_model
from workers.models.lora import LoraSpec
from workers.models.policy_module import CritiqueRewardModule, RewardModule
from workers.models.reward_head import load_reward_head
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec, PolicyWorker

pytestmark = pytest.mark.usefixtures("one_rank")

_LORA = LoraSpec(rank=4, alpha=8, seed=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def groups(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Group]:
    """A pair about an image and a pair about none."""
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    made = []
    for prompt in picture_prompts(tmp_path_factory.mktemp("pictures"), {"picture": 1, "text": 0}):
        sequences = tuple(respond(encoder, prompt, rng.integers(8, 30, 4 + k), sample_index=k) for k in range(2))
        made.append(
            PairGroup(
                sequences=sequences,
                score_of=np.arange(2),
                ref_scores=np.zeros(2),
                pairs=np.array([[0, 1]]),
                weights=np.array([0.5]),
                betas=np.array([1.0]),
            )
        )
    return made


@pytest.fixture
def spec(folder: Path) -> PolicySpec:
    schedule = Schedule(peak_lr=1e-2, kind="constant", total_steps=10, warmup_frac=0.0, min_lr_frac=0.1)
    return PolicySpec(
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
        objective=learner("scalar_rm").objective(),
        head=learner("scalar_rm").needs.head,
        freeze=("vision",),
        gradient_checkpointing=False,
        lora=_LORA,
    )


def _worker(spec: PolicySpec) -> PolicyWorker:
    worker = PolicyWorker(rank=0, world_size=1, spec=spec, num_threads=1)
    assert worker.setup("127.0.0.1", 0) > 0
    return worker


def _scores(worker: PolicyWorker, groups: list[Group]) -> np.ndarray:
    sequences: list[Sequence] = [s for g in groups for s in g.sequences]
    return np.array(worker.rewards([sequences]), np.float32)


def test_it_learns_and_is_saved_and_loaded_as_it_was(spec: PolicySpec, groups: list[Group], tmp_path: Path) -> None:
    worker = _worker(spec)
    assert np.array_equal(_scores(worker, groups), np.zeros(4)), "a new head gives every sequence the reward 0"
    # The head moves first; until it has, nothing behind it has a gradient.
    history = [worker.update([[groups[0]], [groups[1]]]) for _ in range(3)]
    told = [values(h.figures) for h in history]
    assert [row[NUM_PAIRS.name] for row in told] == [2] * 3 and all(h.nonfinite == () for h in history)
    losses = [row["policy/loss"] for row in told]
    assert losses[0] == pytest.approx(np.log(2.0)) and losses[-1] < losses[0]
    learned = _scores(worker, groups)
    worker.save(str(tmp_path))
    after = worker.update([[groups[0]], [groups[1]]])
    further = _scores(worker, groups)

    policy = tmp_path / "policy"
    names = ["adapter_config.json", "adapter_model.safetensors", "reward_head"]
    assert sorted(file.name for file in policy.iterdir()) == names
    adapters = load_file(policy / "adapter_model.safetensors")
    assert any(".lora_B." in name and bool(t.any()) for name, t in adapters.items()), (
        "adapters learn, not only the head"
    )
    assert not any("vision_tower" in name for name in adapters)

    again = _worker(replace(spec, lora=replace(_LORA, seed=0, saved=str(policy))))
    again.load_state(str(tmp_path), num_steps=3)
    assert np.array_equal(_scores(again, groups), learned)
    assert again.update([[groups[0]], [groups[1]]]) == after
    assert np.array_equal(_scores(again, groups), further)


def test_merged_into_its_base_it_gives_the_same_rewards(spec: PolicySpec, groups: list[Group], tmp_path: Path) -> None:
    worker = _worker(spec)
    for _ in range(2):
        worker.update([groups])
    worker.save(str(tmp_path))
    folder = tmp_path / "merged"
    export_merged(tmp_path / "policy", target=folder)
    assert has_reward_head(folder)
    model, _ = load_model(replace(spec.model, path=str(folder)))
    module = RewardModule(
        model, load_reward_head(folder, model.config.get_text_config().hidden_size, dtype=torch.float32), lockstep=False
    )
    batch = Collator(folder, dtype=torch.float32, share_prompts=True)([s for g in groups for s in g.sequences])
    with torch.no_grad():
        merged = module(batch).numpy()
    np.testing.assert_allclose(merged, _scores(worker, groups), atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def critiques(groups: list[Group]) -> list[Group]:
    """The same pairs, and the last two tokens of each response as its critique."""
    return [
        RewardGroup(
            sequences=group.sequences,
            score_of=np.arange(2),
            ref_scores=np.zeros(2),
            imitation=tuple(np.append(np.zeros(len(s.input_ids) - 2), [1 / 8, 1 / 8]) for s in group.sequences),
            pairs=np.array([[0, 1]]),
            is_tie=np.array([False]),
            weights=np.array([0.5]),
            preference_weight=1.0,
            tie_weight=0.0,
        )
        for group in groups
    ]


def _critique_rm(spec: PolicySpec, lora: LoraSpec | None, **settings: object) -> PolicySpec:
    algorithm = learner("critique_rm", critique_rm={"centering": 0.0, **settings})
    return replace(spec, objective=algorithm.objective(), head=algorithm.needs.head, lora=lora)


@pytest.mark.parametrize("lora", [None, _LORA], ids=["whole", "adapter"])
def test_a_critique_reward_model_is_saved_as_its_workers_load_it(
    lora: LoraSpec | None, spec: PolicySpec, critiques: list[Group], tmp_path: Path
) -> None:
    worker = _worker(_critique_rm(spec, lora, head="mlp", request="why ?"))
    sequences = [s for g in critiques for s in g.sequences]
    nll = [-float(row[-2:].sum()) for row in worker.score([sequences])]
    first, _, last = (values(worker.update([[critiques[0]], [critiques[1]]]).figures) for _ in range(3))
    assert first[IMITATION.name] == pytest.approx(sum(nll) / 8, rel=1e-5)
    assert first["policy/loss"] == pytest.approx(np.log(2.0) + first[IMITATION.name], rel=1e-5)
    assert last[IMITATION.name] < first[IMITATION.name], "it learns to write"
    assert last[MARGIN.name] > 0.0 and last[NUM_PAIRS.name] == 2, "and to tell good from bad"
    worker.save(str(tmp_path))

    folder = tmp_path / "policy"
    if lora is not None:
        export_merged(folder, target=tmp_path / "merged")
        folder = tmp_path / "merged"
    assert critique_request(folder) == "why ?"
    assert sorted(file.name for file in (folder / REWARD_HEAD_FOLDER).iterdir()) == ["config.json", "model.safetensors"]
    assert not any("score." in name for file in folder.glob("*.safetensors") for name in load_file(file))
    model, _ = load_model(replace(spec.model, path=str(folder)))
    head = load_reward_head(folder, model.config.get_text_config().hidden_size, dtype=torch.float32)
    assert head.kind == "mlp"
    batch = Collator(folder, dtype=torch.float32, share_prompts=True)(sequences)
    with torch.no_grad():
        scores = CritiqueRewardModule(model, head, lockstep=False)(batch)
    np.testing.assert_allclose(scores.rewards.numpy(), _scores(worker, critiques), atol=1e-5, rtol=0)
    for piece, row in zip(batch.split(scores.tokens.logprobs), worker.score([sequences]), strict=True):
        np.testing.assert_allclose(piece.numpy(), row[-len(piece) :], atol=1e-5, rtol=0)


def test_the_share_of_greedy_tokens_of_preferences_is_counted(spec: PolicySpec, critiques: list[Group]) -> None:
    worker = _worker(_critique_rm(spec, None))
    sequences = [s for g in critiques for s in g.sequences]
    num_tokens = sum(len(s.input_ids) - s.prompt_len for s in sequences)
    for _ in range(6):
        hits, update = sum(worker.greedy_hits([sequences])), worker.update([critiques])
        assert update.figures[TOKEN_ACCURACY.name] == Mean(hits, num_tokens)
    assert hits > 0
