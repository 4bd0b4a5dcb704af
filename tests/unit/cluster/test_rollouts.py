"""Feeding engines, without a cluster: Ray's ``wait`` and ``get`` are replaced."""

from typing import Any

import numpy as np
import pytest
import ray

from orchestrator.cluster.feed import Unwanted, build_requests, generate
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest


class _Method:
    def __init__(self, call: Any) -> None:
        self.remote = lambda *args: _Ref(call(*args))


class _Ref:
    def __init__(self, value: Any) -> None:
        self.value = value


class _Engine:
    """Has everything finished by the time it is asked."""

    def __init__(self) -> None:
        self._held: list[GenerationRequest] = []
        self.submit, self.collect = _Method(self._held.extend), _Method(self._collect)

    def _collect(self, max_wait_s: float) -> Completions:
        held, self._held[:] = self._held[:], []
        return Completions.of(_completion(r) for r in held)


def _completion(request: GenerationRequest) -> Completion:
    return Completion(
        uid=request.uid,
        sample_index=request.sample_index,
        completion_ids=np.array([request.seed], np.int32),
        rollout_logprobs=np.zeros(1, np.float32),
        finish_reason="stop",
        policy_version=0,
        engine="fake",
    )


def test_no_engine_is_kept_waiting_by_others_that_are_always_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def newest_first(refs: list[Any], *, num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        """``ray.wait`` may choose among what is ready as it likes."""
        return refs[-num_returns:], refs[:-num_returns]

    monkeypatch.setattr(ray, "wait", newest_first)
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref.value)
    prompts = [EncodedPrompt(uid=f"p{i}", engine_prompt_ids=(1,), prompt_ids=(1,), media=()) for i in range(200)]
    requests = build_requests(
        prompts, samples_per_prompt=2, seed_of=lambda uid, i: i, max_new_tokens=1, temperature=1.0, top_p=1.0
    )
    engines = {index: _Engine() for index in range(3)}
    done = generate(engines, requests, deadline_s=1.0)
    assert [(c.uid, c.sample_index) for c in done] == [(r.uid, r.sample_index) for r in requests]


def test_fewer_prompts_than_windows_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "wait", lambda refs, *, num_returns, timeout: (refs[:num_returns], refs[num_returns:]))
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref.value)
    asked = dict.fromkeys(range(8), 0)

    class Counted(_Engine):
        def __init__(self, index: int) -> None:
            super().__init__()
            extend = self._held.extend

            def submit(batch: list[GenerationRequest]) -> None:
                asked[index] += len(batch)
                extend(batch)

            self.submit = _Method(submit)

    prompts = [EncodedPrompt(uid=f"p{i}", engine_prompt_ids=(1,), prompt_ids=(1,), media=()) for i in range(60)]
    requests = build_requests(
        prompts, samples_per_prompt=2, seed_of=lambda uid, i: i, max_new_tokens=1, temperature=1.0, top_p=1.0
    )
    generate({index: Counted(index) for index in asked}, requests, deadline_s=1.0)
    assert sum(asked.values()) == 120
    assert min(asked.values()) >= 8


def test_an_engine_is_refilled_when_half_of_its_prompts_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 64 prompts is 512 requests at 8 samples each: the next comes while 255 run, and not when 31 do."""
    monkeypatch.setattr(ray, "wait", lambda refs, *, num_returns, timeout: (refs[:num_returns], refs[num_returns:]))
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref.value)
    held_at_refill: list[int] = []

    class OneByOne(_Engine):
        def __init__(self) -> None:
            super().__init__()
            self.submit = _Method(self._submit)

        def _submit(self, batch: list[GenerationRequest]) -> None:
            held_at_refill.append(len(self._held))
            self._held.extend(batch)

        def _collect(self, max_wait_s: float) -> Completions:
            return Completions.of(_completion(self._held.pop(0)) for _ in range(min(1, len(self._held))))

    prompts = [EncodedPrompt(uid=f"p{i}", engine_prompt_ids=(1,), prompt_ids=(1,), media=()) for i in range(256)]
    requests = build_requests(
        prompts, samples_per_prompt=8, seed_of=lambda uid, i: i, max_new_tokens=1, temperature=1.0, top_p=1.0
    )
    generate({0: OneByOne(), 1: OneByOne()}, requests, deadline_s=1.0)
    first, later = held_at_refill[:2], held_at_refill[2:]
    assert first == [0, 0] and later
    assert min(later) >= 250  # as many as there were, but for those on their way


def test_what_nobody_wants_any_more_is_given_up_with_the_engines_that_are_at_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "wait", lambda refs, *, num_returns, timeout: (refs[:num_returns], refs[num_returns:]))
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref.value)
    prompts = [EncodedPrompt(uid=f"p{i}", engine_prompt_ids=(1,), prompt_ids=(1,), media=()) for i in range(4)]
    requests = build_requests(
        prompts, samples_per_prompt=1, seed_of=lambda uid, i: i, max_new_tokens=1, temperature=1.0, top_p=1.0
    )

    class Slow(_Engine):
        def _collect(self, max_wait_s: float) -> Completions:
            return Completions.of([])

    lost, looks = dict[int, str](), list[int]()

    class Keeper:
        def lost(self, index: int, reason: str) -> None:
            lost[index] = reason

        def revive(self) -> dict[int, Any]:
            raise AssertionError("nobody wants them")

    def is_wanted() -> bool:
        looks.append(0)
        return len(looks) < 3

    with pytest.raises(Unwanted):
        generate({0: Slow(), 1: _Engine()}, requests, deadline_s=60.0, keeper=Keeper(), is_wanted=is_wanted)
    assert list(lost) == [0] and "nobody wants" in lost[0]
