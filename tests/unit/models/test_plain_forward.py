"""Packed rows, attention in two parts and the head computed once: log-probs and gradients of the plain forward."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from algorithms.maths.logprobs import token_logprobs
from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models.adapters import ADAPTERS
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule, hidden_states
from workers.models.shared_prompt import NAMES
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder

_CLOSE = 1e-5
"""In float32, of log-probs, and of a tensor's gradients against the largest of them where that is above 1."""
_IMAGES = {"two": 2, "one": 1, "another": 1, "none": 0}
_ROWS = st.dictionaries(
    st.sampled_from(sorted(_IMAGES)), st.lists(st.sampled_from([0, 1, 2, 5, 5, 12]), min_size=1, max_size=4), min_size=1
).filter(lambda row: sum(map(sum, row.values())) > 0)


class Case:
    """One model's prompts, and the model as the trainer has it."""

    def __init__(self, name: str, root: Path) -> None:
        self.folder = TINY_MODELS[name](root / "model")
        self.encoder = PromptEncoder(self.folder)
        self.prompts = picture_prompts(root / "digits", _IMAGES)
        self.policy = PolicyModule(self._load(share=True), lockstep=False)
        self.plain = self._load(share=False)
        self.collate = {
            share: Collator(self.folder, dtype=torch.float32, share_prompts=share) for share in (False, True)
        }

    def sequences(self, row: dict[str, list[int]]) -> list[Sequence]:
        rng = np.random.default_rng(sum(map(sum, row.values())))
        return [
            respond(self.encoder, prompt, rng.integers(8, 30, length), sample_index=index)
            for prompt in self.prompts
            for index, length in enumerate(row.get(prompt.uid, ()))
        ]

    def _load(self, *, share: bool) -> nn.Module:
        return load_model(ModelSpec(path=str(self.folder), dtype="float32", share_prompts=share))[0]


@pytest.fixture(scope="module", params=[name for name in TINY_MODELS if ADAPTERS[name].shares_prompts])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp(request.param)
    (root / "digits").mkdir()
    return Case(request.param, root)


def _gradients(module: nn.Module, logprobs: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    # Unequal weights, so that a token in the wrong place shows.
    (logprobs * torch.linspace(-1, 1.5, len(logprobs))).sum().backward()
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@settings(deadline=None, max_examples=10)
@given(row=_ROWS)
def test_log_probs_and_gradients_are_those_of_the_plain_forward(case: Case, row: dict[str, list[int]]) -> None:
    sequences = case.sequences(row)
    found, *_ = case.policy(case.collate[True](sequences))
    batch = case.collate[False](sequences)
    states = hidden_states(
        case.plain, batch.mm_inputs, input_ids=batch.input_ids, attention_mask=batch.attention_mask.long()
    )
    logits = case.plain.get_output_embeddings()(states.flatten(0, 1)[batch.predictors])  # type: ignore[operator]
    wanted = token_logprobs(logits, batch.targets).logprobs
    torch.testing.assert_close(found, wanted, atol=_CLOSE, rtol=0)
    ours, plain = _gradients(case.policy.model, found), _gradients(case.plain, wanted)
    for name, gradient in plain.items():
        size = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(ours.pop(name), gradient, atol=_CLOSE * size, rtol=0, msg=lambda m, n=name: n + m)
    assert not any(gradient.any() for gradient in ours.values())


def test_bfloat16_stays_near_float32(case: Case) -> None:
    """Log-probs of tiny models with random weights: on the mean within 0.02 nats."""
    batch = case.collate[True](case.sequences({"one": [5, 12], "none": [9]}))
    wanted, *_ = case.policy(batch)
    model, _ = load_model(ModelSpec(path=str(case.folder), dtype="bfloat16", share_prompts=True))
    narrow = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.mm_inputs.items()}
    batch.mm_inputs.update(narrow)
    found, *_ = PolicyModule(model, lockstep=False)(batch)
    assert found.dtype == torch.float32
    assert (found - wanted).abs().mean() < 0.02


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_the_language_model_attends_as_the_options_say(case: Case, attention: str) -> None:
    sequences = case.sequences({"one": [5, 3], "none": [2]})
    spec = ModelSpec(path=str(case.folder), dtype="float32", share_prompts=True, attention=attention)
    model, _ = load_model(spec)
    assert model.config.get_text_config()._attn_implementation == NAMES[attention]
    if attention == "eager":
        batch = case.collate[True](sequences)
        torch.testing.assert_close(
            PolicyModule(model, lockstep=False)(batch).logprobs, case.policy(batch).logprobs, atol=_CLOSE, rtol=0
        )
