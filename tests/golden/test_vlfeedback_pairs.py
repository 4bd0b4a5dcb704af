"""Pairs of VLFeedback rows against VL-RLHF's own function.

Ours deviates where its floats do: 13/3 − 10/3 is 1 to us, and less there; and a missing rating costs its response, not
the whole load.
"""

from typing import Any

import pytest

from orchestrator.data.pairs import Pair, preference_pairs
from orchestrator.data.readers.vlfeedback import read_vlfeedback
from tests.golden.vectors import Case, one, select

FILE = "vlfeedback_pairs.json"
SOURCE = "src/vlrlhf/utils/data.py:11-82"
NAME = "make_vlfeedback_paired_dataset"
LOST_TO_ROUNDING = {f"{NAME}/margin_1": {("img question 4", "img-4-a", "img-4-d")}}


def _grouped(pairs: list[Pair]) -> list[Pair]:
    """The original's order: by gap as a float, gaps in order of first appearance."""
    gaps = list(dict.fromkeys(pair.gap for pair in pairs))
    return sorted(pairs, key=lambda pair: gaps.index(pair.gap))


def _pairs(rows: list[dict[str, Any]], score_margin: float) -> list[tuple[str, str, str]]:
    found = []
    for row in rows:
        responses = read_vlfeedback(row).responses
        pairs = preference_pairs(responses, score_margin=score_margin)
        ordered = pairs if score_margin == -1 else _grouped(pairs)
        found += [(row["prompt"], responses[p.chosen].text, responses[p.rejected].text) for p in ordered]
    return found


@pytest.mark.parametrize("case", select(FILE, SOURCE, without=(f"{NAME}/none_rating",)), ids=lambda case: case.name)
def test_pairs_are_those_of_the_original_in_its_order(case: Case) -> None:
    ours = _pairs(case.inputs["rows"], case.params["score_margin"])
    theirs = list(zip(*(case.outputs[side] for side in ("prompt", "chosen", "rejected")), strict=True))
    extra = LOST_TO_ROUNDING.get(case.name, set())
    assert [pair for pair in ours if pair not in extra] == theirs
    assert extra <= set(ours)


def test_a_missing_rating_costs_its_response_where_the_original_raises() -> None:
    case = one(FILE, SOURCE, f"{NAME}/none_rating")
    assert case.outputs == {"raises": "TypeError"}
    (row,) = case.inputs["rows"]
    assert [response.score for response in read_vlfeedback(row).responses] == [None, pytest.approx(4 / 3)]
