"""VL-RLHF acceptance 5: a reward belongs to its sequence alone, wherever that stands and whatever stands beside it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import RewardModule
from workers.models.reward_head import RewardHead
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_ARCHITECTURES = ("qwen2_5_vl", "llava", "instructblip")
_LENGTHS = {"one-image": [3, 90, 1], "text-only": [5, 2], "two-images": [7, 4]}
_IMAGES = {"one-image": 1, "text-only": 0, "two-images": 2}


@dataclass(frozen=True)
class Rewards:
    """One tiny reward model with a random head, and sequences for it: those of one image first."""

    sequences: list[Sequence]
    head: Tensor
    modules: dict[bool, RewardModule]
    """By ``share_prompts``."""
    collators: dict[bool, Collator]

    def score(self, *which: int, share: bool) -> list[float]:
        """Rewards of some of the sequences, scored in one batch in this order."""
        with torch.no_grad():
            return self.modules[share](self.batch(*which, share=share)).tolist()

    def batch(self, *which: int, share: bool) -> Batch:
        return self.collators[share]([self.sequences[i] for i in which])


@pytest.fixture(scope="module", params=_ARCHITECTURES)
def rewards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rewards:
    folder = TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path_factory.mktemp("pictures"), _IMAGES)
    sequences = [
        respond(encoder, prompt, rng.integers(8, 30, length), sample_index=index)
        for prompt in prompts
        for index, length in enumerate(_LENGTHS[prompt.uid])
    ]
    modules, collators = {}, {}
    for share in (False, True):
        model, _ = load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=share))
        head = RewardHead("linear", model.config.get_text_config().hidden_size)
        torch.nn.init.normal_(head.weight, std=0.2, generator=torch.Generator().manual_seed(0))
        modules[share] = RewardModule(model, head, lockstep=False)
        collators[share] = Collator(folder, dtype=torch.float32, share_prompts=share)
    return Rewards(sequences, modules[False].score.weight.detach(), modules, collators)


@pytest.fixture(scope="module")
def alone(rewards: Rewards) -> list[float]:
    """The reward of every sequence without any company or padding, as plain transformers has it."""
    scores = []
    for index in range(len(rewards.sequences)):
        batch = rewards.batch(index, share=False)
        assert batch.attention_mask.all()
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask.long(), **batch.mm_inputs}
        model = rewards.modules[False].model
        if not batch.mm_inputs and not hasattr(model, "model"):  # InstructBLIP cannot do without an image
            model = model.language_model
        with torch.no_grad():
            out = model(**inputs, output_hidden_states=True)
        states = out.hidden_states if "hidden_states" in out else out.language_model_outputs.hidden_states
        scores.append(float(states[-1][0, -1] @ rewards.head[0]))
    assert np.ptp(scores) > 0.1, "the sequences should differ"
    return scores


def _close(found: list[float], wanted: list[float]) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [False, True], ids=["apart", "packed"])
def test_alone_it_is_the_last_hidden_state_of_plain_transformers_times_the_head(
    rewards: Rewards, alone: list[float], share: bool
) -> None:
    _close([rewards.score(index, share=share)[0] for index in range(len(alone))], alone)


@pytest.mark.parametrize("share", [False, True], ids=["apart", "packed"])
def test_neither_siblings_nor_other_prompts_nor_their_order_change_it(
    rewards: Rewards, alone: list[float], share: bool
) -> None:
    siblings, everyone = list(range(len(_LENGTHS["one-image"]))), [3, 0, 5, 2, 6, 1, 4]
    assert sorted(everyone) == list(range(len(alone)))
    for which in (siblings, everyone, everyone[::-1]):
        _close(rewards.score(*which, share=share), [alone[i] for i in which])


@pytest.mark.parametrize("share", [False, True], ids=["apart", "packed"])
def test_a_much_longer_neighbour_changes_nothing_on_either_side(
    rewards: Rewards, alone: list[float], share: bool
) -> None:
    longest, a_sibling, a_stranger = 1, 2, 4
    assert all(len(rewards.sequences[longest].input_ids) > 80 + len(rewards.sequences[i].input_ids) for i in (2, 4))
    for index in (a_sibling, a_stranger):
        for pair in ((index, longest), (longest, index)):
            _close(rewards.score(*pair, share=share), [alone[i] for i in pair])


def test_the_side_of_the_padding_does_not_matter(rewards: Rewards, alone: list[float]) -> None:
    which = list(range(len(alone)))
    batch = _padded_on_the_left(rewards.batch(*which, share=False))
    assert not batch.attention_mask[:, 0].all() and batch.attention_mask[:, -1].all()
    with torch.no_grad():
        _close(rewards.modules[False](batch).tolist(), alone)


def _padded_on_the_left(batch: Batch) -> Batch:
    rows, width = batch.attention_mask.shape
    shifts = (width - batch.attention_mask.sum(dim=1)).tolist()

    def moved(tensor: Tensor) -> Tensor:
        return torch.stack([row.roll(shift) for row, shift in zip(tensor, shifts, strict=True)])

    mm_inputs = {k: moved(v) if k == "mm_token_type_ids" else v for k, v in batch.mm_inputs.items()}
    return replace(
        batch,
        input_ids=moved(batch.input_ids),
        attention_mask=moved(batch.attention_mask),
        mm_inputs=mm_inputs,
        ends=torch.arange(1, rows + 1) * width - 1,
    )
