"""Keys that no reader reads: what can only be content is read or refused, the rest is named once."""

import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.keys import CheckedKeys, Notes, check_keys, unread_inside
from orchestrator.data.rows import RowError
from tests.unit.data.rows import picture, read, row, text, write_jsonl

READ = ("prompt", "chosen", "rejected")
IMAGES = ("image", "images")


def _check(**row: Any) -> CheckedKeys:
    return check_keys({"prompt": "which ?", **row}, READ, images=IMAGES)


@pytest.mark.parametrize(
    "key",
    ["image_path", "img_path", "img", "image_file", "image_url", "image_paths", "Image", "pictures", "photo", "imgPath",
     "image-file-name", "IMAGES", "question_image", "image_list", "file_name", "path"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["a/b.png", ["a.jpg", "b.JPEG"]])
def test_a_column_that_can_only_be_a_picture_is_the_image_of_a_row_without_one(key: str, value: Any) -> None:
    assert _check(**{key: value}) == CheckedKeys(images=(key,), unread=())
    assert _check(**{key: value, "image": None, "images": []}).images == (key,)


@pytest.mark.parametrize("other", ["x/a.png", "https://example.com/7?size=3"])
def test_another_name_of_the_picture_a_row_has_is_no_content(other: str) -> None:
    assert _check(image="a.png", image_url=other) == CheckedKeys(images=IMAGES, unread=("image_url",))
    assert _check(img_path="a.png", image_url=other) == CheckedKeys(images=("img_path",), unread=("image_url",))


def test_what_is_kept_of_the_picture_elsewhere_is_no_content() -> None:
    kept = {"image_path": "train/a.png", "license": "CC0", "seen": [1, None]}
    assert _check(image="a.png", metadata=kept).unread == ("metadata",)


def test_a_second_picture_is_refused() -> None:
    for own in ({"image": "a.png"}, {"img": "a.png"}):
        with pytest.raises(
            RowError, match=r"^field 'image_path' can only be a picture, other than .a\.png.: one field"
        ):
            _check(**own, image_path="b.png")
    with pytest.raises(RowError, match=r"^field 'image_path' can only be a picture"):
        _check(image={"bytes": "iVBOR"}, image_path="b.png")


def test_a_format_without_images_refuses_a_picture() -> None:
    with pytest.raises(RowError, match=r"^field 'image' can only be a picture, which is not read here$"):
        check_keys({"value": "hi", "image": "a.png"}, ("value",))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system", "Be brief."), ("system_prompt", "Be brief."), ("history", [["a", "b"]]), ("tools", [{"name": "f"}]),
        ("objects", {"ref": ["cat"]}), ("messages", [{"role": "user"}]), ("conversations", [{"from": "gpt"}]),
        ("video", "v"), ("videos", ["v"]), ("audio", "a.wav"), ("rejected_images", ["b.png"]), ("image_2", "b.png"),
        ("image_bytes", "iVBOR"), ("mask", "m.png"), ("instruction", "another"), ("input", "more"), ("query", "why ?"),
        ("multi_modal_data", {"image": ["b.png"]}), ("metadata", {"files": [{"name": "x/b.JPG", "by": "me"}]}),
        ("media", [{"type": "image", "url": "b"}]),
    ],
)  # fmt: skip
def test_what_can_only_be_content_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(RowError, match=f"^field '{key}' is .*, content that this format does not read$"):
        _check(image="a.png", **{key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rejected_conversations", [{"from": "gpt"}]), ("output_1", {"value": "a"}), ("output_2", "b"),
        ("preference", 1), ("preference", 0), ("kto_tag", False), ("kto_tag", True), ("label", False), ("label", 1),
        ("rejected_response", "b"), ("rejected_messages", ["b"]), ("is_preferred", False), ("response_a", "x"),
        ("ranking", "1>2"), ("ranks", [1, 2]), ("responses", ["a", "b"]), ("completions", ["a"]), ("is_tie", True),
        ("dispreferred", "b"), ("which_better", 1), ("bad_response", "b"), ("conversations_rejected", ["b"]),
        ("answer_rejected", "b"), ("negative", "b"), ("neg_response", "b"), ("y_l", "b"), ("preference_label", 1),
        ("unpreferred", "b"), ("rejected_2", "b"), ("corrupted_answer", "b"),
    ],
)  # fmt: skip
def test_what_makes_a_row_a_preference_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(RowError, match=f"^field '{key}' is .*, a preference, which this format does not read$"):
        _check(**{key: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"system": ""}, {"history": []}, {"history": [["", ""]]}, {"tools": None}, {"video": {"path": None}},
        {"rejected_response": " "}, {"is_tie": False}, {"image_path": ""},
    ],
)  # fmt: skip
def test_what_is_empty_says_nothing(fields: dict[str, Any]) -> None:
    assert check_keys(fields, READ, images=IMAGES).images == IMAGES


def test_content_that_stands_in_what_is_read_is_not_lost() -> None:
    assert _check(query="which ?").unread == ("query",)
    assert check_keys({"turns": [{"value": "why so ?"}], "question": "why so ?"}, ("turns",)).unread == ("question",)


@pytest.mark.parametrize(
    "key", ["id", "source", "category", "score", "model", "image_size", "image_id", "chosen_score"]
)
def test_any_other_key_is_named(key: str) -> None:
    assert _check(**{key: 3}).unread == (key,)


def test_a_key_inside_a_part_is_told_with_its_place() -> None:
    assert unread_inside({"value": "hi", "weight": 1}, ("value",), where="conversations") == ("conversations.weight",)
    told = "field 'tool_calls' is [\"f\"], content that this format does not read (in 'conversations')"
    with pytest.raises(RowError, match=f"^{re.escape(told)}$"):
        unread_inside({"value": "hi", "tool_calls": ["f"]}, ("value",), where="conversations")


def test_every_key_is_told_once_with_its_count_and_first_row() -> None:
    notes = Notes()
    assert list(notes.lines()) == []
    notes.add({3: ("source", "source")}, has_images=False)
    notes.add({5: ("source", "lang"), 8: ("source",)}, has_images=False)
    assert notes.unknown_keys == {"source": (3, 3), "lang": (1, 5)}
    assert list(notes.lines()) == [
        "key 'source' is not read: 3 rows have it, the first is row 3",
        "key 'lang' is not read: 1 row has it, row 5",
        "none of the 2 rows has an image",
    ]
    notes.add({6: ()}, has_images=True)
    assert len(list(notes.lines())) == 2
    notes.add({9: [f"k{number}" for number in range(30)]}, has_images=True)
    assert list(notes.lines())[-1] == "12 more keys are not read"


def test_the_rows_of_an_online_run_are_held_to_the_same(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    own = [{"type": "image", "image": "a.png", "min_pixels": 4}, text("which ?")]
    rows = [
        row(image_path="a.png", source="web"),
        row(*own, image="a.png", source="web"),
        row(history=[["hi", "ho"]]),
        row(output_1="this"),
        row(*own, image="another.png"),
    ]
    dataset = read(write_jsonl(tmp_path / "d.jsonl", *rows))
    assert [len(prompt.media) for prompt in dataset.prompts] == [1, 1, 1]
    assert [bad.reason for bad in dataset.bad_rows] == [
        'field \'history\' is [["hi", "ho"]], content that this format does not read',
        "field 'output_1' is \"this\", a preference, which this format does not read",
    ]
    assert dataset.notes.unknown_keys == {"source": (2, 1), "message.min_pixels": (2, 2), "image": (1, 5)}
    assert (dataset.notes.num_rows, dataset.notes.num_with_images) == (3, 3)
