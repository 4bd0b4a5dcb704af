"""An encoder whose ids are the numbers of characters, and engines that answer in words to what they read."""

from collections.abc import Callable, Sequence

import numpy as np

from workers.types import Completion, EncodedPrompt, GenerationRequest, Prompt, UnusablePrompt


class Letters:
    """Ids are the numbers of characters, an image is one id."""

    def encode(self, prompt: Prompt) -> EncodedPrompt:
        parts = [part for turn in prompt.messages for part in turn["content"]]
        text = "".join("\x00" if part["type"] == "image" else part["text"] for part in parts)
        if "unusable" in text:
            raise UnusablePrompt(prompt.uid, "the chat template does not take it")
        ids = tuple(map(ord, text))
        return EncodedPrompt(uid=prompt.uid, engine_prompt_ids=ids, prompt_ids=ids, media=prompt.media)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return "".join(map(chr, ids))


def letter_sampler(
    says: Callable[[str, GenerationRequest], str], seen: list[GenerationRequest] | None = None
) -> Callable[[Sequence[GenerationRequest]], list[Completion]]:
    """Engines that answer in words to what they are asked in words."""

    def sample(requests: Sequence[GenerationRequest]) -> list[Completion]:
        if seen is not None:
            seen.extend(requests)
        texts = [says("".join(map(chr, request.engine_prompt_ids)), request) for request in requests]
        return [
            Completion(
                uid=request.uid,
                sample_index=request.sample_index,
                completion_ids=np.array(list(map(ord, text)), dtype=np.int32),
                rollout_logprobs=np.zeros(len(text), dtype=np.float32),
                finish_reason="stop",
                policy_version=0,
                engine="e",
            )
            for request, text in zip(requests, texts, strict=True)
        ]

    return sample
