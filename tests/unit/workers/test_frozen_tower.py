"""Whole ranks in this process: a frozen vision tower sees an image once a step, a trained one in every forward."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.critic import CriticSection, ValueSample
from algorithms.records import Sequence
from algorithms.sft import CrossEntropy
from algorithms.tokens import step_weights
from tests.tiny_models import write_qwen2_5_vl
from tests.tiny_prompts import MIXED_SIZES, demonstrations, picture_prompts, respond
from workers import trained_rank
from workers.backends.schedule import OptimizerSpec, Schedule
from workers.critic import CriticSpec, CriticWorker
from workers.models import vision_features
from workers.models.loading import ModelSpec
from workers.models.lora import LoraSpec
from workers.models.vision_features import FeatureCache
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicySpec, PolicyWorker
from workers.reference import ReferenceWorker

# DeepSpeed calls what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_IMAGES = {"two": 2, "one": 1, "none": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_qwen2_5_vl(tmp_path_factory.mktemp("qwen") / "model")


@pytest.fixture(scope="module")
def sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    """Two answers to each of three prompts."""
    encoder = PromptEncoder(folder)
    prompts = picture_prompts(tmp_path_factory.mktemp("noise"), _IMAGES, sizes=MIXED_SIZES)
    return [respond(encoder, p, np.array([9, 8, 7 + k]), sample_index=k) for p in prompts for k in range(2)]


def _spec(folder: Path, *, stage: int = 2, **changed: Any) -> PolicySpec:
    schedule = Schedule(peak_lr=1e-2, kind="constant", total_steps=40, warmup_frac=0.0, min_lr_frac=0.1)
    spec = PolicySpec(
        model=ModelSpec(path=str(folder), dtype="float32", share_prompts=True),
        source=str(folder),
        optimizer=OptimizerSpec(
            zero_stage=stage,
            betas=(0.9, 0.95),
            weight_decay=0.0,
            max_grad_norm=1.0,
            offload_optimizer=False,
            schedule=schedule,
        ),
        objective=CrossEntropy(),
        freeze=("vision",),
        gradient_checkpointing=False,
    )
    return replace(spec, **changed)


def _worker(spec: PolicySpec) -> PolicyWorker:
    worker = PolicyWorker(rank=0, world_size=1, spec=spec, num_threads=1)
    assert worker.setup("127.0.0.1", 0) > 0
    return worker


def _runs(model: Any) -> list[int]:
    """Patches that the tower was given, each time that it ran."""
    runs: list[int] = []
    model.model.visual.blocks[0].register_forward_hook(lambda module, args, output: runs.append(len(args[0])))
    return runs


def _step(worker: PolicyWorker, sequences: list[Sequence]) -> tuple[list[np.ndarray], list[Any]]:
    """Old log-probs in two micro-batches, then two updates with two each."""
    halves = [sequences[:3], sequences[3:]]
    scored = list(worker.score(halves))
    samples = demonstrations(sequences, aggregation="token-mean")
    told = [worker.update([samples[3 * half : 3 * half + 3] for half in order]) for order in ((0, 1), (1, 0))]
    return scored, told


@pytest.mark.parametrize("stage", [0, 2, 3])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_runs_the_tower_once_an_image_and_learns_the_same(
    folder: Path, sequences: list[Sequence], stage: int, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(folder, stage=stage, gradient_checkpointing=checkpointing)
    keeping = _worker(spec)
    runs = _runs(keeping._engine.module.model)
    found = _step(keeping, sequences)
    assert len(runs) == sum(_IMAGES.values())
    with monkeypatch.context() as patch:
        patch.setattr(trained_rank, "keep_features", lambda module, adapter: FeatureCache(0, num_bytes=lambda f: 0))
        plain = _worker(spec)
    every_time = _runs(plain._engine.module.model)
    wanted = _step(plain, sequences)
    assert sum(every_time) > 3 * sum(runs), "the prompt of two images lies in both micro-batches of its half"
    for one, other in zip(found[0], wanted[0], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    for one, other in zip(found[1], wanted[1], strict=True):
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-5)
    after = zip(keeping.score([sequences]), plain.score([sequences]), strict=True)
    assert all(np.abs(one - other).max() < 1e-5 for one, other in after)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_trained_tower_runs_in_every_forward(folder: Path, sequences: list[Sequence], adapted: bool) -> None:
    lora = LoraSpec(rank=2, alpha=4, seed=0) if adapted else None
    worker = _worker(_spec(folder, freeze=(), lora=lora))
    runs = _runs(worker._engine.module.model)
    _step(worker, sequences)
    assert len(runs) == 3 * 2 and not len(worker._features)


def test_what_stands_on_one_base_shares_what_is_kept(folder: Path, sequences: list[Sequence]) -> None:
    """The policy, the policy without its adapter, and a reference among its tenants."""
    spec = _spec(folder, stage=0, lora=LoraSpec(rank=2, alpha=4, seed=0), shares_base=True)
    worker = _worker(spec)
    worker.admit("reference", ReferenceWorker, spec.model)
    runs = _runs(worker._engine.module.model), _runs(worker._tenants["reference"]._module.model)
    _step(worker, sequences)
    alone = worker.score([sequences], adapters=False)
    asked = worker.of_tenant("reference", "score", [sequences])
    assert len(runs[0]) == sum(_IMAGES.values()) and not runs[1]
    apart = ReferenceWorker(spec=spec.model, num_threads=1)
    own = _runs(apart._module.model)
    for wanted, *others in zip(apart.score([sequences]), alone, asked, strict=True):
        assert all(np.array_equal(wanted, other) for other in others)
    apart.score([sequences[:2], sequences])
    assert len(own) == sum(_IMAGES.values()), "in a process of its own it keeps its own"


def test_a_sync_forgets_all_and_so_does_a_checkpoint(folder: Path, sequences: list[Sequence], tmp_path: Path) -> None:
    worker = _worker(_spec(folder))
    worker.open_sender(backend="shared_memory", run_id=tmp_path.name, address="", port=0, group_size=1)
    runs = _runs(worker._engine.module.model)
    worker.score([sequences])
    assert len(runs) == len(worker._features) == 3
    worker.publish(policy_version=1, full=False)
    assert not len(worker._features) and worker._features.num_bytes == 0, "engines on its device sample next"
    worker.score([sequences[:2]])
    assert len(runs) == 5 and len(worker._features) == 2
    worker.save(str(tmp_path))
    worker.load_state(str(tmp_path), num_steps=0)
    assert not len(worker._features) and worker._features.num_bytes == 0
    worker.score([sequences])
    assert len(runs) == 8
    assert (
        worker._features.num_bytes == sum(runs[5:]) * 4 * worker._engine.module.model.config.vision_config.hidden_size
    )


def test_a_reference_keeps_what_its_last_call_was_about(folder: Path, sequences: list[Sequence]) -> None:
    reference = ReferenceWorker(spec=_spec(folder).model, num_threads=1)
    runs = _runs(reference._module.model)
    for asked, num_kept in ((sequences, 3), (sequences[:2], 2), (sequences[4:], 0)):
        reference.score([asked])
        assert (len(runs), len(reference._features)) == (3, num_kept)
    assert reference._features.num_bytes == 0


def test_a_critic_keeps_what_its_last_step_was_about(folder: Path, sequences: list[Sequence]) -> None:
    model, spec = CriticSection(clip=None).model, _spec(folder)
    told = {name: getattr(spec, name) for name in ("model", "source", "optimizer", "freeze", "gradient_checkpointing")}
    of_critic = CriticSpec(**told, objective=model.objective, head=model.head, head_in=None)
    critic = CriticWorker(rank=0, world_size=1, spec=of_critic, num_threads=1)
    critic.setup("127.0.0.1", 0)
    runs = _runs(critic._engine.module.model)
    for asked, num_kept in ((sequences, 3), (sequences[:2], 2), (sequences[4:], 0)):
        critic.values([asked])
        assert len(critic._features) == num_kept
        weights = step_weights(asked, aggregation="token-mean", longest_response=3)
        zeros = [np.zeros(len(s.input_ids), np.float32) for s in asked]
        samples = [
            ValueSample(sequence=s, loss_weight=w, returns=zero + 1.0, old_values=zero)
            for s, w, zero in zip(asked, weights, zeros, strict=True)
        ]
        critic.update([samples])
        assert len(runs) == 3, "updates find what the values left"


def test_what_does_not_fit_is_seen_again(
    folder: Path, sequences: list[Sequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = _worker(_spec(folder)).score([sequences])
    monkeypatch.setattr(vision_features, "KEPT_BYTES", 1)
    worker = _worker(_spec(folder))
    runs = _runs(worker._engine.module.model)
    for _ in range(2):
        found = worker.score([sequences])
    assert len(runs) == 5 and len(worker._features) == 1, "the last one stays"
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))
