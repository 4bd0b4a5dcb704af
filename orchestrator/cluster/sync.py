"""A weight sync is verified or it did not happen.

publish ─► every engine loads, checks names and digests, resets its caches
        ─► engines hold the same tensors as each other
        ─► each engine answers probe prompts (with images it has already seen); the trainer scores the same ids;
           the log-probs must agree
an engine that fails any of these is re-synced once with all weights, then replaced (again, if it is lost again);
then the run ends
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from algorithms.records import SamplingDistribution
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.feed import (
    PROBE_TOKENS,
    build_requests,
    completion_sequences,
    engine_name,
    off_course,
)
from orchestrator.cluster.pool import WorkerPool
from orchestrator.cluster.waits import WorkerCannotStart, WorkerFailed, WorkerLost, get, last_words
from orchestrator.errors import GuardStop
from workers.types import Completions, EncodedPrompt, GenerationRequest
from workers.weight_sync.manifest import SyncError, WeightManifest, joined

_log = logging.getLogger(__name__)
_PAUSE_S = 5.0
Faults = dict[int, Exception]
"""What is wrong with each engine that is not well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncResult:
    """What one verified sync measured."""

    policy_version: int
    seconds: float
    digest: str
    probe_gap: float
    """Largest absolute difference between an engine's and the trainer's probe log-probs, nats."""
    transfer_s: float = 0.0
    """Part of ``seconds`` in which weights were announced, hashed and moved; the rest is the proof."""
    faults: tuple[str, ...] = ()
    """Why engines needed a second transfer or a restart; empty for a clean sync."""


class WeightSync:
    """Carries the policy to every engine and proves that it arrived."""

    def __init__(
        self,
        pool: WorkerPool,
        *,
        run_id: str,
        tolerance: float,
        deadline_s: float,
        sampling: SamplingDistribution | None = None,
    ) -> None:
        """
        Args:
            sampling: What the run samples from, probes too; None = at temperature 1.
        """
        self._pool, self._run_id = pool, run_id
        self._sampling = sampling or SamplingDistribution(banned_ids=pool.engine_spec.banned_token_ids)
        self._backend = pool.engine_spec.sync_backend
        self._tolerance, self._deadline_s = tolerance, deadline_s
        self._needs_full = True
        self._open = False
        self._transfer_s = 0.0

    def sync(self, policy_version: int, probe: Sequence[EncodedPrompt]) -> SyncResult:
        """Bring every engine to ``policy_version`` and verify it.

        Raises:
            GuardStop: an engine could not be brought to the right weights; the sentence names it and why.
            WorkerCannotStart: an engine never started.
        """
        started, self._transfer_s = time.monotonic(), 0.0
        if not self._open:
            self._connect()
        manifest = self._publish(policy_version, full=self._needs_full)
        faults, gap = self._attempt(manifest, range(len(self._engines)), probe)
        for index, fault in faults.items():
            # One that came after another may have met what that one left behind.
            if isinstance(fault, WorkerCannotStart) and index not in self._pool.role("rollout").replaced:
                raise fault
        history = _told(faults)
        for repair in (self._resync, self._replace, self._replace_again, self._replace_again):
            if faults:
                faults, gap = repair(policy_version, faults, probe)
                history += _told(faults)
        if faults:
            for fault in faults.values():
                _log.error("weight sync %d: %s", policy_version, getattr(fault, "told", "") or fault)
            raise GuardStop(f"weight sync {policy_version}: could not be verified: {_told(faults)[0]}")
        self._needs_full = False
        return SyncResult(
            policy_version=policy_version,
            seconds=time.monotonic() - started,
            transfer_s=self._transfer_s,
            digest=manifest.digest,
            probe_gap=gap,
            faults=tuple(history),
        )

    def require_full(self) -> None:
        """A new engine is about to join: the next sync must carry every tensor, and a broadcast group form again."""
        self._needs_full = True
        self._open = self._open and self._backend != "nccl"

    @property
    def _engines(self) -> list[Any]:
        return self._pool.role("rollout").actors

    def _connect(self) -> None:
        """Open the policy's side of the transport; for NCCL every engine worker joins one group with rank 0."""
        policy, width = self._pool.role("policy"), self._pool.engine_spec.tensor_parallel_size
        size = 1 + width * len(self._engines)
        address, port = get(
            policy.actors[0].rendezvous.remote(),
            name="sync: rendezvous",
            deadline_s=self._deadline_s,
            workers=["policy-0"],
        )
        joining = []
        if self._backend == "nccl":
            joining = [
                engine.connect.remote(address=address, port=port, rank_offset=1 + width * i, group_size=size)
                for i, engine in enumerate(self._engines)
            ]
        policy.shared(
            "open_sender",
            backend=self._backend,
            run_id=self._run_id,
            address=address,
            port=port,
            group_size=size,
            deadline_s=self._deadline_s,
        )
        names = [engine_name(i) for i in range(len(joining))]
        get(joining, name="sync: engines join", deadline_s=self._deadline_s, workers=names)
        self._open = True

    def _publish(self, policy_version: int, *, full: bool) -> WeightManifest:
        started = time.monotonic()
        manifests = self._pool.role("policy").shared(
            "publish", policy_version=policy_version, full=full, deadline_s=self._deadline_s
        )
        self._transfer_s += time.monotonic() - started
        return joined(manifests)

    def _resync(self, policy_version: int, faults: Faults, probe: Sequence[EncodedPrompt]) -> tuple[Faults, float]:
        return self._attempt(self._publish(policy_version, full=True), sorted(faults), probe)

    def _replace(self, policy_version: int, faults: Faults, probe: Sequence[EncodedPrompt]) -> tuple[Faults, float]:
        for index in sorted(faults):
            self._pool.role("rollout").replace(index)
        self._connect()
        return self._resync(policy_version, faults, probe)

    def _replace_again(
        self, policy_version: int, faults: Faults, probe: Sequence[EncodedPrompt]
    ) -> tuple[Faults, float]:
        """Only an engine that was lost: it can have been placed on a node whose death was not known yet."""
        if not all(isinstance(fault, WorkerLost) for fault in faults.values()):
            return faults, 0.0
        time.sleep(_PAUSE_S)
        return self._replace(policy_version, faults, probe)

    def _attempt(
        self, manifest: WeightManifest, indices: Sequence[int], probe: Sequence[EncodedPrompt]
    ) -> tuple[Faults, float]:
        """Transfer and verify; return the reason of each engine that failed and the probe gap of the rest."""
        faults = self._transfer(manifest, indices)
        well = sorted(set(indices) - set(faults))
        if len(well) > 1:
            faults |= self._disagreeing(well)
        wrong, gap = self._prove(sorted(set(well) - set(faults)), manifest.policy_version, probe)
        return faults | wrong, gap

    def _transfer(self, manifest: WeightManifest, indices: Sequence[int]) -> Faults:
        """Move the weights; return the reason of each engine that could not take them."""
        started = time.monotonic()
        # A broadcast needs every member of its group, also the engines that are well.
        loading = range(len(self._engines)) if self._backend == "nccl" else indices
        refs = {i: self._engines[i].load_weights.remote(manifest) for i in loading}
        if self._backend == "nccl":
            self._pool.role("policy").shared("send", deadline_s=self._deadline_s)
        faults = self._answers(refs, "load")[1]
        if self._backend == "ipc":
            self._pool.role("policy").shared("release", deadline_s=self._deadline_s)
        self._transfer_s += time.monotonic() - started
        return faults

    def _disagreeing(self, indices: Sequence[int]) -> Faults:
        """Engines that hold other tensors than their peers."""
        refs = {i: self._engines[i].checksums.remote() for i in indices}
        held, faults = self._answers(refs, "checksums")
        return faults | {index: SyncError(reason) for index, reason in disagreeing(held).items()}

    def _answers(self, refs: dict[int, Any], what: str) -> tuple[dict[int, Any], Faults]:
        """What each engine says, or what became of it."""
        answers: dict[int, Any] = {}
        faults: Faults = {}
        for index, ref in refs.items():
            name = f"sync: engine {index}: {what}"
            try:
                answers[index] = get(ref, name=name, deadline_s=self._deadline_s, workers=[engine_name(index)])
            except (WorkerLost, WorkerFailed) as error:
                faults[index] = error
        return answers, faults

    def _prove(
        self, indices: Sequence[int], policy_version: int, probe: Sequence[EncodedPrompt]
    ) -> tuple[Faults, float]:
        """Ask all engines at once; return the reason of each that is off, and the largest gap of the others."""
        requests = build_requests(
            [off_course(p, self._sampling.banned_ids, policy_version) for p in probe],
            samples_per_prompt=1,
            seed_of=lambda uid, index: 0,
            max_new_tokens=PROBE_TOKENS,
            temperature=self._sampling.temperature,
            top_p=1.0,
        )
        refs = {i: self._engines[i].answer.remote(requests) for i in indices}
        answers, faults = self._answers(refs, "probe")
        gaps = self._gaps(requests, answers, policy_version)
        for index, gap in gaps.items():
            if not gap <= self._tolerance:
                faults[index] = SyncError(
                    f"probe log-probs differ from the trainer's by {gap:.3g} (limit {self._tolerance:g})"
                )
        return faults, max(gaps.values(), default=0.0)

    def _gaps(
        self, requests: Sequence[GenerationRequest], answers: dict[int, Completions], policy_version: int
    ) -> dict[int, float]:
        """Of each engine that answered, nats; infinite where it answers for another version."""
        gaps = {i: 0.0 if all(c.policy_version == policy_version for c in a) else np.inf for i, a in answers.items()}
        # Engines that hold the same weights say the same, which is scored once.
        told: dict[tuple[str, bytes], TokenSequence] = {}
        said = {
            index: [
                ((s.uid, s.input_ids.tobytes()), s, c.rollout_logprobs)
                for s, c in zip(completion_sequences(requests, answers[index]), answers[index], strict=True)
            ]
            for index, gap in gaps.items()
            if gap == 0.0
        }
        for key, sequence, _ in chain.from_iterable(said.values()):
            told.setdefault(key, sequence)
        if not told:
            return gaps
        scored = self._pool.role("policy").each(
            "score", list(told.values()), deadline_s=self._deadline_s, sampling=self._sampling
        )
        right = {key: row[s.prompt_len :] for (key, s), row in zip(told.items(), scored, strict=True)}
        return gaps | {
            index: float(np.max([np.abs(right[key] - logprobs).max() for key, _, logprobs in rows]))
            for index, rows in said.items()
        }


def disagreeing(checksums: dict[int, dict[str, str]]) -> dict[int, str]:
    """Engines whose tensors differ from those of the most common content; a tie accuses the later engines."""
    contents = {i: frozenset(tensors.items()) for i, tensors in checksums.items()}
    if len(set(contents.values())) <= 1:
        return {}
    counts = {content: sum(1 for c in contents.values() if c == content) for content in contents.values()}
    agreed = max(counts, key=lambda content: counts[content])
    return {
        i: f"holds other tensors than its peers, first {sorted(dict(content.symmetric_difference(agreed)))[0]!r}"
        for i, content in contents.items()
        if content != agreed
    }


def _told(faults: Faults) -> list[str]:
    return [f"engine {index}: {last_words(str(error))}" for index, error in sorted(faults.items())]
