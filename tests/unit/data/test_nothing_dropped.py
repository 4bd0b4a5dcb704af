"""What mutated rows found readers to drop, to mistake or to fall over: each as a row, and the sentence for it."""

import base64
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.keys import Notes
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow
from tests.unit.data.rows import picture, source, write_jsonl
from tests.unit.data.store_rows import feedback, good_row, plain, ranked, rated, records, the_record

_USER = {"role": "user", "content": "which ?"}
_THIS, _THAT = ({"role": "assistant", "content": text} for text in ("this", "that"))
_CHAT = {"messages": [_USER, _THIS], "rejected_response": "that"}
_OTHER = {"role": "user", "content": "what else ?"}


def _part(**fields: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": [{"type": "text", "text": "which ?"}, fields]}], "answer": "x"}


@pytest.mark.parametrize(
    ("reader", "row", "told"),
    [
        ("pairs", plain(rejected_response="another"), "field 'rejected_response' stands beside 'prompt'"),
        ("pairs", plain(rejected_messages=[_THAT]), "field 'rejected_messages' stands beside 'prompt'"),
        ("pairs", {**_CHAT, "prompt": "and this ?"}, "field 'prompt' stands beside 'messages'"),
        ("pairs", {**_CHAT, "rejected_messages": [_USER, {**_THAT, "content": "third"}]}, "'rejected_response' stands"),
        ("pairs", {**_CHAT, "chosen": "this", "rejected": "that"}, "'rejected_response' stands beside"),
        ("pairs", {"messages": [_USER, _THIS], "rejected_messages": [_USER]}, "ends with a turn of the user"),
        ("pairs", {"prompt": [_USER], "chosen": [_OTHER, _THIS], "rejected": [_OTHER, _THAT]}, "begins otherwise"),
        ("pairs", {**_CHAT, "messages": [{**_USER, "from": "gpt"}, _THIS]}, "a turn with 'role' and 'from'"),
        ("pairs", {**_CHAT, "messages": [{**_USER, "value": "why ?"}, _THIS]}, "a turn with 'content' and 'value'"),
        ("task", _part(type="text", text="so", image="a.png"), 'has a text with "image", which is not read'),
        ("task", _part(type="image", image="a.png", text="so"), 'has an image with "text", which is not read'),
        ("task", _part(type="image", image="a.png", url="b.png"), "two names of its image"),
        ("task", {"prompt": "which ?", "answer": 10**400}, "field 'answer' is 1000"),
        ("vlfeedback", feedback({**rated("5"), "model": 3}, rated("4", response="that")), "field 'model' is 3"),
        ("vlfeedback", feedback({**rated("5"), "annotations": {"Helpfulness": "5"}}), '"Helpfulness" as "5", expected'),
        ("vlfeedback", feedback(rated(["5"])), "field 'Rating' is [\"5\"], expected a number"),  # type: ignore[list-item]
        ("mm_rlhf", ranked("1>2", prompt="of <image> or <image> ?"), "2 placeholders, the row has 1 media"),
        ("mm_rlhf", ranked("1>2", ranking_reason=["so"]), "field 'ranking_reason' is [\"so\"]"),
        ("r1_reward", good_row("r1_reward") | {"question": {"a": 1}}, "field 'question' is {\"a\": 1}, expected text"),
        ("llava_ppo", good_row("llava_ppo") | {"conversations": [{"from": "human", "value": "a"}] * 2}, "of the user"),
        ("plain_dpo", plain(**{"a\ud800b": "x"}), "field 'key' is not valid Unicode at character 2"),
    ],
)  # fmt: skip
def test_what_would_be_dropped_or_mistaken_is_refused(reader: str, row: Any, told: str, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (bad,) = records(tmp_path, reader, row)
    assert isinstance(bad, BadRow) and told in bad.reason, bad


@pytest.mark.parametrize("reader", ["plain_dpo", "pairs"])
def test_a_picture_where_text_is_expected_never_becomes_the_name_of_our_file(reader: str, tmp_path: Path) -> None:
    data = base64.b64encode(picture(tmp_path / "a.png").read_bytes()).decode()
    (bad,) = records(tmp_path, reader, plain(chosen={"bytes": data, "path": None}))
    assert isinstance(bad, BadRow) and "is a picture, expected text" in bad.reason


@pytest.mark.parametrize("reader", ["plain_dpo", "pairs", "task", "plain_kto", "vlquery_json"])
def test_an_id_that_is_no_word_is_told_and_not_lost(reader: str, tmp_path: Path) -> None:
    row = good_row(reader)
    assert the_record(tmp_path, reader, row | {"id": "x"}).meta["id"] == "x"
    notes = Notes()
    file = write_jsonl(tmp_path / "d.jsonl", row | {"id": ["x"]})
    (found,) = read_records(source(file, reader), notes=notes)
    assert isinstance(found, Instruction) and "id" not in found.meta and notes.unknown_keys == {"id": (1, 1)}


def test_an_answer_that_a_model_signed_has_its_name(tmp_path: Path) -> None:
    row = good_row("llava_preference") | {"output_1": {"from": "llava-13b", "value": "this"}}
    assert [r.provenance for r in the_record(tmp_path, "llava_preference", row).responses] == ["llava-13b", None]
