"""transformers' own sampling: the trainer's scores at every temperature, and nothing that the folder says about it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import torch

from algorithms.records import SamplingDistribution
from algorithms.records import Sequence as TokenSequence
from tests.generation_settings import OBEYED_BY_NOBODY
from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts
from workers.models.loading import ModelSpec, load_model, released_tensors
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec
from workers.rollout.transformers_rollout import TransformersEngine
from workers.types import Completion, EncodedPrompt, GenerationRequest
from workers.weight_sync.shared_memory import WeightFile, clear_exchange


@pytest.mark.parametrize("model_type", ["internvl", "instructblip", "gemma3", "glm4v_moe", "qwen3_5"])
def test_sampled_tokens_have_the_trainers_scores(model_type: str, tmp_path: Path) -> None:
    spec = ModelSpec(path=str(TINY_MODELS[model_type](tmp_path / "model")), dtype="float32")
    encoder = PromptEncoder(spec.path)
    engine = TransformersEngine("engine-0", _engine_spec(spec, encoder))
    module, collate = _trainer(spec)
    encoded = _encoded(encoder, tmp_path)
    for temperature in (1.0, 0.7, 1.3):
        done = _sampled(engine, encoded, temperature=temperature)
        assert len({tuple(c.completion_ids) for c in done}) == len(done) == 6
        sampling = SamplingDistribution(temperature=temperature, banned_ids=encoder.vision_token_ids)
        with torch.no_grad():
            scored, *_ = module(collate(_sequences(done, encoded)), sampling)
        sampled = torch.from_numpy(np.concatenate([c.rollout_logprobs for c in done]))
        torch.testing.assert_close(sampled, scored, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["internvl", "instructblip", "gemma3", "glm4v_moe", "qwen3_5"])
def test_nothing_the_folder_says_about_sampling_counts(model_type: str, tmp_path: Path) -> None:
    folder = TINY_MODELS[model_type](tmp_path / "model")
    spec, encoder = ModelSpec(path=str(folder), dtype="float32"), PromptEncoder(folder)
    encoded, drawn = _encoded(encoder, tmp_path), []
    for said in ({}, OBEYED_BY_NOBODY):
        (folder / "generation_config.json").write_text(json.dumps(said))
        engine = TransformersEngine("engine-0", _engine_spec(spec, PromptEncoder(folder)))
        drawn.append(_sampled(engine, encoded, temperature=1.0) + _sampled(engine, encoded, temperature=0.0))
    for plain, told in zip(*drawn, strict=True):
        assert plain.completion_ids.tolist() == told.completion_ids.tolist()
        assert plain.rollout_logprobs.tolist() == told.rollout_logprobs.tolist()
        assert plain.finish_reason == told.finish_reason


def test_a_greedy_sample_has_the_log_probs_of_temperature_one(tmp_path: Path) -> None:
    spec = ModelSpec(path=str(TINY_MODELS["internvl"](tmp_path / "model")), dtype="float32")
    encoder = PromptEncoder(spec.path)
    encoded = _encoded(encoder, tmp_path)
    done = _sampled(TransformersEngine("engine-0", _engine_spec(spec, encoder)), encoded, temperature=0.0)
    module, collate = _trainer(spec)
    with torch.no_grad():
        scores = module(collate(_sequences(done, encoded)), SamplingDistribution(banned_ids=encoder.vision_token_ids))
    assert scores.greedy.all()
    sampled = torch.from_numpy(np.concatenate([c.rollout_logprobs for c in done]))
    torch.testing.assert_close(sampled, scores.logprobs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("model_type", ["qwen3_vl_moe", "glm4v_moe"])
def test_experts_arrive_as_they_were_sent(model_type: str, tmp_path: Path) -> None:
    """A transfer has them as the releases do, the model as transformers stacks them."""
    spec = ModelSpec(path=str(TINY_MODELS[model_type](tmp_path / "model")), dtype="float32")
    engine, sent = TransformersEngine("engine-0", _engine_spec(spec, PromptEncoder(spec.path))), load_model(spec)
    with torch.no_grad():
        for tensor in sent[0].state_dict(keep_vars=True).values():
            tensor.add_(1.0)
    run_id = uuid4().hex
    try:
        named = released_tensors(*sent).items()
        engine.load_weights(WeightFile(run_id).write(named, policy_version=1, full=True))
    finally:
        clear_exchange(run_id)
    found = engine._model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in sent[0].state_dict().items())


def _encoded(encoder: PromptEncoder, folder: Path) -> dict[str, EncodedPrompt]:
    prompts = picture_prompts(folder, {"two": 2, "one": 1, "none": 0}, sizes=MIXED_SIZES)
    return {p.uid: encoder.encode(p) for p in prompts}


def _trainer(spec: ModelSpec) -> tuple[PolicyModule, Collator]:
    module = PolicyModule(load_model(spec)[0], lockstep=False)
    return module, Collator(spec.path, dtype=torch.float32, share_prompts=False)


def _sampled(
    engine: TransformersEngine, encoded: Mapping[str, EncodedPrompt], *, temperature: float
) -> list[Completion]:
    """Two completions of every prompt."""
    engine.submit(
        [
            GenerationRequest(
                uid=uid,
                sample_index=index,
                engine_prompt_ids=prompt.engine_prompt_ids,
                prompt_ids=prompt.prompt_ids,
                media=prompt.media,
                seed=2 * position + index,
                max_new_tokens=6,
                temperature=temperature,
            )
            for position, (uid, prompt) in enumerate(encoded.items())
            for index in range(2)
        ]
    )
    return [completion for _ in encoded for completion in engine.collect(1.0)]


def _sequences(done: Sequence[Completion], encoded: Mapping[str, EncodedPrompt]) -> list[TokenSequence]:
    return [
        TokenSequence(
            uid=c.uid,
            sample_index=c.sample_index,
            input_ids=np.concatenate([encoded[c.uid].prompt_ids, c.completion_ids]),
            prompt_len=len(encoded[c.uid].prompt_ids),
            media=encoded[c.uid].media,
        )
        for c in done
    ]


def _engine_spec(spec: ModelSpec, encoder: PromptEncoder) -> EngineSpec:
    return EngineSpec(
        kind="transformers",
        model=spec,
        tensor_parallel_size=1,
        max_model_len=256,
        max_num_seqs=8,
        max_images_per_prompt=2,
        gpu_memory_utilization=0.5,
        banned_token_ids=encoder.vision_token_ids,
        stop_token_ids=encoder.eos_token_ids,
        seed=0,
    )
