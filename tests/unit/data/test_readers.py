"""Every format: what each row becomes, and the sentence for what it may not be."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.keys import Notes
from orchestrator.data.pairs import preference_pairs
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import BadRow
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import (
    FORMATS,
    MM_RLHF,
    corrected,
    feedback,
    good_row,
    judged,
    labelled,
    plain,
    query,
    rated,
    records,
    source,
    the_record,
)

TEXT_ALONE = tuple(name for name in FORMATS if name not in MM_RLHF)
PLACED = tuple(name for name in TEXT_ALONE if name != "r1_reward")  # its turns name their media themselves


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}


def _content(instruction: Instruction) -> list[Any]:
    (turn,) = instruction.messages
    assert turn["role"] == "user"
    return turn["content"]


@pytest.mark.parametrize("reader", TEXT_ALONE)
def test_a_row_of_text_alone_is_good(tmp_path: Path, reader: str) -> None:
    record = the_record(tmp_path, reader, good_row(reader))
    assert (record.uid, record.split, record.media) == ("d-000001", "train", ())
    assert _content(record) == [text("which ?")]


@pytest.mark.parametrize("reader", FORMATS)
def test_one_image_without_a_placeholder_comes_first(tmp_path: Path, reader: str) -> None:
    file = picture(tmp_path / "sub" / "a.png", size=(6, 4))
    record = the_record(tmp_path, reader, good_row(reader, images=["sub/a.png"]))
    assert _content(record) == [IMAGE, text("which ?")]
    (image,) = record.media
    assert (image.path, image.width, image.height) == ("sub/a.png", 6, 4)
    assert image.size_bytes == os.path.getsize(file)


@pytest.mark.parametrize("reader", PLACED)
def test_several_images_stand_where_their_placeholders_do(tmp_path: Path, reader: str) -> None:
    for number, name in enumerate(("a.png", "b.png"), start=1):
        picture(tmp_path / name, size=(number, 1))
    row = good_row(reader, images=["b.png", "a.png"], prompt="of <image>\nand\n<image> which ?")
    record = the_record(tmp_path, reader, row)
    assert _content(record) == [text("of "), IMAGE, text("and"), IMAGE, text(" which ?")]
    assert [image.path for image in record.media] == ["b.png", "a.png"]


@pytest.mark.parametrize("reader", FORMATS)
def test_a_video_is_the_images_of_its_folder(tmp_path: Path, reader: str) -> None:
    for number in (1, 2, 10):
        picture(tmp_path / "clip" / f"f{number}.png", size=(number, 1))
    record = the_record(tmp_path, reader, good_row(reader, video="clip"))
    assert _content(record) == [IMAGE, IMAGE, IMAGE, text("which ?")]
    # MM-RLHF's own loader sorts the names as they are.
    assert [image.width for image in record.media] == ([1, 10, 2] if reader in MM_RLHF else [1, 2, 10])


@pytest.mark.parametrize("reader", FORMATS)
def test_a_bad_image_costs_its_own_row_and_no_neighbour(tmp_path: Path, reader: str) -> None:
    picture(tmp_path / "a.png", size=(6, 4))
    (tmp_path / "bad.png").write_text("no image")
    rows = [good_row(reader, images=[name]) for name in ("a.png", "bad.png", "a.png", "gone.png", "../a.png")]
    first, bad, third, gone, outside = records(tmp_path, reader, *rows)
    assert isinstance(first, Instruction) and isinstance(third, Instruction)
    assert (first.uid, third.uid, first.media) == ("d-000001", "d-000003", third.media)
    assert bad == BadRow(2, "image 'bad.png' is text, not an image")
    assert gone == BadRow(4, f"image 'gone.png' is not found under the media root {str(tmp_path)!r}")
    assert outside == BadRow(5, f"image '../a.png' is outside the media root {str(tmp_path)!r}")


@pytest.mark.parametrize("reader", FORMATS)
@pytest.mark.parametrize("row", ["text", 3, None])
def test_a_row_that_is_no_object_is_bad(tmp_path: Path, reader: str, row: Any) -> None:
    picture(tmp_path / "a.png")
    _, bad = records(tmp_path, reader, good_row(reader), row)
    assert bad == BadRow(2, f"the row is {json.dumps(row)}, expected an object")


@pytest.mark.parametrize("reader", FORMATS)
def test_a_row_that_nobody_can_walk_is_bad(tmp_path: Path, reader: str) -> None:
    picture(tmp_path / "a.png")

    def nested(levels: int) -> Any:
        return [nested(levels - 1)] if levels else "x"

    _, bad = records(tmp_path, reader, good_row(reader), good_row(reader) | {"responses": nested(450)})
    assert bad == BadRow(2, "field 'responses' is nested more than 64 levels deep")
    _, bad = records(tmp_path, reader, good_row(reader), nested(450))
    assert bad == BadRow(2, "field 'row' is nested more than 64 levels deep")
    shown = {"note": json.dumps(["data:image/", nested(450)])}
    _, bad = records(tmp_path, reader, good_row(reader), good_row(reader) | shown)
    assert bad == BadRow(2, "field 'note' is nested more than 64 levels deep")


def test_plain_dpo_ranks_its_sides(tmp_path: Path) -> None:
    record = the_record(tmp_path, "plain_dpo", plain(id=7, other=[1]))
    assert record.responses == (Response(text="this", rank=1), Response(text="that", rank=2))
    assert record.meta == {"id": 7}


def test_plain_kto_scores_what_was_liked_above_0(tmp_path: Path) -> None:
    liked, disliked = (the_record(tmp_path, "plain_kto", labelled(label=label, id=3)) for label in (True, False))
    assert liked.responses == (Response(text="this", score=1.0),)
    assert disliked.responses == (Response(text="this", score=-1.0),)
    assert liked.meta == {"id": 3}


def test_both_spellings_of_a_conversation_are_one(tmp_path: Path) -> None:
    turns = (("system", "be brief"), ("human", "hi"), ("gpt", "hello"), ("human", "which ?"), ("gpt", "this"))
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    spoken = records(tmp_path, "vlquery_json", query(*turns))
    assert spoken == records(tmp_path, "vlquery_json", query(*((names[who], what) for who, what in turns)))
    assert spoken == records(tmp_path, "vlquery_json", query(*turns[1:], system="be brief"))


def test_every_answer_of_a_conversation_is_learned(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    turns = (("system", "be brief"), ("human", "<image>\nhi"), ("gpt", "hello"), ("human", "which ?"), ("gpt", "this"))
    first, second, other = records(tmp_path, "vlquery_json", query(*turns, image="a.png", id=7), query())
    assert isinstance(first, Instruction) and isinstance(second, Instruction) and isinstance(other, Instruction)
    assert [record.uid for record in (first, second, other)] == ["d-000001.1", "d-000001.2", "d-000002"]
    assert [record.responses for record in (first, second)] == [(Response(text="hello"),), (Response(text="this"),)]
    opening = [("system", [text("be brief")]), ("user", [IMAGE, text("hi")])]
    assert [(turn["role"], turn["content"]) for turn in first.messages] == opening
    later = [*opening, ("assistant", [text("hello")]), ("user", [text("which ?")])]
    assert [(turn["role"], turn["content"]) for turn in second.messages] == later
    assert first.media == second.media and len(first.media) == 1
    assert first.meta == second.meta == {"id": 7}


def test_an_image_of_a_later_turn_stands_there(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    turns = (("user", "hi"), ("assistant", "hello"), ("user", "<image>"), ("assistant", "a square"))
    first, second = records(tmp_path, "vlquery_json", query(*turns, image="a.png"))
    assert isinstance(first, Instruction) and isinstance(second, Instruction)
    assert [turn["content"] for turn in second.messages] == [[text("hi")], [text("hello")], [IMAGE]]
    assert (first.media, len(second.media)) == ((), 1)


def test_a_conversation_is_on_one_side_of_a_split_and_one_bad_image_costs_its_row_once(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    turns = [(who, f"{what} {k}") for k in range(4) for who, what in (("human", "ask"), ("gpt", "say"))]
    rows = [query(*((who, f"{n} {what}") for who, what in turns), image="a.png") for n in range(20)]
    rows.append(query(*turns, image="gone.png"))
    file = write_jsonl(tmp_path / "d.jsonl", *rows)
    *made, bad = read_records(source(file, "vlquery_json"), held_out_frac=0.5)
    assert isinstance(bad, BadRow) and bad.row == 21
    sides = {n: {r.split for r in made[4 * n : 4 * n + 4] if isinstance(r, Instruction)} for n in range(20)}
    assert all(len(side) == 1 for side in sides.values())
    assert len({side for some in sides.values() for side in some}) == 2


EARLIER = {"system": "be brief", "history": [["hi", "hello"], ["<image> and ?", "so"]]}


@pytest.mark.parametrize("reader", ["plain_dpo", "plain_kto"])
def test_system_and_history_are_the_turns_before_the_prompt(tmp_path: Path, reader: str) -> None:
    picture(tmp_path / "a.png")
    record = the_record(tmp_path, reader, good_row(reader, images=["a.png"]) | EARLIER)
    assert [(turn["role"], turn["content"]) for turn in record.messages] == [
        ("system", [text("be brief")]),
        ("user", [text("hi")]),
        ("assistant", [text("hello")]),
        ("user", [IMAGE, text(" and ?")]),
        ("assistant", [text("so")]),
        ("user", [text("which ?")]),
    ]
    bare = good_row(reader)
    assert the_record(tmp_path, reader, bare | {"system": "", "history": []}) == the_record(tmp_path, reader, bare)


@pytest.mark.parametrize("reader", [name for name in FORMATS if name not in MM_RLHF])
@pytest.mark.parametrize("key", ["image_path", "Image", "img_url", "pictures"])
def test_a_column_that_can_only_be_a_picture_is_read(tmp_path: Path, reader: str, key: str) -> None:
    picture(tmp_path / "a.png")
    record = the_record(tmp_path, reader, good_row(reader) | {key: "a.png"})
    assert _content(record) == [IMAGE, text("which ?")]


@pytest.mark.parametrize("reader", FORMATS)
@pytest.mark.parametrize(
    ("key", "value"),
    [("tools", [{"name": "f"}]), ("rejected_conversations", [{"value": "x"}]), ("output_1", {"value": "x"}),
     ("kto_tag", False), ("rejected_images", ["b.png"]), ("objects", {"ref": ["a"]})],
)  # fmt: skip
def test_no_reader_drops_content_or_a_preference(tmp_path: Path, reader: str, key: str, value: Any) -> None:
    picture(tmp_path / "a.png")
    _, bad = records(tmp_path, reader, good_row(reader), good_row(reader) | {key: value})
    assert isinstance(bad, BadRow) and key in bad.reason


@pytest.mark.parametrize("reader", [name for name in FORMATS if not name.startswith(("plain", "pairs", "task"))])
@pytest.mark.parametrize("key", ["history", "system"])
def test_earlier_turns_are_read_or_refused(tmp_path: Path, reader: str, key: str) -> None:
    picture(tmp_path / "a.png")
    _, found = records(tmp_path, reader, good_row(reader), good_row(reader) | {key: EARLIER[key]})
    if key == "system" and reader in ("vlquery_json", "llava_ppo", "llava_preference"):
        assert isinstance(found, Instruction) and found.messages[0]["role"] == "system"
    else:
        assert isinstance(found, BadRow) and key in found.reason


def test_keys_that_nobody_reads_are_counted_with_those_inside(tmp_path: Path) -> None:
    notes = Notes()
    rows = [
        query(source="coco"),
        query(("human", "hi"), ("gpt", "ho"), ("human", "why ?"), ("gpt", "so"), source="coco", model=""),
        query() | {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho", "lang": "en"}]},
    ]
    assert len(list(read_records(source(write_jsonl(tmp_path / "d.jsonl", *rows), "vlquery_json"), notes=notes))) == 4
    assert notes.unknown_keys == {"source": (2, 1), "conversations.lang": (1, 3)}
    assert (notes.num_rows, notes.num_with_images) == (3, 0)


def test_a_score_is_the_mean_of_the_ratings(tmp_path: Path) -> None:
    row = feedback(rated("5", "4.5", "4"), rated("N/A", "5", "5", response="b"), rated(None, "5", "5", response="c"))
    record = the_record(tmp_path, "vlfeedback", row)
    assert [response.score for response in record.responses] == [4.5, None, None]
    assert [response.provenance for response in record.responses] == ["llava"] * 3
    assert record.meta == {"id": "f-1"}


@pytest.mark.parametrize("ratings", [(), ("nan", "4"), ("inf", "4"), (True, "4"), ("", "4")])
def test_what_is_no_number_is_no_rating(tmp_path: Path, ratings: tuple[Any, ...]) -> None:
    record = the_record(tmp_path, "vlfeedback", feedback(rated(*ratings)))
    assert record.responses[0].score is None


def test_one_unreadable_rating_leaves_the_pairs_of_the_others(tmp_path: Path) -> None:
    """VL-RLHF acceptance 6, from the ratings on."""
    ratings = [("5", "5", "5"), ("4", "4", "4"), ("4", "4", "4"), ("5", "N/A", "5")]
    row = feedback(*(rated(*some, response=f"r{n}") for n, some in enumerate(ratings)))
    responses = the_record(tmp_path, "vlfeedback", row).responses
    for score_margin in (-1.0, 0.0):
        pairs = preference_pairs(responses, score_margin=score_margin)
        assert [(p.chosen, p.rejected, p.gap) for p in pairs] == [(0, 1, 1.0), (0, 2, 1.0)]


def test_completions_may_be_three_lists_as_well(tmp_path: Path) -> None:
    row = feedback(rated("5", "5", "5"), rated("4", "4", "4", response="that", model="qwen"))
    lists = {name: [c[name] for c in row["completions"]] for name in ("annotations", "model", "response")}
    assert the_record(tmp_path, "vlfeedback", row | {"completions": lists}) == the_record(tmp_path, "vlfeedback", row)


def test_the_reasons_of_the_raters_are_the_critique(tmp_path: Path) -> None:
    made = rated("5", "4")
    made["annotations"]["Helpfulness"]["Rationale"] = "Clear."
    made["annotations"]["Ethical Considerations"]["Rationale"] = "Harmless."
    record = the_record(tmp_path, "vlfeedback", feedback(made))
    assert record.responses[0].critique == "Helpfulness: Clear.\nEthical Considerations: Harmless."


def test_a_correction_ranks_above_what_it_corrects(tmp_path: Path) -> None:
    record = the_record(tmp_path, "rlhfv", corrected(idx=3))
    assert record.responses == (Response(text="this", rank=1), Response(text="that", rank=2))
    assert record.meta == {"ds_name": "RLHF-V", "idx": 3}


def test_a_second_picture_of_a_correction_is_refused_and_its_bytes_are_not(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    others: list[Any] = ["b.png", ["b.png"], "x/a.png", {"bytes": "iVBOR", "path": None}, "iVBOR" * 60, ""]
    rows = [corrected(image_path="a.png", image=other) for other in others]
    refused = "field 'image' can only be a picture, other than \"a.png\": one field of them is read"
    made = records(tmp_path, "rlhfv", *rows)
    assert made[:2] == [BadRow(1, refused), BadRow(2, refused)]
    assert all(isinstance(record, Instruction) for record in made[2:])
    (only,) = records(tmp_path, "rlhfv", corrected(image_path="", image="b.png"))
    assert isinstance(only, Instruction) and only.media[0].path == "b.png"


@pytest.mark.parametrize("reader", PLACED)
@pytest.mark.parametrize("nothing", ["", " ", [], [""], [None], {"bytes": None, "path": None}])
def test_a_field_of_media_that_says_nothing_is_none(tmp_path: Path, reader: str, nothing: Any) -> None:
    assert the_record(tmp_path, reader, good_row(reader, images=nothing, video=nothing)).media == ()


def test_a_judgement_keeps_label_and_question_and_its_demonstration(tmp_path: Path) -> None:
    record = the_record(tmp_path, "r1_reward", judged(response="the first"))
    assert record.meta == {"label": "1", "question": "which ?"}
    assert record.responses == (Response(text="the first"),)
    assert the_record(tmp_path, "r1_reward", judged()).responses == ()


@pytest.mark.parametrize(
    ("reader", "bad", "reason"),
    [
        ("plain_dpo", plain(prompt=" "), "field 'prompt' is \" \", expected text"),
        ("plain_dpo", {"prompt": "p", "chosen": "c"}, "field 'rejected' is null, expected text"),
        ("plain_dpo", plain(chosen=""), "field 'chosen' is \"\", expected text"),
        ("plain_dpo", plain(chosen="that"), "fields 'chosen' and 'rejected' are the same text, \"that\""),
        ("plain_dpo", plain(chosen="\ud800"), "field 'chosen' is not valid Unicode at character 1"),
        ("plain_dpo", plain(id="\ud800"), "field 'id' is not valid Unicode at character 1"),
        ("plain_dpo", plain(chosen="see <image>"),
         "field 'chosen' holds the placeholder '<image>', which only a user turn may"),
        ("plain_dpo", plain(image=3), "field 'image' is 3, expected a path or a list of paths"),
        ("plain_dpo", plain(image="a", images=["a"]), "fields 'image' and 'images' are both given, expected one"),
        ("plain_dpo", plain(prompt="<image> ?"), "the prompt has 1 '<image>' placeholders, the row has 0 images"),
        ("plain_dpo", plain(images=["a", "b"]), "the prompt has 0 '<image>' placeholders, the row has 2 images"),
        ("plain_dpo", plain(images=["a"], video="v", prompt="<image> ?"),
         "the prompt has 0 '<video>' placeholders, the row has 1 videos"),
        ("plain_kto", labelled(label="yes"), "field 'label' is \"yes\", expected true or false"),
        ("plain_kto", {"prompt": "p", "label": True}, "field 'completion' is null, expected text"),
        ("plain_dpo", plain(history=["hi", "ho"]), "field 'history' has \"hi\", expected [question, answer]"),
        ("plain_dpo", plain(history=[["hi", ""]]), "field 'history' has [\"hi\", \"\"], expected [question, answer]"),
        ("plain_dpo", plain(system=3), "field 'system' is 3, expected text"),
        ("plain_dpo", plain(is_tie=True), "field 'is_tie' is true, a preference, which this format does not read"),
        ("vlquery_json", query() | {"conversations": [{"from": "human", "value": "hi"},
                                                      {"from": "gpt", "value": "ho", "loss": False}]},
         "field 'conversations' has a turn whose 'loss' is false, but every answer is learned, each as much"),
        ("vlquery_json", query(("human", "hi"), ("gpt", "ho"), ("human", "so ?"), ("human", "why ?"), ("gpt", "this")),
         "field 'conversations' has a turn of the user after one of the user, expected assistant"),
        ("vlquery_json", query(("human", "hi"), ("gpt", "see <image>"), image="a.png"),
         "field 'assistant turn' holds the placeholder '<image>', which only a user turn may"),
        ("plain_kto", labelled(completion="<image>"),
         "field 'completion' holds the placeholder '<image>', which only a user turn may"),
        ("vlquery_json", {}, "field 'conversations' is null, expected a list of turns"),
        ("vlquery_json", query(("bot", "hi")),
         "field 'conversations' has a turn from \"bot\", expected user, human, assistant, gpt, system"),
        ("vlquery_json", query(("gpt", "hi")),
         "field 'conversations' has a turn of the assistant at the start, expected system or user"),
        ("vlquery_json", query(("human", "hi"), ("user", "hi")),
         "field 'conversations' has a turn of the user after one of the user, expected assistant"),
        ("vlquery_json", query(("human", "hi")),
         "field 'conversations' ends with a turn of the user, expected an answer to a user turn"),
        ("vlquery_json", query(("human", "hi"), ("gpt", "")), "field 'value' is \"\", expected text"),
        ("vlquery_json", query(("system", "<image>"), ("human", "hi"), ("gpt", "ho"), image="a.png"),
         "field 'system turn' holds the placeholder '<image>', which only a user turn may"),
        ("vlfeedback", {"prompt": "p"}, "field 'completions' is null, expected a list of responses"),
        ("vlfeedback", feedback() | {"completions": []}, "field 'completions' is [], expected a list of responses"),
        ("vlfeedback", feedback() | {"completions": {"response": ["a"]}},
         "field 'completions.annotations' is null, expected a list"),
        ("vlfeedback", feedback() | {"completions": {"response": ["a"], "annotations": []}},
         "field 'completions' has lists of different lengths: 0 annotations, 1 response"),
        ("vlfeedback", feedback(rated("5", response="")), "field 'response' is \"\", expected text"),
        ("vlfeedback", feedback({"model": "m", "response": "a"}),
         "field 'annotations' is null, expected an object of aspects"),
        ("rlhfv", corrected("{"),
         "field 'text' is not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        ("rlhfv", {}, "field 'text' is null, expected an object with question, chosen and rejected"),
        ("rlhfv", corrected({"question": "q", "chosen": "a", "rejected": "a"}),
         "fields 'chosen' and 'rejected' are the same text, \"a\""),
        ("r1_reward", judged(answer="3"), "field 'answer' is \"3\", expected 1 or 2"),
        ("r1_reward", judged(question="\ud800"), "field 'question' is not valid Unicode at character 1"),
    ],
)  # fmt: skip
def test_a_bad_row_is_told_by_field_and_value(tmp_path: Path, reader: str, bad: Any, reason: str) -> None:
    first, found, third = records(tmp_path, reader, good_row(reader), bad, good_row(reader))
    assert found == BadRow(2, reason)
    assert isinstance(first, Instruction) and isinstance(third, Instruction)
    assert third.uid == "d-000003"


def test_a_json_list_reads_as_its_rows_do(tmp_path: Path) -> None:
    rows = [plain(prompt="one"), plain(chosen=3), plain(prompt="three")]
    by_line = records(tmp_path, "plain_dpo", *rows)
    (tmp_path / "d.jsonl").write_text(json.dumps(rows))
    assert list(read_records(source(tmp_path / "d.jsonl", "plain_dpo"))) == by_line
