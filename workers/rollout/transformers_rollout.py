"""transformers' ``generate`` as a rollout engine, for machines without vLLM.

What is done to logits stands in the request; of the folder's ``generation_config.json`` nothing counts. Sampling is
greedy decoding over logits plus Gumbel noise. The noise of row i comes from a generator of its own, seeded by the
request, so a sample depends neither on its neighbours nor on the order of submission.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from algorithms.records import MediaRef
from algorithms.records import Sequence as TokenSequence
from workers.models.loading import load_model, released_tensors
from workers.models.policy_module import forget_generation_settings, generate
from workers.multimodal.collate import Collator
from workers.rollout.sleep import SleepCycle
from workers.rollout.spec import EngineSpec
from workers.types import Completion, Completions, FinishReason, GenerationRequest
from workers.weight_sync.manifest import NameLedger, SyncError, WeightManifest, tensor_digest
from workers.weight_sync.shared_memory import WeightReader


class TransformersEngine:
    """Generates in batches of at most ``max_num_seqs`` rows of equal prompt length (no padding on the left)."""

    def __init__(self, name: str, spec: EngineSpec) -> None:
        self.name = name
        self._spec = spec
        self._policy_version = -1
        self._queue: list[GenerationRequest] = []
        self._ledger = NameLedger()
        self._reader = WeightReader()
        self._model, adapter = load_model(spec.model)
        forget_generation_settings(self._model)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.to(self._device)
        self._collate = Collator.of(spec.model, share_prompts=False)
        self._cycle = SleepCycle("asleep" if spec.shares_device else "awake")
        self._parameters = released_tensors(self._model, adapter)

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue requests in the given order."""
        self._queue.extend(requests)

    def collect(self, max_wait_s: float) -> Completions:
        """Generate the next batch: the queue's head and the requests that can share its batch."""
        self._cycle.require("awake", "sample")
        if not self._queue:
            return Completions.of([])
        head = self._queue[0]
        batch = [r for r in self._queue if _can_share(r, head)][: self._spec.max_num_seqs]
        taken = {(r.uid, r.sample_index) for r in batch}
        self._queue = [r for r in self._queue if (r.uid, r.sample_index) not in taken]
        return Completions.of(self._generate(batch))

    def connect(self, *, address: str, port: int, rank_offset: int, group_size: int) -> None:
        """Refuse: this engine reads shared memory only."""
        raise SyncError(f"engine {self.name} (transformers) receives weights through shared memory only")

    def load_weights(self, manifest: WeightManifest) -> None:
        """Copy published weights into the model."""
        self._ledger.check(manifest)
        weights = dict(self._reader.read(manifest.path, manifest.digests, manifest.dtypes, manifest.shapes))
        unknown = sorted(set(weights) - set(self._parameters))
        absent = sorted(set(self._parameters) - set(weights)) if manifest.full else []
        if unknown or absent:
            raise SyncError(f"engine {self.name}: unknown tensors {unknown[:3]}, tensors not sent {absent[:3]}")
        with torch.no_grad():
            for name, tensor in weights.items():
                self._parameters[name].copy_(tensor)
        self._collate.forget_untouched()
        self._policy_version = manifest.policy_version

    def sleep(self) -> None:
        """Give the allocator's spare memory back; the weights, which are all there is, stay."""
        if self._cycle.sleep() and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def wake_weights(self) -> None:
        """They are there."""
        self._cycle.wake_weights()

    def wake_cache(self) -> None:
        """There is none between batches."""
        self._cycle.wake_cache()

    def reset_caches(self) -> None:
        """Nothing is kept between batches but processed pixels, which no weight has touched."""

    def checksums(self) -> dict[str, str]:
        """Digest of every parameter."""
        return {name: tensor_digest(p) for name, p in self._parameters.items()}

    def _generate(self, batch: list[GenerationRequest]) -> list[Completion]:
        prompts = [_prompt_sequence(r.uid, r.prompt_ids, r.media) for r in batch]
        inputs = self._collate(prompts)
        sampler = _SeededSampler(batch, self._spec.banned_token_ids)
        with torch.no_grad():
            out = generate(
                self._model,
                {key: value.to(self._device) for key, value in inputs.mm_inputs.items()},
                input_ids=inputs.input_ids.to(self._device),
                attention_mask=inputs.attention_mask.long().to(self._device),
                generation_config=GenerationConfig(
                    max_new_tokens=batch[0].max_new_tokens,
                    do_sample=False,
                    num_beams=1,
                    eos_token_id=list(self._spec.stop_token_ids),
                    pad_token_id=self._spec.stop_token_ids[0],
                    return_dict_in_generate=True,
                ),
                logits_processor=LogitsProcessorList([sampler]),
            )
        new_ids = out.sequences[:, inputs.input_ids.shape[1] :].cpu()
        chosen = torch.stack(sampler.logprobs, dim=1)
        return [self._completion(r, new_ids[i].tolist(), chosen[i].tolist()) for i, r in enumerate(batch)]

    def _completion(self, request: GenerationRequest, ids: list[int], logprobs: list[float]) -> Completion:
        stops = [i for i, token in enumerate(ids) if token in self._spec.stop_token_ids]
        end = stops[0] + 1 if stops else len(ids)
        reason: FinishReason = "stop" if stops else "length"
        return Completion(
            uid=request.uid,
            sample_index=request.sample_index,
            completion_ids=np.asarray(ids[:end], dtype=np.int32),
            rollout_logprobs=np.asarray(logprobs[:end], dtype=np.float32),
            finish_reason=reason,
            policy_version=self._policy_version,
            engine=self.name,
        )


class _SeededSampler(LogitsProcessor):
    """Turns greedy decoding into per-row seeded sampling (Gumbel-max), with nucleus truncation and banned ids."""

    def __init__(self, batch: Sequence[GenerationRequest], banned: tuple[int, ...]) -> None:
        self._temperature = batch[0].temperature
        self._top_p = batch[0].top_p
        self._banned = list(banned)
        self._generators = [np.random.Generator(np.random.Philox(r.seed)) for r in batch]
        self.logprobs: list[Tensor] = []
        """For each step float32 ``[B]``: of what every row chose, in the distribution that it chose from."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        scores = scores.float().clone()
        scores[:, self._banned] = float("-inf")
        noisy = scores
        if self._temperature > 0:
            scores = _nucleus(scores / self._temperature, self._top_p)
            noise = np.stack([g.gumbel(size=scores.shape[1]) for g in self._generators])
            noisy = scores + torch.from_numpy(noise).to(scores)
        chosen = noisy.argmax(dim=-1, keepdim=True)
        self.logprobs.append(scores.log_softmax(dim=-1).gather(-1, chosen)[:, 0].cpu())
        return noisy


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keep, per row, the smallest set of tokens whose probability reaches ``top_p``."""
    if top_p >= 1:
        return scores
    ordered, index = scores.sort(dim=-1, descending=True)
    before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
    drop = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, index, before >= top_p)
    return scores.masked_fill(drop, float("-inf"))


def _can_share(request: GenerationRequest, head: GenerationRequest) -> bool:
    """Rows of one batch have equal prompt length and equal sampling settings."""
    return (len(request.prompt_ids), request.max_new_tokens, request.temperature, request.top_p) == (
        len(head.prompt_ids),
        head.max_new_tokens,
        head.temperature,
        head.top_p,
    )


def _prompt_sequence(uid: str, prompt_ids: tuple[int, ...], media: tuple[MediaRef, ...]) -> TokenSequence:
    ids = np.asarray(prompt_ids, dtype=np.int64)
    return TokenSequence(uid=uid, sample_index=0, input_ids=ids, prompt_len=len(ids), media=media)
