"""What is trained is what was sampled from: the gradient is that of the tempered policy without vision tokens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.policy_gradient import AlgorithmSection
from algorithms.records import SamplingDistribution, Sequence, TrainSample
from algorithms.reinforce_pp import ReinforcePp
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule, scores_of
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_LENGTHS = (3, 5)
_CLIP = 0.2


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_the_gradient_is_that_of_the_tempered_policy(temperature: float, tmp_path: Path) -> None:
    spec = ModelSpec(path=str(TINY_MODELS["llava"](tmp_path / "model")), dtype="float32")
    encoder = PromptEncoder(spec.path)
    prompts = picture_prompts(tmp_path, {"one": 1, "none": 0})
    allowed = [i for i in range(len(encoder.tokenizer)) if i not in encoder.vision_token_ids]
    rng = np.random.default_rng(0)
    sequences = [respond(encoder, p, rng.choice(allowed, n)) for p, n in zip(prompts, _LENGTHS, strict=True)]
    batch = Collator(spec.path, dtype=torch.float32, share_prompts=False)(sequences)
    model, _ = load_model(spec)
    sampling = SamplingDistribution(temperature=temperature, banned_ids=encoder.vision_token_ids)
    module = PolicyModule(model, lockstep=False)
    with torch.no_grad():
        now = batch.split(module(batch, sampling).logprobs)
    samples = [_sample(s, piece.numpy(), rng) for s, piece in zip(sequences, now, strict=True)]

    section = AlgorithmSection(clip_low=_CLIP, clip_high=_CLIP, preclip_min=None, preclip_max=None)
    objective = ReinforcePp("reinforce_pp", {"algorithm": section}).objective()
    objective(scores_of(batch, module(batch, sampling)), samples).losses.sum().backward()
    found = _gradients(model)
    _direct_loss(model, batch, samples, sampling).backward()
    wanted = _gradients(model)
    assert sum(float(g.abs().sum()) for g in wanted) > 1.0
    for mine, direct in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, direct, atol=1e-6, rtol=1e-4)


def _sample(sequence: Sequence, now: np.ndarray, rng: np.random.Generator) -> TrainSample:
    """Old log-probs a little off the present ones, so that some ratios are clipped."""
    length = len(sequence.input_ids)
    old = np.zeros(length, np.float32)
    old[sequence.prompt_len :] = now + rng.normal(0.0, 0.2, len(now))
    weight = np.where(np.arange(length) < sequence.prompt_len, 0.0, 0.1)
    advantages = rng.normal(size=length).astype(np.float32)
    return TrainSample(
        sequence=sequence, loss_weight=weight, advantages=advantages, old_logprobs=old, rollout_logprobs=old
    )


def _direct_loss(
    model: torch.nn.Module, batch: Batch, samples: list[TrainSample], sampling: SamplingDistribution
) -> Tensor:
    """PPO's clipped loss over softmax(logits / T), written out token by token."""
    logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), **batch.mm_inputs).logits
    loss = torch.zeros(())
    for row, sample in enumerate(samples):
        ids, start = sample.sequence.input_ids, sample.sequence.prompt_len
        for at in range(start, len(ids)):
            weights = torch.exp((logits[row, at - 1] - logits[row, at - 1].max().detach()) / sampling.temperature)
            keep = torch.ones(len(weights))
            keep[list(sampling.banned_ids)] = 0.0
            probability = weights[ids[at]] / (weights * keep).sum()
            assert sample.old_logprobs is not None
            ratio = probability / float(np.exp(sample.old_logprobs[at]))
            advantage = float(sample.advantages[at])
            clipped = ratio.clamp(1 - _CLIP, 1 + _CLIP)
            loss = loss - float(sample.loss_weight[at]) * torch.minimum(ratio * advantage, clipped * advantage)
    return loss


def _gradients(model: torch.nn.Module) -> list[Tensor]:
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return gradients
