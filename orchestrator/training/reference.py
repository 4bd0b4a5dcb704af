"""What the reference thinks of responses: asked at every step, of the policy's base, or of a table made before."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from algorithms.records import Example
from algorithms.records import Sequence as TokenSequence
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.schema import TrainConfig
from orchestrator.data.side_tables import SideTable, table_fingerprint
from orchestrator.data.store import PreferenceStore


class Reference:
    """The reference's log-probs of responses, float32 ``[L]`` each, nats, wherever they come from."""

    def __init__(self, config: TrainConfig, pool: WorkerPool) -> None:
        assert config.offline is not None
        self._needed, self._mode = config.offline.needs_reference, config.reference.mode
        self._pool, self._deadline_s = pool, config.rollout.timeout_s

    def of_examples(self, examples: Sequence[Example]) -> list[list[np.ndarray]]:
        """For each example, for each of its sequences; empty for an algorithm without reference."""
        if not self._needed:
            return []
        if self._mode == "precomputed":
            return [_precomputed(e) for e in examples]
        return by_example(examples, self.of_sequences([s for e in examples for s in e.sequences]))

    def of_sequences(self, sequences: Sequence[TokenSequence]) -> list[np.ndarray]:
        """For each sequence, asked now."""
        if self._mode == "lora_off":
            scored = self._pool.policy_score(sequences, deadline_s=self._deadline_s, adapters=False)
        else:
            scored = self._pool.reference_score(sequences, deadline_s=self._deadline_s)
        return [row[s.prompt_len :] for s, row in zip(sequences, scored, strict=True)]


def _precomputed(example: Example) -> list[np.ndarray]:
    if example.ref_logprobs is None:
        raise ValueError(f"instruction {example.uid} was read without the reference's table")
    return list(example.ref_logprobs)


def by_example(examples: Sequence[Example], rows: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Rows of all sequences, one after the other, by example."""
    remaining = iter(rows)
    return [[next(remaining) for _ in e.sequences] for e in examples]


def reference_table(folder: Path, store: PreferenceStore, config: TrainConfig) -> SideTable:
    """The table of the reference's log-probs of a store's responses, begun where there is none.

    Raises:
        RefusedInput: the folder has a table of another model, or of other settings or another store.
    """
    assert config.model.path is not None
    fingerprint = table_fingerprint(config, store, config.model.path)
    return SideTable(folder, fingerprint=fingerprint, num_shards=len(store.groups))
