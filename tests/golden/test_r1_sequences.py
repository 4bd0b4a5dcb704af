"""Which tokens are trained, against the original R1-Reward code, which derives it from pad and eos ids.

Ours never looks at ids: the engine says what it sampled, and ``Sequence.prompt_len`` says where that begins.
"""

import numpy as np
import pytest

from algorithms.records import Sequence
from tests.golden.vectors import Case, one, select

FILE = "r1_reward.json"
SEQUENCES = "openrlhf/models/actor.py:159-185"
AGREEING_ROWS = {
    "longest_row_truncated_last_token_overwritten": [1],
    "other_row_truncated_gets_eos_after_last": [],
    "eos_in_middle_of_response": [1],
    "row_of_only_pads": [1],
    "response_all_pad": [1],
    "single_action": [0],
}
"""Rows of the deviating cases in which both train the same tokens."""


def _name(case: Case) -> str:
    return case.name


def _sequence(case: Case, row: int) -> Sequence:
    """The row as an engine reports it: prompt without its left padding, completion up to the first eos."""
    ids, pad, eos = case.inputs["sequences"][row], case.params["pad_token_id"], case.params["eos_token_id"]
    prompt, response = ids[: case.params["input_len"]], ids[case.params["input_len"] :]
    while prompt and prompt[0] == pad:
        prompt = prompt[1:]
    completion = response[: response.index(eos) + 1] if eos in response else [i for i in response if i != pad]
    return Sequence(
        uid=f"row-{row}",
        sample_index=0,
        input_ids=np.array(prompt + completion, dtype=np.int64),
        prompt_len=len(prompt),
        media=(),
    )


def _trained(sequence: Sequence) -> list[int]:
    return sequence.input_ids[sequence.action_mask].tolist()


def _released_trained(case: Case, row: int) -> list[int]:
    actions = case.outputs["sequences"][row][case.params["input_len"] :]
    return [i for i, kept in zip(actions, case.outputs["action_mask"][row], strict=True) if kept]


def _released_real(case: Case, row: int) -> list[int]:
    pairs = zip(case.outputs["sequences"][row], case.outputs["attention_mask"][row], strict=True)
    return [i for i, kept in pairs if kept]


@pytest.mark.parametrize("case", select(FILE, SEQUENCES, without=tuple(AGREEING_ROWS)), ids=_name)
def test_trained_and_attended_tokens(case: Case) -> None:
    for row in range(len(case.inputs["sequences"])):
        sequence = _sequence(case, row)
        assert _trained(sequence) == _released_trained(case, row)
        assert sequence.input_ids.tolist() == _released_real(case, row)


@pytest.mark.parametrize(
    ("name", "row", "ours", "released"),
    [
        # A cut response keeps its last token; the original overwrites it with a made-up eos.
        ("longest_row_truncated_last_token_overwritten", 0, [14, 15, 16], [14, 15, 7]),
        ("other_row_truncated_gets_eos_after_last", 1, [14, 15, 16], [14, 15, 7]),
        ("single_action", 1, [14], [7]),
        # A shorter cut response is not lengthened by an eos nobody sampled.
        ("other_row_truncated_gets_eos_after_last", 0, [14, 15], [14, 15, 7]),
        # Generation ends at the first eos; the original trains what follows it, with a hole after the eos.
        ("eos_in_middle_of_response", 0, [14, 7], [14, 7, 7]),
        # An empty response trains nothing; the original trains its first column, whatever it holds.
        ("row_of_only_pads", 0, [], [0]),
        ("response_all_pad", 0, [], [7]),
    ],
)
def test_tokens_nobody_sampled_are_never_trained(name: str, row: int, ours: list[int], released: list[int]) -> None:
    case = one(FILE, SEQUENCES, name)
    assert _trained(_sequence(case, row)) == ours
    assert _released_trained(case, row) == released


@pytest.mark.parametrize("name", AGREEING_ROWS)
def test_rows_beside_a_deviating_one_agree(name: str) -> None:
    case = one(FILE, SEQUENCES, name)
    rows = range(len(case.inputs["sequences"]))
    assert [row for row in rows if _trained(_sequence(case, row)) == _released_trained(case, row)] == AGREEING_ROWS[
        name
    ]
