"""The R1-Reward-RL reader: what it accepts, in which order, and the sentence for all it does not."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.rows import BadRow
from tests.unit.data.rows import MAX_PIXELS, image, picture, read, row, text, write_jsonl
from workers.multimodal import media


def _reason(tmp_path: Path, bad: Any) -> str:
    """Why the second of three rows is refused; the other two stay."""
    dataset = read(write_jsonl(tmp_path / "rows.jsonl", row(), bad, row()))
    assert [prompt.uid for prompt in dataset.prompts] == ["rows-000001", "rows-000003"]
    assert [problem.row for problem in dataset.bad_rows] == [2]
    return dataset.bad_rows[0].reason


def test_parts_keep_their_order_and_images_theirs(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", size=(1, 1))
    picture(tmp_path / "sub" / "b.png", size=(2, 1))
    parts = (image("sub/b.png"), text("then"), image("a.png"), text("and again"), image("sub/b.png"))
    (prompt,) = read(write_jsonl(tmp_path / "train.jsonl", row(*parts))).prompts
    assert prompt.uid == "train-000001"
    assert prompt.messages == (
        {
            "role": "user",
            "content": [
                {"type": "image"},
                {"type": "text", "text": "then"},
                {"type": "image"},
                {"type": "text", "text": "and again"},
                {"type": "image"},
            ],
        },
    )
    assert [ref.width for ref in prompt.media] == [2, 1, 2]
    assert (prompt.label, prompt.target, prompt.meta) == ("2", None, {"question": "which ?"})


def test_an_array_and_lines_of_the_same_rows_give_the_same_dataset(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [row(text("one"), image("a.png")), row(text("two"), answer=["1"])]
    lines, array = tmp_path / "lines" / "d.jsonl", tmp_path / "array" / "d.json"
    for file in (lines, array):
        file.parent.mkdir()
    write_jsonl(lines, *rows)
    array.write_text("\ufeff\n" + json.dumps(rows, indent=1))  # as an editor may save it
    assert read(lines, media_root=tmp_path) == read(array, media_root=tmp_path)


def test_images_beside_the_message_come_where_the_words_have_them(tmp_path: Path) -> None:
    for number, name in enumerate(("a.png", "b.png"), start=1):
        picture(tmp_path / name, size=(number, 1))
    turns = [
        {"role": "system", "content": "<image> stands for a picture"},
        {"role": "user", "content": "first\n<image>\nthis"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": [text("and"), text("<image>"), text("which ?")]},
    ]
    (prompt,) = read(write_jsonl(tmp_path / "d.jsonl", row(image=["a.png", "b.png"]) | {"message": turns})).prompts
    assert [turn["content"] for turn in prompt.messages] == [
        [text("<image> stands for a picture")],
        [text("first"), {"type": "image"}, text("this")],
        [text("yes")],
        [text("and"), {"type": "image"}, text("which ?")],
    ]
    assert [ref.width for ref in prompt.media] == [1, 2]


@pytest.mark.parametrize("nothing", ["", "  ", None, [], [""], [None], {}, {"bytes": None, "path": None}])
def test_a_field_of_images_that_says_nothing_is_a_row_without_one(tmp_path: Path, nothing: Any) -> None:
    dataset = read(write_jsonl(tmp_path / "d.jsonl", row(image=nothing)))
    assert [prompt.media for prompt in dataset.prompts] == [()]
    assert list(dataset.notes.lines()) == ["the row has no image"]


def test_a_blank_line_is_no_row_but_counts_as_a_line(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(f"\n{json.dumps(row())}\n  \n{json.dumps(row())}")
    assert [prompt.uid for prompt in read(tmp_path / "d.jsonl").prompts] == ["d-000002", "d-000004"]


def test_a_line_separator_inside_a_text_does_not_end_the_row(tmp_path: Path) -> None:
    written = json.dumps({**row(), "message": [{"role": "user", "content": "a\u2028b\x85c"}]}, ensure_ascii=False)
    (tmp_path / "d.jsonl").write_text(written)
    (prompt,) = read(tmp_path / "d.jsonl").prompts
    assert prompt.messages[0]["content"] == [{"type": "text", "text": "a\u2028b\x85c"}]


def test_a_decoded_message_and_several_turns_are_read(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": [text("which ?")]}]
    (prompt,) = read(write_jsonl(tmp_path / "d.jsonl", row() | {"message": turns})).prompts
    assert [turn["role"] for turn in prompt.messages] == ["system", "user"]
    assert prompt.messages[0]["content"] == [{"type": "text", "text": "be brief"}]


@pytest.mark.parametrize("names", ["a.png", ["a.png", "b.png"]])
def test_images_beside_the_message_go_before_its_text(tmp_path: Path, names: str | list[str]) -> None:
    picture(tmp_path / "a.png", size=(1, 1))
    picture(tmp_path / "b.png", size=(2, 1))
    (prompt,) = read(write_jsonl(tmp_path / "d.jsonl", row(text("which ?"), image=names))).prompts
    count = 1 if isinstance(names, str) else 2
    assert prompt.messages[0]["content"] == [{"type": "image"}] * count + [{"type": "text", "text": "which ?"}]
    assert [ref.width for ref in prompt.media] == [1, 2][:count]


def test_images_beside_the_message_are_not_added_to_those_inside_it(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    (prompt,) = read(write_jsonl(tmp_path / "d.jsonl", row(image("a.png"), image="a.png"))).prompts
    assert len(prompt.media) == 1


def test_a_video_becomes_evenly_spread_frames_in_its_place(tmp_path: Path) -> None:
    for number in range(1, 12):
        picture(tmp_path / "clip" / f"{number}.png", size=(number, 1))
    (prompt,) = read(
        write_jsonl(tmp_path / "d.jsonl", row(text("see"), {"type": "video", "video": "clip"}, text("which ?")))
    ).prompts
    kinds = [part["type"] for part in prompt.messages[0]["content"]]
    assert kinds == ["text", "image", "image", "image", "text"]
    assert [ref.width for ref in prompt.media] == [1, 6, 11]


def test_media_are_looked_up_under_the_media_root_when_there_is_one(tmp_path: Path) -> None:
    picture(tmp_path / "media" / "a.png")
    (tmp_path / "lists").mkdir()
    file = write_jsonl(tmp_path / "lists" / "d.jsonl", row(image("a.png")))
    assert len(read(file, media_root=tmp_path / "media").prompts) == 1
    assert len(read(file).bad_rows) == 1


@pytest.mark.parametrize(
    ("answer", "label"),
    [(["<answer>2</answer>"], "2"), ("<answer> 1 </answer>", "1"), (["1"], "1"), ("2", "2"), (1, "1")],
)
def test_a_label_may_be_written_in_these_ways(tmp_path: Path, answer: Any, label: str) -> None:
    (prompt,) = read(write_jsonl(tmp_path / "d.jsonl", row(answer=answer))).prompts
    assert prompt.label == label


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (["<answer>3</answer>"], '"<answer>3</answer>"'),
        ("1 or 2", '"1 or 2"'),
        ("<answer>1", '"<answer>1"'),
        ("12", '"12"'),
        ("", '""'),
        (["1", "2"], '["1", "2"]'),
        ([], "[]"),
        (True, "true"),
        (1.0, "1.0"),
        (None, "null"),
        ("9" * 200, '"' + "9" * 79 + " ..."),
    ],
)
def test_an_answer_other_than_1_or_2_is_refused(tmp_path: Path, answer: Any, shown: str) -> None:
    assert _reason(tmp_path, row(answer=answer)) == f"field 'answer' is {shown}, expected 1 or 2"


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    expected = f"image 'x.png' is not found under the media root {str(tmp_path)!r}"
    assert _reason(tmp_path, row(image("x.png"))) == expected


def test_an_unreadable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no image")
    assert _reason(tmp_path, row(image("x.png"))) == "image 'x.png' is text, not an image"


def test_an_image_larger_than_max_pixels_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "sub" / "x.png", size=(11, 10))
    expected = f"image 'sub/x.png' has 11 x 10 = 110 pixels, more than max_pixels = {MAX_PIXELS}"
    assert _reason(tmp_path, row(image("sub/x.png"))) == expected


@pytest.mark.parametrize("name", ["../secret.png", "link.png"])
def test_an_image_outside_the_media_root_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.png").symlink_to(picture(tmp_path / "secret.png"))
    assert _reason(root, row(image(name))) == f"image {name!r} is outside the media root {str(root)!r}"


def test_a_frame_that_links_out_of_the_media_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    picture(root / "clip" / "1.png")
    (root / "clip" / "2.png").symlink_to(picture(tmp_path / "secret.png"))
    expected = f"video 'clip' frame '2.png' is outside the media root {str(root)!r}"
    assert _reason(root, row({"type": "video", "video": "clip"})) == expected


def test_a_damaged_frame_is_named_with_its_video(tmp_path: Path) -> None:
    picture(tmp_path / "clip" / "1.png")
    (tmp_path / "clip" / "2.png").write_text("no image")
    expected = "video 'clip' frame '2.png' is text, not an image"
    assert _reason(tmp_path, row({"type": "video", "video": "clip"})) == expected


def test_a_video_without_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    expected = "video 'clip' holds no frames (.png, .jpg, .jpeg, .webp, .bmp)"
    assert _reason(tmp_path, row({"type": "video", "video": "clip"})) == expected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("text", 'the row is "text", expected an object'),
        ({"answer": "1"}, "field 'message' is null, expected a list of chat turns"),
        (row() | {"message": "[]"}, "field 'message' is [], expected a list of chat turns"),
        (row() | {"message": "[{"}, "field 'message' is not valid JSON: Expecting property name enclosed in double "
         "quotes at column 3"),
        (row() | {"message": "[" * 100_000}, "field 'message' is not valid JSON: nested too deeply"),
        (row() | {"message": [{"role": "bot", "content": "hi"}]},
         "field 'message' has a turn with role \"bot\", expected system, user, assistant"),
        (row() | {"message": ["hi"]}, "field 'message' has a turn with role null, expected system, user, assistant"),
        (row() | {"message": [{"role": "user", "content": []}]},
         "field 'message' has a turn with content [], expected text or parts"),
        (row({"type": "audio", "audio": "a.wav"}),
         "field 'message' has a part of type \"audio\", expected text, image, video"),
        (row({"type": "image"}), "field 'message' has a part whose 'image' is null, expected text"),
        (row(text("\ud800")), "field 'message' is not valid Unicode at character 1"),
        (row(response=""), "field 'response' is \"\", expected text"),
        (row(image=3), "field 'image' is 3, expected a path or a list of paths"),
        (row(img=3), "field 'img' is 3, expected a path or a list of paths"),
        (row(image=["a.png", ""]), "field 'image' is [\"a.png\", \"\"], expected a path or a list of paths"),
        (row(text("<image> or <image> ?"), image="a.png"),
         "the prompt has 2 '<image>' placeholders, the row has 1 images"),
        (row(question="\ud800"), "field 'question' is not valid Unicode at character 1"),
        ({"message": [{"role": "system", "content": "hi"}], "answer": "1", "image": "a.png"},
         "field 'message' has no user turn that could hold the images of field 'image'"),
    ],
)  # fmt: skip
def test_a_malformed_row_is_refused_naming_field_and_value(tmp_path: Path, bad: Any, reason: str) -> None:
    assert _reason(tmp_path, bad) == reason


def test_every_broken_line_is_listed_with_its_number(tmp_path: Path) -> None:
    good = json.dumps(row())
    (tmp_path / "d.jsonl").write_text("\n".join([good, "{", good, '{"message": ' + "9" * 5000 + "}"]))
    dataset = read(tmp_path / "d.jsonl")
    assert len(dataset.prompts) == 2
    assert dataset.bad_rows == (
        BadRow(2, "not valid JSON: Expecting property name enclosed in double quotes at column 2"),
        BadRow(4, "not valid JSON: a number is too long"),
    )


def test_the_fingerprint_follows_the_bytes_of_the_images_and_the_rows(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    file = write_jsonl(tmp_path / "d.jsonl", row(image("a.png")))
    first = read(file).fingerprint
    assert read(file).fingerprint == first
    picture(tmp_path / "a.png", color="blue")
    repainted = read(file).fingerprint
    write_jsonl(file, row(image("a.png"), answer="1"))
    assert len({first, repainted, read(file).fingerprint}) == 3


def test_an_image_shared_by_many_rows_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no image")
    reads: list[str] = []
    read_bytes = media.read_bytes

    def counted(path: Path, *, most: int) -> bytes:
        reads.append(Path(path).name)
        return read_bytes(path, most=most)

    monkeypatch.setattr(media, "read_bytes", counted)
    rows = [row(image(name)) for name in ("a.png", "b.png") for _ in range(20)]
    dataset = read(write_jsonl(tmp_path / "d.jsonl", *rows))
    assert (len(dataset.prompts), len(dataset.bad_rows)) == (20, 20)
    assert sorted(reads) == ["a.png", "b.png"]
