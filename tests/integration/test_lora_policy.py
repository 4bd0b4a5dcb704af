"""A policy that learns through adapters: its base is the reference, it resumes exactly, engines get plain weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from algorithms.records import Sequence
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.sync import WeightSync
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.tasks.digits import DigitsPaths
from tests.integration.pools import engine_spec, make_pool, policy_spec
from tests.tiny_prompts import demonstrations
from workers.models.lora import LoraSpec
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import EncodedPrompt, RankUpdate

pytestmark = pytest.mark.integration
_LORA = LoraSpec(rank=4, alpha=8, seed=1)
_SETTINGS = [pytest.param(2, 2, marks=pytest.mark.soak), pytest.param(2, 3, marks=pytest.mark.soak), (1, 2)]


@pytest.fixture(scope="module")
def prompts(random_model: Path, digits: DigitsPaths) -> list[EncodedPrompt]:
    file = digits.train
    encoder = PromptEncoder(random_model)
    source = SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=None, video_frames=1)
    dataset = read_prompts(source)
    return [encoder.encode(prompt) for prompt in dataset.prompts[:4]]


@pytest.fixture(scope="module")
def sequences(prompts: list[EncodedPrompt]) -> list[Sequence]:
    """Two responses of uneven length to each prompt."""
    return [
        Sequence(
            uid=prompt.uid,
            sample_index=index,
            input_ids=np.asarray((*prompt.prompt_ids, *range(8, 12 + number + 3 * index))),
            prompt_len=len(prompt.prompt_ids),
            media=prompt.media,
        )
        for number, prompt in enumerate(prompts)
        for index in range(2)
    ]


def _score(pool: WorkerPool, sequences: list[Sequence], *, adapters: bool = True) -> np.ndarray:
    return np.concatenate(pool.role("policy").each("score", sequences, deadline_s=60.0, adapters=adapters))


def _update(pool: WorkerPool, sequences: list[Sequence]) -> list[RankUpdate]:
    samples = demonstrations(sequences, aggregation="token-mean")
    plan = pool.microbatches(sequences, num_ranks=len(pool.role("policy").actors))
    return pool.role("policy").update(
        [[[samples[i] for i in batch] for batch in rank] for rank in plan], deadline_s=120.0
    )


@pytest.mark.parametrize(("num_ranks", "zero_stage"), _SETTINGS)
def test_the_base_stays_the_reference_and_a_checkpoint_continues_exactly(
    cluster: None, random_model: Path, sequences: list[Sequence], tmp_path: Path, num_ranks: int, zero_stage: int
) -> None:
    spec = policy_spec(random_model, zero_stage=zero_stage, lora=_LORA)
    pool = make_pool(num_ranks=num_ranks)
    try:
        pool.role("policy").start(spec)
        base = _score(pool, sequences)
        assert np.array_equal(_score(pool, sequences, adapters=False), base)
        for _ in range(2):  # B is zero before the first, so A moves only in the second
            _update(pool, sequences)
        learned = _score(pool, sequences)
        assert np.array_equal(_score(pool, sequences, adapters=False), base)
        assert np.abs(learned - base).max() > 1e-2
        assert np.array_equal(_score(pool, sequences), learned), "the adapters should count again"
        pool.role("policy").shared("save", str(tmp_path), deadline_s=60.0)
        next_stats, next_scores = _update(pool, sequences), _score(pool, sequences)

        adapter = tmp_path / "policy"
        assert sorted(file.name for file in adapter.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
        assert not any(
            "visual" in name and "merger" not in name for name in load_file(adapter / "adapter_model.safetensors")
        )
        pool.role("policy").start(replace(spec, lora=replace(_LORA, seed=0, saved=str(adapter))))
        pool.role("policy").shared("load_state", str(tmp_path), num_steps=2, deadline_s=60.0)
        assert np.array_equal(_score(pool, sequences), learned)
        assert _update(pool, sequences) == next_stats
        assert np.array_equal(_score(pool, sequences), next_scores)
    finally:
        pool.close()


@pytest.mark.soak
def test_engines_get_plain_weights(
    cluster: None, random_model: Path, prompts: list[EncodedPrompt], sequences: list[Sequence]
) -> None:
    pool = make_pool(num_ranks=1)
    try:
        pool.role("rollout").start(engine_spec(random_model))
        pool.role("policy").start(policy_spec(random_model, zero_stage=3, lora=_LORA))
        sync = WeightSync(pool, run_id="lora", tolerance=1e-4, deadline_s=120.0)
        first = sync.sync(0, prompts[:2])
        _update(pool, sequences)
        second = sync.sync(1, prompts[:2])
        (manifest,) = pool.role("policy").shared("publish", policy_version=2, full=False, deadline_s=60.0)
    finally:
        pool.close()
    assert first.faults == second.faults == ()
    assert first.digest != second.digest
    assert max(first.probe_gap, second.probe_gap) < 1e-5
    released = load_file(random_model / "model.safetensors")
    assert set(manifest.digests) < set(released), "only weights that an adapter touches"
    assert not any(name.startswith("visual.blocks.") for name in manifest.digests)
