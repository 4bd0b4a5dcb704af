"""The rewards of a whole store's responses, before the first step: one a response, whatever pairs it is in."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from orchestrator.data.pairs import preference_pairs
from orchestrator.data.records import Instruction, Split, prompt_of
from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.rewards.critique_judge import Question
from orchestrator.rewards.offline_judge import OfflineJudge


def reward_table(folder: Path, store: PreferenceStore, fingerprint: Fingerprint) -> SideTable:
    """The table of a store's rewards, begun where there is none.

    Raises:
        RefusedInput: the folder has a table of another model, request or store.
    """
    return SideTable(folder, fingerprint=fingerprint, num_shards=len(store.groups))


def fill_rewards(
    table: SideTable,
    store: PreferenceStore,
    judge: OfflineJudge,
    *,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make the missing shards of ``table``: a reward for every response, nothing where there is none.

    A killed pass finds in the judge's cache what it had finished.
    """
    for shard in table.missing_shards():
        rows = store.read_group(shard)
        answers = iter(judge.judge(_questions(store, rows)))
        with table.begin(shard) as writer:
            for row in rows:
                for index in range(len(row.responses)):
                    reward = next(answers).reward
                    values = [] if reward is None else [reward]
                    writer.add(row.uid, index, np.array(values, dtype=np.float32))
        on_shard(table.num_shards - len(table.missing_shards()), table.num_shards)


def reward_statuses(store: PreferenceStore, judge: OfflineJudge) -> Counter[str]:
    """Responses of a store by what became of their rewards; asks again only what the judge's cache has lost."""
    return Counter(
        answer.status
        for shard in range(len(store.groups))
        for answer in judge.judge(_questions(store, store.read_group(shard)))
    )


def agreement(
    store: PreferenceStore, table: SideTable, splits: Collection[Split], *, score_margin: float
) -> tuple[float, int]:
    """Share of some splits' pairs whose chosen response has the greater reward, and how many pairs there are.

    A tie, or a response without a reward, is no agreement. (nan, 0) without pairs.
    """
    right = total = 0
    for group in range(len(store.groups)):
        rewards = dict(zip((shard := table.read(group)).keys, shard.values, strict=True))
        for row in store.read_group(group):
            if row.split not in splits:
                continue
            for pair in preference_pairs(row.responses, score_margin=score_margin):
                chosen, rejected = rewards[row.uid, pair.chosen], rewards[row.uid, pair.rejected]
                right += bool(len(chosen) and len(rejected) and chosen[0] > rejected[0])
                total += 1
    return (right / total if total else float("nan")), total


def _questions(store: PreferenceStore, rows: Sequence[Instruction]) -> list[Question]:
    """One for each response."""
    return [
        Question(prompt=prompt_of(row, media_root=store.media_root), response=response.text)
        for row in rows
        for response in row.responses
    ]
