"""Feeding prompts to the rollout engines so that none waits for another.

Each engine holds a window of requests; whenever it hands results back, its window is filled from the common queue.
All samples of a prompt go to one engine, which then computes the prompt once. With a single engine the whole batch
is submitted at once, in order, so its scheduling (and with it every bit of its results) is reproducible.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

import ray

from orchestrator.waits import get, waiting
from workers.types import Completion, EncodedPrompt, GenerationRequest

_COLLECT_S = 1.0
_WINDOW_PROMPTS = 64


def build_requests(
    prompts: Iterable[EncodedPrompt],
    *,
    samples_per_prompt: int,
    seed_of: Callable[[str, int], int],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
) -> list[GenerationRequest]:
    """One request per sample, siblings side by side; ``seed_of(uid, sample_index)`` fixes what each will draw."""
    return [
        GenerationRequest(
            uid=prompt.uid,
            sample_index=index,
            engine_prompt_ids=prompt.engine_prompt_ids,
            prompt_ids=prompt.prompt_ids,
            media=prompt.media,
            seed=seed_of(prompt.uid, index),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
        )
        for prompt in prompts
        for index in range(samples_per_prompt)
    ]


def generate(
    engines: Sequence[Any],
    requests: Sequence[GenerationRequest],
    *,
    deadline_s: float,
    on_finished: Callable[[Completion], None] = lambda completion: None,
) -> list[Completion]:
    """Draw every request and return the completions in the order of ``requests``.

    Args:
        engines: Rollout actors.
        deadline_s: Longest time without a single completion, seconds.
        on_finished: Called with each completion as it arrives, so that scoring overlaps generation.
    Raises:
        WaitTimeout: no engine has finished anything within the deadline.
    """
    queue = deque(list(group) for _, group in groupby(requests, key=lambda r: r.uid))
    window = len(queue) if len(engines) == 1 else _WINDOW_PROMPTS
    finished: dict[tuple[str, int], Completion] = {}
    in_flight = [0] * len(engines)
    pending: dict[Any, int] = {}
    with waiting("rollout: completions", deadline_s) as wait:
        for index, engine in enumerate(engines):
            in_flight[index] += _fill(engine, queue, window)
            pending[engine.collect.remote(_COLLECT_S)] = index
        while len(finished) < len(requests):
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=_COLLECT_S)
            for ref in ready:
                index = pending.pop(ref)
                done = get(ref, name=f"rollout: engine {index}", deadline_s=deadline_s)
                in_flight[index] -= len(done)
                if done:
                    wait.progress(f"{len(finished) + len(done)} of {len(requests)}")
                if queue and in_flight[index] * 2 < window:
                    in_flight[index] += _fill(engines[index], queue, window)
                if in_flight[index] or queue:
                    pending[engines[index].collect.remote(_COLLECT_S)] = index
                for completion in done:
                    finished[completion.uid, completion.sample_index] = completion
                    on_finished(completion)
            wait.check()
    return [finished[r.uid, r.sample_index] for r in requests]


def _fill(engine: Any, queue: deque[list[GenerationRequest]], num_groups: int) -> int:
    """Submit up to ``num_groups`` prompt groups; return the number of requests handed over."""
    batch: list[GenerationRequest] = []
    for _ in range(min(num_groups, len(queue))):
        batch.extend(queue.popleft())
    if batch:
        engine.submit.remote(batch)
    return len(batch)
