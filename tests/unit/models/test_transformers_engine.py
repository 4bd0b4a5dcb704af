"""transformers' own sampling agrees with the trainer's scores where an architecture goes a way of its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tiny_models import TINY_MODELS
from tests.tiny_prompts import MIXED_SIZES, picture_prompts
from workers.models.loading import ModelSpec, load_model
from workers.models.policy_module import PolicyModule
from workers.multimodal.collate import Collator
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec
from workers.rollout.transformers_rollout import TransformersEngine
from workers.types import GenerationRequest, Sequence


@pytest.mark.parametrize("model_type", ["internvl", "instructblip"])
def test_sampled_tokens_have_the_trainers_scores(model_type: str, tmp_path: Path) -> None:
    spec = ModelSpec(path=str(TINY_MODELS[model_type](tmp_path / "model")), dtype="float32")
    encoder = PromptEncoder(spec.path)
    engine = TransformersEngine("engine-0", _engine_spec(spec, encoder))
    encoded = {
        p.uid: encoder.encode(p) for p in picture_prompts(tmp_path, {"two": 2, "one": 1, "none": 0}, sizes=MIXED_SIZES)
    }
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
                temperature=1.0,
            )
            for position, (uid, prompt) in enumerate(encoded.items())
            for index in range(2)
        ]
    )
    done = [completion for _ in encoded for completion in engine.collect(1.0)]
    assert len(done) == 6
    assert len({tuple(c.completion_ids) for c in done}) == 6
    sequences = [
        Sequence(
            uid=c.uid,
            sample_index=c.sample_index,
            input_ids=np.concatenate([encoded[c.uid].prompt_ids, c.completion_ids]),
            prompt_len=len(encoded[c.uid].prompt_ids),
            media=encoded[c.uid].media,
        )
        for c in done
    ]
    module = PolicyModule(load_model(spec)[0], lockstep=False)
    scored, *_ = module(Collator(spec.path, dtype=torch.float32, share_prompts=False)(sequences))
    sampled = torch.from_numpy(np.concatenate([c.rollout_logprobs for c in done]))
    torch.testing.assert_close(sampled, scored, atol=1e-4, rtol=0)


def _engine_spec(spec: ModelSpec, encoder: PromptEncoder) -> EngineSpec:
    return EngineSpec(
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
