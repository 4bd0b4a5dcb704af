"""A critique reward model without training: it writes one critique always, and a random head gives the rewards."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForImageTextToText

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.microbatches import Deal, SampleSize, plan_samples
from orchestrator.rewards.critique_judge import CritiqueCache, CritiqueJudge, CritiqueLimits
from orchestrator.tasks.digits_critiques import REQUEST, VOCABULARY
from orchestrator.tasks.digits_model import build_digits_model
from workers.critique_reward import CritiqueRewardSpec, CritiqueRewardWorker
from workers.models.loading import ModelSpec
from workers.models.reward_head import RewardHead, save_reward_head
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.rollout.spec import EngineSpec
from workers.types import Completion, GenerationRequest

CRITIQUE = "the image shows"
CRITIQUE_TOKENS = 4
"""With the end of turn."""
_LOUD = 40.0
_TOKEN_BUDGET = 4096


def write_chained_model(folder: Path, says: str, *, seed: int = 0) -> Path:
    """The digits model with a text that it always writes: each of its words, all different, calls for the next one.

    Only the words before the last have this loud dimension, so that a reward at the end of turn listens to the rest.
    """
    build_digits_model(folder, seed=seed, words=VOCABULARY)
    ids = PromptEncoder(folder).tokenizer.convert_tokens_to_ids(["assistant", *says.split(), "<|im_end|>"])
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    spoken, heard = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    for dimension, (word, following) in enumerate(pairwise(ids)):
        spoken[:, dimension] = 0.0
        heard[:, dimension] = 0.0
        spoken[word, dimension], heard[following, dimension] = _LOUD, 1.0
    model.save_pretrained(folder)
    return folder


def write_critique_model(folder: Path, *, request: str = REQUEST, seed: int = 0) -> Path:
    """The same with a random head."""
    write_chained_model(folder, CRITIQUE, seed=seed)
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    head = RewardHead("linear", model.config.get_text_config().hidden_size)
    torch.nn.init.normal_(head.weight, std=0.2, generator=torch.Generator().manual_seed(seed))
    save_reward_head("linear", dict(head.named_parameters()), folder, request=request)
    return folder


def critique_reward_spec(
    folder: Path,
    *,
    kind: Literal["vllm", "transformers"] = "transformers",
    dtype: Literal["float32", "bfloat16"] = "float32",
    max_images: int = 1,
) -> CritiqueRewardSpec:
    """Engine and model on the whole context of the digits model."""
    encoder = PromptEncoder(folder)
    return CritiqueRewardSpec(
        engine=EngineSpec(
            kind=kind,
            model=ModelSpec(path=str(folder), dtype=dtype, share_prompts=True),
            tensor_parallel_size=1,
            max_model_len=512,
            max_num_seqs=32,
            max_images_per_prompt=max_images,
            gpu_memory_utilization=0.5,
            banned_token_ids=encoder.vision_token_ids,
            stop_token_ids=encoder.eos_token_ids,
            seed=0,
        ),
        timeout_s=60.0,
    )


class WorkersHere:
    """One critique reward worker in this process, laid out in micro-batches as the pool does; counts what it is asked.

    It is a ``CritiqueWorkers``.
    """

    def __init__(self, spec: CritiqueRewardSpec) -> None:
        self.worker = CritiqueRewardWorker(spec=spec, num_threads=2, name="critique_reward-0")
        self.requests: list[GenerationRequest] = []
        self.num_scored = 0

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        """As ``RoleWorkers``."""
        return self._write(items) if method == "write" else self._rewards(items)

    def _write(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        self.requests += requests
        return list(self.worker.write([requests]))

    def _rewards(self, sequences: Sequence[TokenSequence]) -> list[float]:
        self.num_scored += len(sequences)
        sizes = [SampleSize(s.uid, s.prompt_len, len(s.input_ids)) for s in sequences]
        (batches,) = plan_samples(sizes, share_prompts=True, num_ranks=1, token_budget=_TOKEN_BUDGET)
        rewards = self.worker.rewards([[sequences[i] for i in batch] for batch in batches])
        in_order = dict(zip([i for batch in batches for i in batch], rewards, strict=True))
        return [in_order[i] for i in range(len(sequences))]


def judge_of(
    workers: Any, model: Path, cache: CritiqueCache, *, max_new_tokens: int = 8, max_model_len: int = 512
) -> CritiqueJudge:
    """A judge over ``workers`` that spells with the model in ``model``."""
    return CritiqueJudge(
        workers,
        PromptEncoder(model),
        cache,
        request=REQUEST,
        fingerprint="a model",
        limits=CritiqueLimits(max_new_tokens=max_new_tokens, max_model_len=max_model_len),
        deadline_s=60.0,
    )
