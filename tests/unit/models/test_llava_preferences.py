"""Pairs without an image, with one and with two learn together on LLaVA, each image being encoded once a pair."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from algorithms.figures import values
from algorithms.groups import PairGroup
from algorithms.records import Example
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.store import PreferenceStore
from tests.unit.algorithms.asks import Answers, learner
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, plain
from tests.user_files import write_llava
from workers.models.adapters import LLAVA
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule, scores_of
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_DPO = learner("dpo", preference={"beta": 0.5})
_IMAGES = (0, 1, 2)
"""Of each row."""


@dataclass(frozen=True)
class Policy:
    """A tiny LLaVA and one pair a row for it; its own start is the reference."""

    module: PolicyModule
    collate: Collator
    groups: list[PairGroup]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PreferenceStore:
    folder = tmp_path_factory.mktemp("data")
    for name in ("red", "green", "blue"):
        picture(folder / f"{name}.png", size=(8, 8), color=name)
    rows = [
        plain(prompt="two and two ?", chosen="four", rejected="five"),
        plain(prompt="which ?", image="red.png", chosen="red", rejected="none at all"),
        plain(prompt="<image> and <image> ?", images=["green.png", "blue.png"], chosen="two", rejected="one"),
    ]
    return imported(folder, "plain_dpo", *rows)


@pytest.fixture
def policy(folder: Path, store: PreferenceStore) -> Policy:
    encode = ExampleEncoder(
        PromptEncoder(folder),
        _DPO.needs,
        media_root=store.media_root,
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=256, tokens_per_microbatch=512, share_prompts=True),
    )
    examples = [made for row in store.rows() if isinstance(made := encode(row), Example)]
    assert tuple(len(e.sequences[0].media) for e in examples) == _IMAGES
    module = PolicyModule(
        load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=True))[0], lockstep=False
    )
    collate = Collator(folder, dtype=torch.float32, share_prompts=True)
    batch = collate([s for e in examples for s in e.sequences])
    with torch.no_grad():
        pieces = iter(batch.split(module(batch).logprobs))
    refs = [[next(pieces).numpy() for _ in e.sequences] for e in examples]
    return Policy(module, collate, _DPO.groups(examples, Answers(examples, reference=refs)))


def _learn(policy: Policy, groups: list[PairGroup], *, steps: int) -> list[dict[str, float]]:
    """Optimizer steps on these groups, always in one micro-batch."""
    optimizer = torch.optim.AdamW(policy.module.parameters(), lr=1e-3, weight_decay=0.0)
    batch = policy.collate([s for g in groups for s in g.sequences])
    history = []
    for _ in range(steps):
        learned = _DPO.objective()(scores_of(batch, policy.module(batch)), groups)
        loss = learned.losses.sum()
        loss.backward()
        assert all(bool(p.grad.isfinite().all()) for p in policy.module.parameters() if p.grad is not None)
        optimizer.step()
        optimizer.zero_grad()
        history.append(values(learned.figures) | {"loss": float(loss.detach())})
    return history


def _weights(policy: Policy) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in policy.module.model.named_parameters()}


def _changed(policy: Policy, before: dict[str, Tensor]) -> set[str]:
    now = _weights(policy)
    return {LLAVA.module_of(name) for name, weight in before.items() if not torch.equal(weight, now[name])}


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        pytest.param((0, 1, 2), {"vision", "bridge", "language"}, id="none, one and two images"),
        pytest.param((0,), {"language"}, id="text alone"),
        pytest.param((2,), {"vision", "bridge", "language"}, id="two images"),
    ],
)
def test_rows_with_and_without_images_learn_in_one_micro_batch(
    policy: Policy, rows: tuple[int, ...], parts: set[str]
) -> None:
    """VL-RLHF acceptance 9."""
    groups, before = [policy.groups[row] for row in rows], _weights(policy)
    first, *_, last = _learn(policy, groups, steps=3)
    assert _changed(policy, before) == parts
    assert first["preference/margin"] == pytest.approx(0.0, abs=1e-4)
    assert last["preference/accuracy"] == 1.0 and last["preference/num_pairs"] == len(rows)
    assert last["loss"] < first["loss"]


@pytest.fixture
def encoded(policy: Policy) -> Iterator[list[int]]:
    """Images of every call of the vision tower."""
    calls: list[int] = []

    def count(_: object, args: tuple[Any, ...], kwargs: dict[str, Any], __: object) -> None:
        calls.append(len(kwargs.get("pixel_values", args[0] if args else ())))

    tower = policy.module.model.model.vision_tower
    handle = tower.register_forward_hook(count, with_kwargs=True)
    yield calls
    handle.remove()


@pytest.mark.parametrize("num_images", [1, 2])
def test_chosen_and_rejected_share_the_encoding_of_their_images(
    policy: Policy, encoded: list[int], num_images: int
) -> None:
    """VL-RLHF acceptance 10."""
    group = policy.groups[_IMAGES.index(num_images)]
    assert len(group.sequences) == 2
    _learn(policy, [group], steps=1)
    assert encoded == [num_images]


def test_a_batch_encodes_every_image_once(policy: Policy, encoded: list[int]) -> None:
    _learn(policy, policy.groups, steps=1)
    assert encoded == [sum(_IMAGES)]
