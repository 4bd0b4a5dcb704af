"""Responses that share a row with their prompt score, and learn, as they do alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.records import Sequence
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import picture_prompts, respond
from workers.models import policy_module
from workers.models.adapters import ADAPTERS
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.models.shared_prompt import positions
from workers.multimodal.collate import Batch, Collator
from workers.multimodal.packing import pack
from workers.multimodal.prompt_encoder import PromptEncoder

_LENGTHS = {"two-images": [5, 1, 9], "one-image": [3, 7], "text-only": [4, 4], "alone": [6]}
_IMAGES = {"two-images": 2, "one-image": 1, "text-only": 0, "alone": 1}


@pytest.fixture(scope="module", params=[name for name in TINY_MODELS if ADAPTERS[name].shares_prompts])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY_MODELS[request.param](tmp_path_factory.mktemp(request.param) / "model")


@pytest.fixture(scope="module")
def sequences(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sequence]:
    """Four prompts with one to three responses each, siblings apart from each other."""
    encoder, rng = PromptEncoder(folder), np.random.default_rng(0)
    prompts = picture_prompts(tmp_path_factory.mktemp("digits"), _IMAGES)
    made = [
        respond(encoder, prompt, rng.integers(8, 30, length), sample_index=index)
        for prompt in prompts
        for index, length in enumerate(_LENGTHS[prompt.uid])
    ]
    return [made[i] for i in rng.permutation(len(made))]


def _module(folder: Path) -> PolicyModule:
    model, _ = load_model(ModelSpec(path=str(folder), dtype="float32", share_prompts=True))
    return PolicyModule(model, lockstep=False)


def _batch(folder: Path, sequences: list[Sequence], *, share: bool) -> Batch:
    return Collator(folder, dtype=torch.float32, share_prompts=share)(sequences)


def _gradients(module: PolicyModule, logprobs: Tensor) -> dict[str, Tensor]:
    module.zero_grad()
    # Unequal weights, so that a token in the wrong place shows.
    (logprobs * torch.arange(1.0, len(logprobs) + 1)).sum().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_shared_rows_score_and_learn_as_separate_ones(folder: Path, sequences: list[Sequence]) -> None:
    module = _module(folder)
    apart, *_ = module(_batch(folder, sequences, share=False))
    wanted = _gradients(module, apart)
    batch = _batch(folder, sequences, share=True)
    owned = {s.uid: s.prompt_len for s in sequences}
    assert batch.input_ids.shape == (1, sum(owned.values()) + sum(map(sum, _LENGTHS.values()))), "each prompt once"
    together, *_ = module(batch)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)
    found = _gradients(module, together)
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4 * max(1.0, float(gradient.abs().max())), rtol=0)


def test_one_padded_batch_scores_as_every_sequence_by_itself(folder: Path, sequences: list[Sequence]) -> None:
    module = _module(folder)
    together, *_ = module(_batch(folder, sequences, share=True))
    alone = torch.cat([module(_batch(folder, [s], share=False))[0] for s in sequences])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_an_image_is_encoded_once_for_all_responses_to_it(folder: Path, sequences: list[Sequence]) -> None:
    """VL-RLHF acceptance 10."""
    apart, together = (_batch(folder, sequences, share=share) for share in (False, True))
    sizes = [batch.mm_inputs["pixel_values"].numel() for batch in (apart, together)]
    assert sizes[0] * (2 + 1 + 1) == sizes[1] * (3 * 2 + 2 * 1 + 1)


def test_the_other_responses_cannot_be_told_from_a_score(folder: Path, sequences: list[Sequence]) -> None:
    module = _module(folder)
    batch = _batch(folder, sequences, share=True)
    at = next(i for i, s in enumerate(sequences) if s.uid == "two-images")
    changed = list(sequences)
    ids = sequences[at].input_ids.copy()
    ids[sequences[at].prompt_len :] = 9
    changed[at] = Sequence(
        uid=sequences[at].uid,
        sample_index=0,
        input_ids=ids,
        prompt_len=sequences[at].prompt_len,
        media=sequences[at].media,
    )
    before = batch.split(module(batch)[0])
    after = batch.split(module(_batch(folder, changed, share=True))[0])
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        assert torch.allclose(one, other, atol=1e-5) == (index != at)


def test_logits_in_pieces_change_nothing(
    folder: Path, sequences: list[Sequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, batch = _module(folder), _batch(folder, sequences, share=True)
    whole, entropy, _ = module(batch)
    wanted = _gradients(module, whole)
    three_tokens = 3 * 4 * module.model.config.get_text_config().vocab_size
    monkeypatch.setattr(policy_module, "BYTES_KEPT", {"cpu": three_tokens})
    pieces, entropy_of_pieces, _ = module(batch)
    torch.testing.assert_close(pieces, whole)
    torch.testing.assert_close(entropy_of_pieces, entropy)
    found = _gradients(module, pieces)
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * max(1.0, float(gradient.abs().max())), rtol=1e-4)


def test_logits_that_nobody_learns_from_are_made_in_pieces_and_once(
    folder: Path, sequences: list[Sequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for references and old log-probs: the bound is that of logits which are not kept."""
    module, batch = _module(folder), _batch(folder, sequences, share=True)
    head, calls = module.model.get_output_embeddings(), list[int]()
    # One that has no body without a head runs it there too, over rows.
    head.register_forward_hook(lambda module, args, output: calls.append(len(args[0])) if args[0].ndim == 2 else None)
    with torch.no_grad():
        whole = module(batch)
        monkeypatch.setattr(policy_module, "LOGITS_AT_ONCE", 3 * module.model.config.get_text_config().vocab_size)
        pieces = module(batch)
    num_tokens = len(batch.targets)
    assert calls[0] == num_tokens and max(calls[1:]) <= 3 and sum(calls[1:]) == num_tokens
    for one, other in zip(pieces, whole, strict=True):
        torch.testing.assert_close(one, other)


def test_responses_count_on_from_the_end_of_their_prompt() -> None:
    sequences = [
        Sequence(uid=uid, sample_index=k, input_ids=np.arange(length), prompt_len=prompt_len, media=())
        for uid, prompt_len, lengths in (("a", 3, (5, 4)), ("b", 2, (4,)))
        for k, length in enumerate(lengths)
    ]
    segments = pack(sequences).segments
    plain = positions(segments, torch.tensor([[0, 1, 2], [0, 1, 9]]))
    assert plain.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1, 2, 3]]
    # An image of 2 x 2 features between two words, as M-RoPE counts it: the text goes on from the largest of the axes.
    axes = torch.tensor([[[0, 1, 3], [0, 1, 9]], [[0, 2, 3], [0, 1, 9]], [[0, 1, 3], [0, 1, 9]]])
    assert positions(segments, axes)[1].tolist() == [[0, 2, 3, 4, 5, 4, 0, 1, 2, 3]]
