"""A critique reward model's two heads in one packed row: what they say of a sequence alone, and nothing else."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import CritiqueRewardModule, CritiqueScores
from workers.models.reward_head import HeadKind, RewardHead
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_LENGTHS = {"one-image": [3, 40, 1], "text-only": [5, 2], "two-images": [7, 4]}
_IMAGES = {"one-image": 1, "text-only": 0, "two-images": 2}
_ORDERS = ([0, 1, 2], [3, 0, 5, 2, 6, 1, 4], [6, 3])


@dataclass(frozen=True)
class Model:
    """A tiny critique reward model with a random head, and sequences for it."""

    sequences: list[Sequence]
    modules: dict[bool, CritiqueRewardModule]
    """By ``share_prompts``."""
    collators: dict[bool, Collator]

    def batch(self, *which: int, share: bool) -> Batch:
        return self.collators[share]([self.sequences[i] for i in which])

    def score(self, *which: int, share: bool) -> tuple[CritiqueScores, Batch]:
        batch = self.batch(*which, share=share)
        return self.modules[share](batch), batch


@pytest.fixture(scope="module", params=[("qwen2_5_vl", "linear"), ("llava", "mlp")], ids=lambda p: "-".join(p))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    name, kind = request.param
    folder = TINY_MODELS[name](tmp_path_factory.mktemp(name) / "model")
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path_factory.mktemp("pictures"), _IMAGES)
    sequences = [
        respond(encoder, prompt, rng.integers(8, 30, length), sample_index=index)
        for prompt in prompts
        for index, length in enumerate(_LENGTHS[prompt.uid])
    ]
    modules, collators = {}, {}
    for share in (False, True):
        loaded, _ = load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=share))
        head = _head(kind, loaded.config.get_text_config().hidden_size)
        modules[share] = CritiqueRewardModule(loaded, head, lockstep=False)
        collators[share] = Collator(folder, dtype=torch.float32, share_prompts=share)
    return Model(sequences, modules, collators)


def _head(kind: HeadKind, hidden_size: int) -> RewardHead:
    head, generator = RewardHead(kind, hidden_size), torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return head


@dataclass(frozen=True)
class Alone:
    """A sequence without any company or padding, as plain transformers has it."""

    logprobs: Tensor
    entropy: Tensor
    reward: Tensor


@pytest.fixture(scope="module")
def alone(model: Model) -> list[Alone]:
    found = []
    for index, sequence in enumerate(model.sequences):
        batch = model.batch(index, share=False)
        assert batch.attention_mask.all()
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long(), **batch.mm_inputs}
        with torch.no_grad():
            out = model.modules[False].model(**inputs, output_hidden_states=True)
            reward = model.modules[False].score(out.hidden_states[-1][0, -1])
        logs = out.logits[0, sequence.prompt_len - 1 : -1].double().log_softmax(dim=-1)
        own = torch.from_numpy(sequence.input_ids[sequence.prompt_len :])
        found.append(Alone(logs.gather(1, own[:, None])[:, 0], -(logs.exp() * logs).sum(dim=-1), reward[0]))
    assert np.ptp([float(one.reward) for one in found]) > 0.1, "the sequences should differ"
    return found


def _close(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [False, True], ids=["apart", "packed"])
def test_both_heads_say_what_they_say_of_each_sequence_alone(model: Model, alone: list[Alone], share: bool) -> None:
    for which in (*_ORDERS, *([i] for i in range(len(alone)))):
        with torch.no_grad():
            scores, batch = model.score(*which, share=share)
        assert scores.rewards.dtype == torch.float32 and scores.rewards.shape == (len(which),)
        _close(scores.rewards, torch.stack([alone[i].reward for i in which]))
        pieces = batch.split(scores.tokens.logprobs), batch.split(scores.tokens.entropy)
        for i, logprobs, entropy in zip(which, *pieces, strict=True):
            _close(logprobs, alone[i].logprobs)
            _close(entropy, alone[i].entropy)


def test_a_packed_row_has_each_prompt_and_each_image_once(model: Model) -> None:
    packed = model.batch(0, 1, 2, share=True)
    prompt_len = model.sequences[0].prompt_len
    assert packed.input_ids.shape == (1, prompt_len + sum(_LENGTHS["one-image"]))
    apart = model.batch(0, 1, 2, share=False)
    assert len(apart.mm_inputs["pixel_values"]) == 3 * len(packed.mm_inputs["pixel_values"])


def test_both_heads_learn_packed_as_they_do_apart(model: Model) -> None:
    which, gradients = _ORDERS[1], []
    for share in (False, True):
        module = model.modules[share]
        module.zero_grad()
        scores, _ = model.score(*which, share=share)
        # Unequal weights, so that a token or reward in the wrong place shows.
        count = torch.arange(1.0, len(scores.tokens.logprobs) + 1) / len(scores.tokens.logprobs)
        (scores.tokens.logprobs @ count + scores.rewards @ torch.arange(1.0, len(which) + 1)).backward()
        gradients.append({name: p.grad for name, p in module.named_parameters() if p.grad is not None})
    apart, packed = gradients
    assert apart.keys() == packed.keys()
    assert any(name.startswith("score.") for name in apart) and len(apart) > 10
    for name, gradient in apart.items():
        torch.testing.assert_close(
            packed[name], gradient, atol=1e-5 * max(1.0, float(gradient.abs().max())), rtol=0, msg=name
        )
