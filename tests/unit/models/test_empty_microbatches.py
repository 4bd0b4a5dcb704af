"""A rank that has no micro-batch left takes part with an empty one: nothing counts, and no parameter is left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.records import TokenSample
from algorithms.sft import CrossEntropy
from orchestrator.cluster.microbatches import SampleSize, plan_samples
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import demonstrations, picture_prompts, respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import (
    CritiqueRewardModule,
    CritiqueScores,
    PolicyModule,
    RewardModule,
    nothing,
    scores_of,
    token_scores,
)
from workers.models.reward_head import RewardHead
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder

# Importing DeepSpeed warns of what torch 2.13 has renamed.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_rank")]
_BUDGET = 100


@dataclass(frozen=True)
class Rank:
    """What a policy rank has in lockstep with others."""

    module: nn.Module
    collate: Collator

    def empty_loss(self) -> Tensor:
        scores: Any = self.module(self.collate([]))
        return nothing(scores)

    def loss(self, samples: Sequence[TokenSample]) -> Tensor:
        if not samples:
            return self.empty_loss()
        batch = self.collate([s.sequence for s in samples])
        return CrossEntropy()(scores_of(batch, self.module(batch)), samples).losses.sum()


def _rank(folder: Path, *, share: bool, kind: str = "policy") -> Rank:
    model, _ = load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=share))
    if kind == "policy":
        module: nn.Module = PolicyModule(model, lockstep=True)
    else:
        head = RewardHead("linear", model.config.get_text_config().hidden_size)
        module = (RewardModule if kind == "reward" else CritiqueRewardModule)(model, head, lockstep=True)
    return Rank(module, Collator(folder, dtype=torch.float32, share_prompts=share, always_an_image=True))


def _without_zero_gradient(module: nn.Module) -> list[str]:
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    return [name for name, p in named if p.grad is None or bool(p.grad.any())]


def _reached(rank: Rank, folder: Path, root: Path) -> set[str]:
    """Parameters that a micro-batch with an image gives a gradient."""
    (prompt,) = picture_prompts(root, {"one": 1})
    sequence = respond(PromptEncoder(folder), prompt, np.array([8, 9, 10]))
    scores: Any = rank.module(rank.collate([sequence]))
    parts = [scores] if isinstance(scores, Tensor) else [token_scores(scores).logprobs]
    parts += [scores.rewards] if isinstance(scores, CritiqueScores) else []
    torch.cat(parts).sum().backward()
    return {name for name, p in rank.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", TINY_MODELS)
def test_an_empty_micro_batch_gives_every_parameter_a_gradient_of_zero(name: str, tmp_path: Path) -> None:
    folder = TINY_MODELS[name](tmp_path / "model")
    _check_zero_gradients(folder, tmp_path, share=False, kind="policy")


@pytest.mark.parametrize("kind", ["policy", "reward", "critique"])
def test_packed_likewise_whatever_the_heads(kind: str, qwen: Path, tmp_path: Path) -> None:
    _check_zero_gradients(qwen, tmp_path, share=True, kind=kind)


def _check_zero_gradients(folder: Path, root: Path, *, share: bool, kind: str) -> None:
    rank = _rank(folder, share=share, kind=kind)
    loss = rank.empty_loss()
    loss.backward()
    assert loss.item() == 0.0
    wrong = _without_zero_gradient(rank.module)
    rank.module.zero_grad()
    assert not _reached(rank, folder, root) & set(wrong)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS["qwen2_5_vl"](tmp_path_factory.mktemp("qwen") / "model")


@pytest.mark.parametrize("share", [False, True])
def test_any_number_of_ranks_adds_up_to_the_gradient_of_one(share: bool, qwen: Path, tmp_path: Path) -> None:
    encoder, rng = PromptEncoder(qwen), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path, {"a": 1, "b": 0, "c": 1})
    rank = _rank(qwen, share=share)
    for count, several in ((1, [4]), (5, [2, 8])):
        sequences = [respond(encoder, prompts[i % 3], rng.integers(8, 30, 3 + 5 * i)) for i in range(count)]
        samples = demonstrations(sequences, aggregation="token-mean")
        sizes = [SampleSize(s.uid, s.prompt_len, len(s.input_ids)) for s in sequences]
        gradients = []
        for num_ranks in (1, *several):
            rank.module.zero_grad()
            plan = plan_samples(sizes, share_prompts=share, num_ranks=num_ranks, token_budget=_BUDGET)
            assert num_ranks <= count or not all(batch for batches in plan for batch in batches)
            for batches in plan:
                for batch in batches:
                    rank.loss([samples[i] for i in batch]).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in rank.module.parameters() if p.grad is not None]))
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-5, atol=1e-6)
