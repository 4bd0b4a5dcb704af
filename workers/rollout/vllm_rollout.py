"""vLLM as a rollout engine, driven one scheduling step at a time inside the actor's own process."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm import LLM, SamplingParams
from vllm.config import WeightTransferConfig
from vllm.sampling_params import RequestOutputKind

from algorithms.records import MediaRef
from workers.models.adapters import adapter_for
from workers.models.folder import read_model_config
from workers.multimodal.media import load_image, pixel_bytes
from workers.multimodal.processor import engine_options
from workers.multimodal.step_cache import StepCache
from workers.rollout import vllm_onevision
from workers.rollout.cpu_sampling import draw_by_inversion
from workers.rollout.sleep import SleepCycle, loose_tensors
from workers.rollout.spec import EngineSpec
from workers.types import Completion, Completions, GenerationRequest
from workers.weight_sync import vllm_engine
from workers.weight_sync.manifest import NameLedger, WeightManifest

_BAN = float("-inf")
_IMAGE_CACHE_BYTES = 256 << 20
_LINGER_S = 0.1
_CPU_BLOCK = 32
"""Tokens; the smallest that vLLM's kernels for a CPU take. Of a prompt whole blocks are shared."""
_CPU_BATCHED_TOKENS = 8192
_CPU_BATCHED_TOKENS_LIMIT = 65536


class VllmEngine:
    """A vLLM engine whose weights are replaced through vLLM's own weight transfer."""

    def __init__(self, name: str, spec: EngineSpec) -> None:
        if not torch.cuda.is_available():
            # vLLM compiles the count of a token's rank, which nobody reads here: seconds of every engine's start.
            torch.compiler.set_stance("force_eager")
        vllm_engine.register()
        if adapter_for(str(read_model_config(spec.model.path)["model_type"])).tiles_alone:
            vllm_onevision.register()
        self.name = name
        self._spec = spec
        self._policy_version = -1
        self._ledger = NameLedger()
        self._in_flight: dict[str, GenerationRequest] = {}
        # vLLM's sleep does nothing on a CPU; the states are walked all the same.
        self._can_sleep = spec.shares_device and torch.cuda.is_available()
        self._cycle = SleepCycle("awake")
        self._images = StepCache[Image.Image](_IMAGE_CACHE_BYTES, num_bytes=pixel_bytes)
        self._llm = LLM(
            model=spec.model.path,
            dtype="float32" if spec.model.torch_dtype == torch.float32 else "bfloat16",
            trust_remote_code=spec.model.trust_remote_code,
            tensor_parallel_size=spec.tensor_parallel_size,
            distributed_executor_backend="ray" if spec.tensor_parallel_size > 1 else None,
            max_model_len=spec.max_model_len,
            max_num_seqs=spec.max_num_seqs,
            gpu_memory_utilization=spec.gpu_memory_utilization,
            mm_processor_kwargs=engine_options(
                spec.model.path, max_pixels=spec.model.max_pixels, trust_remote_code=spec.model.trust_remote_code
            ),
            limit_mm_per_prompt={"image": spec.max_images_per_prompt},
            # What is done to logits stands in the request, and log-probs are of what was sampled from.
            generation_config="vllm",
            logprobs_mode="processed_logprobs",
            enforce_eager=not (spec.cuda_graphs and torch.cuda.is_available()),
            enable_sleep_mode=self._can_sleep,
            seed=spec.seed,
            **_scheduling(spec),
            weight_transfer_config=WeightTransferConfig(backend=vllm_engine.BACKENDS[spec.sync_backend]),
        )
        if not torch.cuda.is_available():
            self._llm.collective_rpc(draw_by_inversion)
        self._has_loose = self._can_sleep and any(self._llm.collective_rpc(_has_loose))
        if spec.sync_backend != "nccl":
            self._llm.init_weight_transfer_engine({"init_info": {}})
        if spec.shares_device:
            self.sleep()

    def connect(self, *, address: str, port: int, rank_offset: int, group_size: int) -> None:
        """Join the trainer's NCCL group; returns once every member has."""
        info = {"master_address": address, "master_port": port, "rank_offset": rank_offset, "world_size": group_size}
        # Packed as the trainer's side of vLLM sends by default.
        self._llm.init_weight_transfer_engine({"init_info": info | {"packed": True}})

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue requests in the given order."""
        for request in requests:
            key = f"{request.uid}/{request.sample_index}"
            prompt: dict[str, Any] = {"prompt_token_ids": list(request.engine_prompt_ids)}
            if request.media:
                prompt["multi_modal_data"] = {"image": [self._image(ref) for ref in request.media]}
                prompt["multi_modal_uuids"] = {"image": [ref.sha256 for ref in request.media]}
            self._llm.llm_engine.add_request(key, prompt, self._sampling(request))  # type: ignore[arg-type]
            self._in_flight[key] = request

    def collect(self, max_wait_s: float) -> Completions:
        """Step the engine until something finished, and what else soon does; or time is up."""
        self._cycle.require("awake", "sample")
        deadline = time.monotonic() + max_wait_s
        finished: list[Completion] = []
        while self._in_flight and time.monotonic() < deadline:
            for output in self._llm.llm_engine.step():
                if output.finished:
                    finished.append(self._completion(output))
                    # Every message costs the processor that the engine computes on.
                    deadline = min(deadline, time.monotonic() + _LINGER_S)
        return Completions.of(finished)

    def load_weights(self, manifest: WeightManifest) -> None:
        """Load published weights, then drop every cache that was computed with the old ones."""
        self._ledger.check(manifest)
        self._llm.start_weight_update()
        self._llm.update_weights({"update_info": vllm_engine.update_info(manifest)})
        self._llm.finish_weight_update()
        self.reset_caches()
        self._images.forget_untouched()
        self._policy_version = manifest.policy_version

    def sleep(self) -> None:
        """The cache goes away and the weights too; a copy stays on the host of those that no transfer brings again.

        vLLM keeps buffers at both levels.
        """
        if self._cycle.sleep() and self._can_sleep:
            self._llm.sleep(level=2 if self._ledger.next_sets_all() and not self._has_loose else 1)

    def wake_weights(self) -> None:
        """Bring the weights back to the GPU, to be written over."""
        if self._cycle.wake_weights() and self._can_sleep:
            self._llm.wake_up(tags=["weights"])

    def wake_cache(self) -> None:
        """Allocate the cache again, empty."""
        if self._cycle.wake_cache() and self._can_sleep:
            self._llm.wake_up(tags=["kv_cache", "scheduling"])

    def reset_caches(self) -> None:
        """Forget encoded images, processed media and prefixes; vLLM does none of it by itself on an update."""
        self._llm.llm_engine.reset_encoder_cache()
        self._llm.llm_engine.reset_mm_cache()
        self._llm.llm_engine.reset_prefix_cache()

    def checksums(self) -> dict[str, str]:
        """vLLM's own digests of every tensor in its layout, over all tensor-parallel workers."""
        merged: dict[str, str] = {}
        for part in self._llm.collective_rpc("compute_weight_checksums"):
            merged.update(part)
        return merged

    def _image(self, ref: MediaRef) -> Image.Image:
        return self._images.get(ref.sha256, lambda: load_image(ref))

    def _sampling(self, request: GenerationRequest) -> SamplingParams:
        return SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=request.max_new_tokens,
            seed=request.seed,
            logprobs=0,
            logit_bias=dict.fromkeys(self._spec.banned_token_ids, _BAN),
            # These and no others: vLLM would add those of the folder's generation_config.json.
            ignore_eos=True,
            stop_token_ids=list(self._spec.stop_token_ids),
            detokenize=False,
            # An unfinished one is asked for by nobody, and would be put together anew for every token.
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, output: Any) -> Completion:
        request = self._in_flight.pop(output.request_id)
        if tuple(output.prompt_token_ids) != request.prompt_ids:
            raise RuntimeError(
                f"engine {self.name} expanded prompt {request.uid} to {len(output.prompt_token_ids)} tokens, "
                f"the processor to {len(request.prompt_ids)}: their image preprocessing differs"
            )
        sample = output.outputs[0]
        ids = sample.token_ids
        logprobs = [step[token].logprob for step, token in zip(sample.logprobs, ids, strict=True)]
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=np.asarray(ids, dtype=np.int32),
            rollout_logprobs=np.asarray(logprobs, dtype=np.float32),
            finish_reason=sample.finish_reason,
            policy_version=self._policy_version,
            engine=self.name,
        )


def _has_loose(worker: Any) -> bool:
    return bool(loose_tensors(worker.model_runner.model))


def _scheduling(spec: EngineSpec) -> dict[str, Any]:
    """The samples of a prompt are requests of their own, which compute it once: the first fills the cache for the rest.

    On a CPU every prompt must be prefilled in one piece. vLLM rewinds a seeded request's generator after a partial
    prefill, which torch's CPU generator cannot do.
    """
    if torch.cuda.is_available():
        return {"enable_prefix_caching": True, "enable_chunked_prefill": True}
    batched = min(max(_CPU_BATCHED_TOKENS, spec.max_num_seqs * spec.max_model_len), _CPU_BATCHED_TOKENS_LIMIT)
    return {
        "enable_prefix_caching": True,
        "block_size": _CPU_BLOCK,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(batched, spec.max_model_len),
    }
