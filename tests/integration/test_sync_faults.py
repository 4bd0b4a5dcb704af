"""Faults planted in the weight sync, each caught at that sync, with real vLLM and DeepSpeed workers."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from torch import Tensor

from algorithms.records import SamplingDistribution, Sequence
from orchestrator.cluster.environment import worker_environment
from orchestrator.cluster.feed import build_requests, completion_sequences, generate
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.sync import WeightSync
from orchestrator.cluster.waits import WorkerCannotStart, WorkerFailed
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.errors import GuardStop
from orchestrator.tasks.digits import DigitsPaths
from tests.generation_settings import OBEYED_BY_NOBODY
from tests.integration.pools import engine_spec, make_pool, policy_spec
from tests.tiny_prompts import demonstrations
from workers.actor_base import WorkerBase
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.policy import PolicyWorker
from workers.rollout.spec import EngineSpec
from workers.rollout.vllm_rollout import VllmEngine
from workers.rollout.worker import RolloutWorker
from workers.types import EncodedPrompt
from workers.weight_sync.manifest import WeightManifest

pytestmark = pytest.mark.integration


class ForgetfulPolicy(PolicyWorker):
    """Does not send one tensor once ``forget`` was called."""

    _forgetting = False

    def forget(self) -> None:
        self._forgetting = True

    def _named(self):
        for index, item in enumerate(super()._named()):
            if not (self._forgetting and index == 3):
                yield item


class StickyCacheEngine(VllmEngine):
    """Keeps what it computed with the old weights."""

    def reset_caches(self) -> None:
        return


class StaleEngine(VllmEngine):
    """Acknowledges every transfer after the first and keeps its old weights."""

    def load_weights(self, manifest: WeightManifest) -> None:
        if self._policy_version < 0:
            super().load_weights(manifest)
        self._policy_version = manifest.policy_version


class StaleTowerEngine(VllmEngine):
    """Takes every tensor anew but those of its vision tower."""

    def __init__(self, name: str, spec: EngineSpec) -> None:
        super().__init__(name, spec)
        self._llm.collective_rpc(_keep_the_first_tower)


def _keep_the_first_tower(worker: Any) -> None:
    reader = worker.weight_transfer_engine._reader
    read, first = reader.read, dict[str, Tensor]()

    def old_tower(*told: Any) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in read(*told):
            yield name, first.setdefault(name, tensor.clone()) if "visual" in name else tensor

    reader.read = old_tower


class FaultyRollout(RolloutWorker):
    """A rollout actor around one of the faulty engines."""

    def __init__(self, *, fault: str, spec: EngineSpec) -> None:
        WorkerBase.__init__(self, num_threads=1)
        self._engine = _FAULTY[fault]("faulty", spec)


_FAULTY = {"sticky": StickyCacheEngine, "stale": StaleEngine, "tower": StaleTowerEngine}


@pytest.fixture(scope="module")
def pool(cluster: None, random_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool]:
    """Its engine samples from a folder that says how to sample, which nobody asked it to."""
    talkative = tmp_path_factory.mktemp("talkative") / "model"
    shutil.copytree(random_model, talkative)
    (talkative / "generation_config.json").write_text(json.dumps(OBEYED_BY_NOBODY))
    pool = make_pool(num_ranks=1)
    pool.role("rollout").start(engine_spec(talkative))
    pool.role("policy").start(policy_spec(random_model, zero_stage=2))
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def probe(random_model: Path, digits: DigitsPaths) -> list[EncodedPrompt]:
    file = digits.held_out
    source = SourceFile(path=file, read_by="r1_reward", media_root=file.parent, max_pixels=None, video_frames=1)
    dataset = read_prompts(source)
    encoder = PromptEncoder(random_model)
    return [encoder.encode(p) for p in dataset.prompts[:1]]


def _sequences(probe: list[EncodedPrompt]) -> list[Sequence]:
    sequences = []
    for p in probe:
        ids = np.asarray((*p.prompt_ids, 8, 12, 13, 14, 2))
        sequences.append(
            Sequence(uid=p.uid, sample_index=0, input_ids=ids, prompt_len=len(p.prompt_ids), media=p.media)
        )
    return sequences


def _learn(pool: WorkerPool, probe: list[EncodedPrompt]) -> None:
    """Two large supervised steps, so that old weights are clearly wrong, the vision tower's included."""
    samples = demonstrations(_sequences(probe), aggregation="token-mean")
    for _ in range(2):
        pool.role("policy").update([[samples]], deadline_s=60.0)


def _sync(pool: WorkerPool, run_id: str) -> WeightSync:
    return WeightSync(pool, run_id=run_id, tolerance=1e-4, deadline_s=120.0)


def _plant(pool: WorkerPool, fault: str, model: Path) -> None:
    ray.kill(pool.role("rollout").actors[0])
    actor_class = ray.remote(FaultyRollout).options(
        num_cpus=0, runtime_env={"env_vars": worker_environment(1, gpu=False)}
    )
    pool.role("rollout").actors[0] = actor_class.remote(fault=fault, spec=engine_spec(model))


def test_a_clean_sync_is_verified_without_repair(pool: WorkerPool, probe: list[EncodedPrompt]) -> None:
    sync = _sync(pool, "clean")
    first = sync.sync(0, probe)
    _learn(pool, probe)
    second = sync.sync(1, probe)
    assert first.faults == second.faults == ()
    assert first.digest != second.digest
    assert max(first.probe_gap, second.probe_gap) < 1e-5


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.3])
def test_engine_and_trainer_speak_of_the_distribution_that_was_sampled_from(
    pool: WorkerPool, probe: list[EncodedPrompt], temperature: float
) -> None:
    sampling = SamplingDistribution(temperature=temperature, banned_ids=pool.engine_spec.banned_token_ids)
    sync = WeightSync(pool, run_id=f"t{temperature}", tolerance=1e-4, deadline_s=120.0, sampling=sampling)
    assert sync.sync(0, probe).probe_gap < 1e-5
    requests = build_requests(
        probe, samples_per_prompt=16, seed_of=lambda uid, index: index, max_new_tokens=16, temperature=temperature,
        top_p=1.0,
    )  # fmt: skip
    done = generate({0: pool.role("rollout").actors[0]}, requests, deadline_s=120.0)
    sequences = completion_sequences(requests, done)
    scored = pool.role("policy").each("score", sequences, deadline_s=60.0, sampling=sampling)
    plain = pool.role("policy").each("score", sequences, deadline_s=60.0)
    engine = np.concatenate([c.rollout_logprobs for c in done])
    tempered, untempered = (np.concatenate([row[s.prompt_len :] for row, s in zip(rows, sequences, strict=True)])
                            for rows in (scored, plain))  # fmt: skip
    assert np.abs(engine - tempered).max() < 1e-4
    assert np.abs(engine - untempered).max() > 1e-3, "the vision tokens have a share of the model's own distribution"
    # The folder names ends of a turn; only the tokenizer's counts.
    going_on = {int(token) for c in done for token in c.completion_ids[:-1]}
    assert going_on & set(OBEYED_BY_NOBODY["eos_token_id"])
    assert not going_on & set(pool.engine_spec.stop_token_ids)
    ends = {int(c.completion_ids[-1]) for c in done if c.finish_reason == "stop"}
    assert ends <= set(pool.engine_spec.stop_token_ids)


def test_a_policy_without_adapters_has_no_base_to_ask(pool: WorkerPool, probe: list[EncodedPrompt]) -> None:
    with pytest.raises(WorkerFailed, match=r"the policy has no adapters: set model\.lora_rank"):
        pool.role("policy").each("score", _sequences(probe), deadline_s=60.0, adapters=False)


def test_an_engine_that_cannot_start_says_why_once(
    pool: WorkerPool, probe: list[EncodedPrompt], random_model: Path
) -> None:
    ray.kill(pool.role("rollout").actors[0])
    actor_class = ray.remote(RolloutWorker).options(
        num_cpus=0, runtime_env={"env_vars": worker_environment(1, gpu=False)}
    )
    spec = replace(engine_spec(random_model), max_model_len=4096)
    pool.role("rollout").actors[0] = actor_class.remote(name="rollout-0", spec=spec, num_threads=1)
    with pytest.raises(WorkerCannotStart, match=r"^rollout-0: .*max_model_len \(4096\) is greater than") as lost:
        _sync(pool, "never").sync(0, probe)
    assert "\n" not in lost.value.reason and "Traceback" not in lost.value.reason
    assert "vllm_rollout.py" in lost.value.told
    assert pool.role("rollout").replaced == set()


@pytest.mark.parametrize("fault", [*(pytest.param(f, marks=pytest.mark.soak) for f in ("sticky", "stale")), "tower"])
def test_an_engine_that_keeps_the_old_is_caught_and_replaced(
    pool: WorkerPool, probe: list[EncodedPrompt], random_model: Path, fault: str
) -> None:
    _plant(pool, fault, random_model)
    sync = _sync(pool, fault)
    assert sync.sync(0, probe).faults == ()
    # The engine has seen the probe's images by now; only new weights can tell.
    _learn(pool, probe)
    result = sync.sync(1, probe)
    assert len(result.faults) == 2
    assert all("probe log-probs differ from the trainer's" in reason for reason in result.faults)
    assert result.probe_gap < 1e-5


def test_a_tensor_that_is_not_sent_stops_the_run(
    pool: WorkerPool, probe: list[EncodedPrompt], random_model: Path
) -> None:
    spec = policy_spec(random_model, zero_stage=2)
    ray.kill(pool.role("policy").actors[0])
    actor_class = ray.remote(ForgetfulPolicy).options(
        num_cpus=0, runtime_env={"env_vars": worker_environment(1, gpu=False)}
    )
    pool.role("policy").actors[0] = actor_class.remote(rank=0, world_size=1, spec=spec, num_threads=1)
    address, port = ray.get(pool.role("policy").actors[0].rendezvous.remote())
    ray.get(pool.role("policy").actors[0].setup.remote(address, port))
    sync = _sync(pool, "forgetful")
    sync.sync(0, probe)
    ray.get(pool.role("policy").actors[0].forget.remote())
    with pytest.raises(GuardStop, match="engine parameters were not received"):
        sync.sync(1, probe)
