"""A conversation is a prompt where it ends with a question whose answer does not stand in it."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow, RowError
from orchestrator.data.turns import check_prompt, refuse_told_verdict
from tests.unit.data.rows import picture, read, write_jsonl
from tests.unit.data.store_rows import FORMATS, MM_RLHF, good_row, judged, query, records

_RELEASED_FORM = (
    "Conclude with a single numeric choice within <answer> and </answer> tags: output 1 or 2.\n"
    "<think>Your analysis goes here</think><answer>1/2</answer>"
)


def _turn(role: str, *parts: str) -> dict[str, Any]:
    """A turn of texts; ``[image]`` stands for an image."""
    content = [{"type": "image", "image": "a.png"} if p == "[image]" else {"type": "text", "text": p} for p in parts]
    return {"role": role, "content": content}


_ASKED = _turn("user", "which ?")


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([_ASKED, _turn("assistant", "the first")], 'ends with a turn of the assistant, "the first", expected one of'),
        ([_turn("system", "be brief")], "no turn of the user"),
        ([_turn("system", "be brief"), _turn("assistant", "yes")], "no turn of the user"),
        ([], "no turn of the user"),
        ([_turn("assistant", "hello"), _ASKED], "begins with a turn of the assistant"),
        ([_ASKED, _turn("system", "be brief")], "turn 2 of the prompt is the system's, which may only come first"),
        ([_turn("system", "a"), _turn("system", "b"), _ASKED], "turn 2 of the prompt is the system's"),
        ([_ASKED, *[_turn("assistant", "hm")] * 2, _ASKED], "turns 2 and 3 of the prompt are both the assistant's"),
        ([_ASKED, _ASKED], "turns 1 and 2 of the prompt are both the user's"),
        ([_turn("user", "")], 'asks nothing: its last turn is ""'),
        ([_turn("user", " \n\u200b", "\u00a0")], "asks nothing: its last turn is "),
        ([_ASKED, _turn("assistant", "this"), _turn("user", "  ")], 'asks nothing: its last turn is "  "'),
        ([_turn("user", "[image]")], "asks nothing: it has pictures and no words"),
        ([_turn("user", "[image]", " ")], "asks nothing: it has pictures and no words"),
        ([_turn("user", "<image>\n<|image_pad|>")], 'asks nothing: its last turn is "<image>\\n<|image_pad|>"'),
        ([_turn("user", "[image]", "<image> ")], "asks nothing: it has pictures and no words"),
        ([_turn("user", "[image]"), _turn("assistant", "a cat"), _turn("user", "[image]")], "pictures and no words"),
    ],
)
def test_what_is_no_question_is_no_prompt(turns: list[Any], reason: str) -> None:
    with pytest.raises(RowError) as refused:
        check_prompt(turns)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "turns",
    [
        [_ASKED],
        [_turn("system", "be brief"), _ASKED],
        [_turn("system", "say which is the better picture"), _turn("user", "[image]", "[image]")],
        [_turn("user", "what is in these ?"), _turn("assistant", "show me"), _turn("user", "[image]")],
    ],
)
def test_a_question_may_be_asked_in_these_ways(turns: list[Any]) -> None:
    check_prompt(turns)


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=7))
def test_turns_are_taken_in_one_order_alone(roles: list[str]) -> None:
    talk = roles[1:] if roles[:1] == ["system"] else roles
    proper = talk == ["user", "assistant"] * (len(talk) // 2) + ["user"]
    turns = [_turn(role, "words") for role in roles]
    if proper:
        check_prompt(turns)
    else:
        with pytest.raises(RowError):
            check_prompt(turns)


@pytest.mark.parametrize(
    "turns",
    [
        [_ASKED, _turn("assistant", "<think> x </think> <answer> 1 </answer>"), _turn("user", "sure ?")],
        [_ASKED, _turn("assistant", "I say <answer>1</answer>, clearly"), _turn("user", "sure ?")],
        [_turn("user", "which ?\n<think>the first\nis better</think>\n<answer>1</answer>\n")],
        [_turn("user", "which ?", "<answer> 1 </answer>")],
        [_turn("system", "<answer>1</answer>"), _ASKED],
    ],
)
def test_the_rows_own_answer_may_not_stand_in_its_prompt(turns: list[Any]) -> None:
    with pytest.raises(RowError, match=r"turn \d of the prompt holds the row's own answer, <answer>1</answer>"):
        refuse_told_verdict(turns, "1")
    refuse_told_verdict(turns, "2")


@pytest.mark.parametrize(
    "text",
    [
        _RELEASED_FORM,
        "Say <answer>1</answer> or <answer>2</answer>",
        "Which ? Close with <answer>1</answer> where the first is better",
        "Which ? Close with the number, e.g. <answer>1</answer>",
        "1",
    ],
)
@pytest.mark.parametrize("label", ["1", "2"])
def test_saying_how_to_answer_tells_no_answer(text: str, label: str) -> None:
    refuse_told_verdict([_turn("user", text)], label)


_ANSWERED = [{"role": "user", "content": "which ?"}, {"role": "assistant", "content": "<answer> 1 </answer>"}]


def test_a_last_turn_of_the_assistant_is_a_demonstration_for_those_who_imitate_and_for_nobody_else(
    tmp_path: Path,
) -> None:
    blank = [*_ANSWERED[:1], {"role": "assistant", "content": " "}]
    rows = [judged(message=_ANSWERED), judged(message=_ANSWERED, response="the first"), judged(message=blank)]
    file = write_jsonl(tmp_path / "d.jsonl", *rows, judged(message=_ANSWERED[1:]), judged())
    online = read(file)
    assert [p.uid for p in online.prompts] == ["d-000005"]
    assert [bad.row for bad in online.bad_rows] == [1, 2, 3, 4]
    imitated = read(file, demonstrations=True)
    learned, asked = imitated.prompts
    assert (learned.uid, learned.target, len(learned.messages)) == ("d-000001", "<answer> 1 </answer>", 1)
    assert asked.target is None
    assert [bad.row for bad in imitated.bad_rows] == [2, 3, 4]
    assert (
        imitated.bad_rows[1].reason == 'the assistant\'s last turn is " ", expected text alone, which sft could learn'
    )


@pytest.mark.parametrize("reader", [name for name in FORMATS if name not in MM_RLHF])
def test_no_format_takes_a_picture_for_a_question(tmp_path: Path, reader: Any) -> None:
    picture(tmp_path / "a.png")
    alone = {"prompt": "<image>"} if reader != "r1_reward" else {}
    row = good_row(reader, images=["a.png"], **alone)
    if reader == "r1_reward":
        row["message"] = [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}]
    assert records(tmp_path, reader, row, good_row(reader))[0] == BadRow(
        1, "the prompt asks nothing: it has pictures and no words"
    )


def test_a_conversation_before_the_answer_is_a_prompt(tmp_path: Path) -> None:
    found = records(tmp_path, "vlquery_json", query(("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")))
    assert [len(one.messages) for one in found if isinstance(one, Instruction)] == [1, 3]
