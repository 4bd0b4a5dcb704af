"""The proof of a sync, without a cluster: all engines are asked before one is waited for, and scored in one call."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ray
import ray.exceptions

from algorithms.records import MediaRef
from orchestrator.cluster.feed import PROBE_LENGTH, off_course
from orchestrator.cluster.sync import WeightSync
from workers.types import Completion, Completions, EncodedPrompt, GenerationRequest

_IMAGE = 5000
_PROBE = [EncodedPrompt(uid="p", engine_prompt_ids=(1, 2), prompt_ids=(1, 2), media=())]
_WRONG_WEIGHTS, _WRONG_VERSION, _LOST = 3, 5, 7


class _Pool:
    """Sixty-four engines, all of which answer right but three."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.scored: list[Any] = []
        self.actors = [SimpleNamespace(answer=SimpleNamespace(remote=self._asked(index))) for index in range(64)]
        self.engine_spec = SimpleNamespace(banned_token_ids=(), sync_backend="shared_memory")

    def role(self, name: str) -> "_Pool":
        return self

    def shared(self, method: str, **options: Any) -> None:
        self.log.append(method)

    def each(self, method: str, items: list[Any], **options: Any) -> list[np.ndarray]:
        self.log.append("scored")
        self.scored = items
        return [np.full(len(s.input_ids), -1.0, np.float32) for s in items]

    def _asked(self, index: int) -> Callable[[list[GenerationRequest]], Callable[[], Completions]]:
        def ask(requests: list[GenerationRequest]) -> Callable[[], Completions]:
            self.log.append("asked")
            return lambda: self._said(index, requests)

        return ask

    def _said(self, index: int, requests: list[GenerationRequest]) -> Completions:
        self.log.append("waited")
        if index == _LOST:
            raise ray.exceptions.RayActorError
        return Completions.of(
            Completion(
                uid=r.uid,
                sample_index=0,
                completion_ids=np.array([8, 9 if index == _WRONG_WEIGHTS else 4], np.int32),
                rollout_logprobs=np.full(2, -1.5 if index == _WRONG_WEIGHTS else -1.0, np.float32),
                finish_reason="length",
                policy_version=0 if index == _WRONG_VERSION else 1,
                engine=f"engine-{index}",
            )
            for r in requests
        )


def test_all_engines_are_proven_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: ref())
    pool: Any = _Pool()
    sync = WeightSync(pool, run_id="proof", tolerance=0.1, deadline_s=1.0)
    faults, gap = sync._prove(range(64), 1, _PROBE)
    assert pool.log == ["asked"] * 64 + ["waited"] * 64 + ["scored"]
    assert sorted(faults) == [_WRONG_WEIGHTS, _WRONG_VERSION, _LOST]
    assert gap == np.inf
    assert "differ from the trainer's by 0.5 (limit 0.1)" in str(faults[_WRONG_WEIGHTS])
    assert "differ from the trainer's by inf" in str(faults[_WRONG_VERSION])
    assert len(pool.scored) == 2, "what engines say alike is scored once"
    well = [i for i in range(64) if i not in faults]
    assert sync._prove(well, 1, _PROBE) == ({}, 0.0) and len(pool.scored) == 1


@pytest.mark.parametrize(("backend", "asked"), [("shared_memory", []), ("nccl", ["send"]), ("ipc", ["release"])])
def test_the_policy_is_asked_for_what_a_transport_needs_of_it_and_no_more(
    monkeypatch: pytest.MonkeyPatch, backend: str, asked: list[str]
) -> None:
    monkeypatch.setattr(ray, "get", lambda ref, *, timeout: None)
    pool: Any = _Pool()
    pool.engine_spec.sync_backend = backend
    pool.actors = [SimpleNamespace(load_weights=SimpleNamespace(remote=lambda manifest: None))]
    manifest: Any = None
    assert WeightSync(pool, run_id="transfer", tolerance=0.1, deadline_s=1.0)._transfer(manifest, [0]) == {}
    assert pool.log == asked


def _shown(before: int, images: int, after: int) -> EncodedPrompt:
    """Words, images of three features each, and words."""
    text = tuple(range(before)), tuple(range(before, before + after))
    media = tuple(MediaRef(sha256="ab", path="a.png", width=1, height=1) for _ in range(images))
    return EncodedPrompt(
        uid="p",
        engine_prompt_ids=(*text[0], *([_IMAGE] * images), *text[1]),
        prompt_ids=(*text[0], *([_IMAGE] * 3 * images), *text[1]),
        media=media,
    )


def test_a_probe_is_what_its_prompt_shows_and_words_of_it() -> None:
    short, long = (off_course(_shown(5, 2, after), [_IMAGE], 1) for after in (10, 1000))
    for probe in (short, long):
        tail = probe.prompt_ids[5 + 6 :]
        assert probe.prompt_ids == (*range(5), *[_IMAGE] * 6, *tail)
        assert probe.engine_prompt_ids == (*range(5), _IMAGE, _IMAGE, *tail)
        assert 0 < len(tail) < PROBE_LENGTH and _IMAGE not in tail
    assert off_course(_shown(5, 2, 10), [_IMAGE], 2).prompt_ids != short.prompt_ids, "every version its own words"
    assert len(off_course(_shown(0, 1, 3), [_IMAGE], 1).prompt_ids) <= 6 + PROBE_LENGTH


def test_a_probe_of_a_prompt_without_media_begins_as_it_does_and_is_no_longer() -> None:
    for length in (2, 7, 1000):
        prompt = _shown(length, 0, 0)
        probe = off_course(prompt, [_IMAGE], 1)
        assert probe.prompt_ids == probe.engine_prompt_ids
        assert probe.prompt_ids[: min(2, length)] == prompt.prompt_ids[:2]
        assert len(probe.prompt_ids) < min(length, 8) + PROBE_LENGTH
