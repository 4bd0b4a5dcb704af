"""Pairs of any ranking, written as a file of comparisons and read again."""

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.datasets.json_rows import JsonRow
from orchestrator.preference_store.pairs import pairs_by_rank
from orchestrator.preference_store.ranking import ranks_from_pairs
from orchestrator.preference_store.readers.mm_rlhf_pairs import read_mm_rlhf_pairs

RANKS = st.lists(st.integers(1, 4), min_size=2, max_size=6).filter(lambda ranks: len(set(ranks)) > 1)


def _row(chosen: int, rejected: int, **fields: Any) -> dict[str, Any]:
    return {"id": "m", "image": "a.png", "prompt": "p", "chosen": f"r{chosen}", "rejected": f"r{rejected}", **fields}


@given(ranks=RANKS, data=st.data())
def test_a_ranking_is_recovered_from_its_pairs(ranks: list[int], data: st.DataObject) -> None:
    written = {(p.chosen, p.rejected) for p in pairs_by_rank(ranks)}
    ties = [(i, j) for i, j in combinations(range(len(ranks)), 2) if ranks[i] == ranks[j]]
    told = data.draw(st.lists(st.sampled_from(ties), unique=True)) if ties else []
    rows = [_row(*pair) for pair in written] + [_row(*pair, is_tie=True) for pair in told]
    order = data.draw(st.permutations(rows))
    draft = read_mm_rlhf_pairs(tuple(JsonRow(number, row) for number, row in enumerate(order, start=1)))
    texts = [response.text for response in draft.responses]
    found = pairs_by_rank([response.rank for response in draft.responses])
    assert {(texts[p.chosen], texts[p.rejected]) for p in found} == {(f"r{i}", f"r{j}") for i, j in written}
    assert "num_pairs_added" not in draft.meta


@given(order=st.permutations(range(6)), data=st.data())
def test_no_preference_is_lost_and_every_tie_is_one(order: list[int], data: st.DataObject) -> None:
    pairs = list(combinations(order, 2))
    preferred = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    ranks = ranks_from_pairs(6, preferred=preferred, ties=[])
    assert set(preferred) <= {(p.chosen, p.rejected) for p in pairs_by_rank(ranks)}
    assert set(ranks) == set(range(1, max(ranks) + 1))
    twins = data.draw(st.lists(st.integers(0, 5), max_size=3))
    # A twin ties with a response of the six, so that it stands where that does and moves nobody.
    ties = [(6 + k, twin) for k, twin in enumerate(twins)]
    assert ranks_from_pairs(6 + len(twins), preferred=preferred, ties=ties) == (*ranks, *(ranks[t] for t in twins))
