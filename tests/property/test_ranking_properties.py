"""Pairs of any ranking and of any part of one, written as a file of comparisons and read again."""

from itertools import combinations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.pairs import pairs_by_rank, preference_pairs, tied_pairs
from orchestrator.data.readers.draft import Draft
from orchestrator.data.readers.mm_rlhf_pairs import read_mm_rlhf_pairs
from orchestrator.data.rows import JsonRow

RANKS = st.lists(st.integers(1, 4), min_size=2, max_size=6).filter(lambda ranks: len(set(ranks)) > 1)


def _row(chosen: int, rejected: int, **fields: Any) -> dict[str, Any]:
    return {"id": "m", "image": "a.png", "prompt": "p", "chosen": f"r{chosen}", "rejected": f"r{rejected}", **fields}


def _read(rows: list[dict[str, Any]]) -> Draft:
    return read_mm_rlhf_pairs(tuple(JsonRow(number, row) for number, row in enumerate(rows, start=1)))


def _sides(draft: Draft, pairs: list[tuple[int, int]]) -> set[tuple[str, str]]:
    texts = [response.text for response in draft.responses]
    return {(texts[i], texts[j]) for i, j in pairs}


def _preferred(draft: Draft) -> set[tuple[str, str]]:
    return _sides(draft, [(p.chosen, p.rejected) for p in preference_pairs(draft.responses, score_margin=0.0)])


@given(ranks=RANKS, data=st.data())
def test_a_ranking_is_recovered_from_its_pairs(ranks: list[int], data: st.DataObject) -> None:
    written = {(p.chosen, p.rejected) for p in pairs_by_rank(ranks)}
    ties = [(i, j) for i, j in combinations(range(len(ranks)), 2) if ranks[i] == ranks[j]]
    told = data.draw(st.lists(st.sampled_from(ties), unique=True)) if ties else []
    rows = [_row(*pair) for pair in written] + [_row(*pair, is_tie=True) for pair in told]
    draft = _read(data.draw(st.permutations(rows)))
    assert _preferred(draft) == {(f"r{i}", f"r{j}") for i, j in written}
    assert "num_pairs_added" not in draft.meta
    if set(told) == set(ties):
        assert all(response.rank is not None for response in draft.responses)


@given(order=st.permutations(range(6)), data=st.data())
def test_a_preference_is_one_that_a_row_gives_or_that_follows(order: list[int], data: st.DataObject) -> None:
    pairs = list(combinations(order, 2))
    preferred = data.draw(st.lists(st.sampled_from(pairs), unique=True, min_size=1))
    ties = [(i, j) for i, j in data.draw(st.lists(st.sampled_from(pairs), unique=True, max_size=2))]
    follows = set(preferred)  # by brute force: a step along a pair or, either way, along a tie, at least one a pair
    same = {(i, i) for i in range(6)} | {*ties, *((j, i) for i, j in ties)}
    for _ in range(6):
        same |= {(i, k) for i, j in same for j2, k in same if j == j2}
        follows |= {(i, m) for i, j in same for j2, k in follows if j == j2 for k2, m in same if k == k2}
        follows |= {(i, k) for i, j in follows for j2, k in follows if j == j2}
    rows = [_row(*pair) for pair in preferred] + [_row(*pair, is_tie=True) for pair in ties]
    try:
        draft = _read(data.draw(st.permutations(rows)))
    except ValueError:
        assert any((j, i) in follows for i, j in follows)
        return
    assert _preferred(draft) == {(f"r{i}", f"r{j}") for i, j in follows}
    assert draft.meta.get("num_pairs_added", 0) == len(follows) - len(preferred)
    found = _sides(draft, tied_pairs(draft.responses))
    assert {frozenset(pair) for pair in found} == {frozenset((f"r{i}", f"r{j}")) for i, j in same if i != j}
