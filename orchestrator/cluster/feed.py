"""Feeding prompts to the rollout engines so that none waits for another.

Each engine holds a window of requests; whenever it hands results back, its window is filled from the common queue.
All samples of a prompt go to one engine, which then computes the prompt once. With a single engine the whole batch
is submitted at once, in order, so its scheduling (and with it every bit of its results) is reproducible.

What a lost engine had not handed back goes to the front of the queue again, with the same seeds.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from typing import Any, Protocol

import numpy as np

from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.waits import WaitTimeout, WorkerCannotStart, WorkerLost, get, silent_workers, waiting
from orchestrator.errors import GuardStop
from workers.columns import Rows
from workers.types import Completions, EncodedPrompt, GenerationRequest, joined

_COLLECT_S = 1.0
_COLLECTS_AHEAD = 2
_WINDOW_PROMPTS = 64
_LOOK_EVERY_S = 2.0
PROBE_TOKENS = 2
"""Tokens that an engine samples and the trainer scores."""
_PROBE_HEAD, _PROBE_TAIL = 4, 8
PROBE_LENGTH = _PROBE_TAIL + PROBE_TOKENS
"""Tokens by which a probe is at most longer than its prompt."""


class Unwanted(RuntimeError):
    """Nobody wants any more what engines were asked for."""


class EngineKeeper(Protocol):
    """Replaces engines that are lost while they sample."""

    def lost(self, index: int, reason: str) -> None:
        """Start a successor of the engine; it may not sample before it holds verified weights."""
        ...

    def revive(self) -> Mapping[int, Any]:
        """Bring every successor to the weights in use; return all engines by index."""
        ...


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


def off_course(prompt: EncodedPrompt, media_ids: Sequence[int], policy_version: int) -> EncodedPrompt:
    """What proves a sync: what a prompt shows, and words of its own in an order that nobody has learnt to go on from.

    Where a model is certain of what it says, any weights that say the same have the same log-probs. What the prompt
    says of its media is left out: a forward that is longer passes through no other weights.
    """
    words = [i for i in prompt.engine_prompt_ids if i not in media_ids]
    tail = tuple(np.random.Generator(np.random.Philox(policy_version)).choice(words, _PROBE_TAIL).tolist())
    said = _words_at_the_end(prompt, media_ids)
    engine_ids, ids = prompt.engine_prompt_ids, prompt.prompt_ids
    return replace(
        prompt, engine_prompt_ids=engine_ids[: len(engine_ids) - said] + tail, prompt_ids=ids[: len(ids) - said] + tail
    )


def _words_at_the_end(prompt: EncodedPrompt, media_ids: Sequence[int]) -> int:
    """How many tokens both spellings end in that stand for no media, but for the prompt's first few."""
    both = zip(reversed(prompt.engine_prompt_ids), reversed(prompt.prompt_ids), strict=False)
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1] and pair[0] not in media_ids, both))
    return min(alike, max(0, len(prompt.engine_prompt_ids) - _PROBE_HEAD))


def window_prompts(num_prompts: int, *, num_engines: int) -> int:
    """Prompts that an engine is handed at a time: no more than its share, or the last engines would have none."""
    if num_engines == 1:
        return num_prompts
    return max(1, min(_WINDOW_PROMPTS, -(-num_prompts // max(1, num_engines))))


def engine_name(index: int) -> str:
    """The name under which an engine reports its health."""
    return f"rollout-{index}"


def generate(
    engines: Mapping[int, Any],
    requests: Sequence[GenerationRequest],
    *,
    deadline_s: float,
    on_finished: Callable[[Completions], None] = lambda arrived: None,
    keeper: EngineKeeper | None = None,
    is_wanted: Callable[[], bool] = lambda: True,
) -> Completions:
    """Draw every request and return the completions in the order of ``requests``, each behind its prompt.

    Args:
        engines: Rollout actors by their index.
        deadline_s: Longest time without a single completion, seconds.
        on_finished: Called with what an engine hands over, as it arrives, so that scoring overlaps generation.
        keeper: Takes care of engines that are lost; the rest go on without them. None lets the loss surface.
        is_wanted: Asked every second or so; once it says no, engines that hold requests are given up too.
    Raises:
        Unwanted: ``is_wanted`` has said no.
        WorkerLost: an engine died, fell silent or ran out of time, and there is no keeper.
        GuardStop: a prompt has taken two engines down.
    """
    feed = _Feed(engines, requests, deadline_s)
    parts: list[Completions] = []
    finished = 0
    with waiting("rollout: completions", deadline_s) as wait:
        while finished < len(requests):
            arrived, lost = feed.collect()
            for part in arrived:
                parts.append(part)
                finished += len(part)
                on_finished(part)
            if arrived:
                wait.progress(f"{finished} of {len(requests)}")
            try:
                wait.check()
            except WaitTimeout as error:
                lost |= dict.fromkeys(feed.busy(), str(error))
                wait.progress(f"{finished} of {len(requests)}")
            if not is_wanted():
                lost |= dict.fromkeys(feed.busy(), "nobody wants what it samples")
            for index, reason in lost.items():
                if keeper is None:
                    raise WorkerLost([engine_name(index)], reason)
                feed.drop(index, reason)
                keeper.lost(index, reason)
            if not is_wanted():
                raise Unwanted
            if keeper is not None and not feed.engines:
                feed.engines = dict(keeper.revive())
                wait.progress(f"{finished} of {len(requests)}")
    return joined(parts, ((r.uid, r.sample_index) for r in requests), _prompts(requests))


def with_their_prompts(requests: Sequence[GenerationRequest], completions: Completions) -> Completions:
    """The same, each behind its prompt as the model's forward sees it; those that are there already as they are."""
    if completions.prompt_lens == [len(r.prompt_ids) for r in requests]:
        return completions
    return completions.behind(_prompts(requests))


def completion_sequences(requests: Sequence[GenerationRequest], completions: Completions) -> list[TokenSequence]:
    """Join prompts, as the model's forward sees them, with the ids sampled for them: int32 views of one array."""
    rows, _ = with_their_prompts(requests, completions).with_prompts()
    return [
        TokenSequence(
            uid=request.uid,
            sample_index=request.sample_index,
            input_ids=row,
            prompt_len=len(request.prompt_ids),
            media=request.media,
        )
        for request, row in zip(requests, rows, strict=True)
    ]


def _prompts(requests: Sequence[GenerationRequest]) -> list[np.ndarray]:
    """Of each as the model's forward sees it, int32 ``[P]``; one array for all samples of a prompt."""
    spelled = {id(r.prompt_ids): r.prompt_ids for r in requests}
    arrays = {key: np.asarray(ids, np.int32) for key, ids in spelled.items()}
    return [arrays[id(r.prompt_ids)] for r in requests]


class _Feed:
    """Which prompts wait, and which engine holds which requests."""

    def __init__(self, engines: Mapping[int, Any], requests: Sequence[GenerationRequest], deadline_s: float) -> None:
        self.engines = dict(engines)
        self._deadline_s = deadline_s
        self._queue = deque(list(group) for _, group in groupby(requests, key=lambda r: r.uid))
        self._window = window_prompts(len(self._queue), num_engines=len(engines))
        self._samples = len(requests) / max(1, len(self._queue))
        self._held: dict[int, dict[tuple[str, int], GenerationRequest]] = {}
        self._collecting: dict[Any, int] = {}
        self._asked: Counter[int] = Counter()
        self._reissued: set[str] = set()
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def busy(self) -> list[int]:
        """Engines that hold requests."""
        return [index for index in self.engines if self._held.get(index)]

    def collect(self) -> tuple[list[Completions], dict[int, str]]:
        """Keep every engine fed and wait a moment; return what arrived, and the engines that are lost, with why."""
        import ray  # deferred: how long a probe is, is asked without

        for index in self.engines:
            self._fill(index)
        asked = list(self._collecting)
        ray.wait(asked, num_returns=1, timeout=_COLLECT_S)
        # All that is ready: ray.wait does not pick in turn, and with many engines one's results could wait for ever.
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=0)
        arrived: list[Completions] = []
        lost: dict[int, str] = {}
        for ref in ready:
            index = self._collecting.pop(ref)
            self._asked[index] -= 1
            name = engine_name(index)
            try:
                done = get(ref, name=f"rollout: engine {index}", deadline_s=self._deadline_s, workers=[name])
            except WorkerCannotStart:
                raise
            except WorkerLost as error:
                lost[index] = error.reason
                continue
            for key in done.keys:
                del self._held[index][key]
            arrived += [done] if done else []
        if time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + _LOOK_EVERY_S
            by_name = {engine_name(index): index for index in self.busy()}
            lost |= {by_name[name]: reason for name, reason in silent_workers(list(by_name)).items()}
        return arrived, lost

    def drop(self, index: int, reason: str) -> None:
        """Forget a lost engine and put what it still held at the front of the queue.

        Raises:
            GuardStop: it held a prompt that another lost engine held before.
        """
        del self.engines[index]
        self._collecting = {ref: i for ref, i in self._collecting.items() if i != index}
        self._asked[index] = 0
        held = list(self._held.pop(index, {}).values())
        again = sorted({r.uid for r in held} & self._reissued)
        if again:
            raise GuardStop(f"prompt {again[0]} was being sampled on two engines when they were lost, now: {reason}")
        self._reissued |= {r.uid for r in held}
        self._queue.extendleft(reversed([list(group) for _, group in groupby(held, key=lambda r: r.uid)]))

    def _fill(self, index: int) -> None:
        held = self._held.setdefault(index, {})
        batch: list[GenerationRequest] = []
        if len(held) * 2 < self._window * self._samples:  # half of a window's prompts
            for _ in range(min(self._window, len(self._queue))):
                batch.extend(self._queue.popleft())
        if batch:
            self.engines[index].submit.remote(Rows(batch))
            held |= {(r.uid, r.sample_index): r for r in batch}
        # One more than runs, so that the engine goes straight on while the driver reads the last results.
        while held and self._asked[index] < _COLLECTS_AHEAD:
            self._collecting[self.engines[index].collect.remote(_COLLECT_S)] = index
            self._asked[index] += 1
