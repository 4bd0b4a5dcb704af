"""``python -m orchestrator.data export``: the pairs of a store as a file, and back."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.__main__ import main
from orchestrator.data.exporting import swift_rows
from orchestrator.data.pairs import preference_pairs, tied_pairs
from orchestrator.data.records import Instruction, Response, StoredMedia
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import compared, feedback, imported, labelled, plain, ranked, rated


def _export(folder: Path, *flags: str) -> int:
    return main(["export", str(folder / "store"), str(folder / "out.jsonl"), "--format", "swift", *flags])


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]


def _exported(folder: Path, reader: str, *rows: Any) -> list[dict[str, Any]]:
    imported(folder, reader, *rows)
    assert _export(folder) == 0
    return _lines(folder)


def _said(instruction: Instruction) -> tuple[Any, ...]:
    """What an instruction says, whatever the order of its responses."""
    responses, meta = instruction.responses, dict(instruction.meta)
    factors = {(c, r): f for c, r, f in meta.pop("ls_factor", ())}
    pairs = preference_pairs(responses, score_margin=0.0)
    meta |= {"video": Path(meta["video"]).name} if "video" in meta else {}  # a path is absolute once it was exported
    return (
        instruction.messages,
        instruction.media,
        meta,
        {(responses[p.chosen].text, responses[p.rejected].text, factors.get((p.chosen, p.rejected))) for p in pairs},
        {(r.text, r.critique, r.rank, r.score, r.provenance) for r in responses},
        {frozenset(responses[side].text for side in pair) for pair in tied_pairs(responses)},
    )


def test_a_line_has_the_fields_of_swift_and_what_is_known(tmp_path: Path) -> None:
    picture(tmp_path / "mcq" / "a.png")
    picture(tmp_path / "video" / "v" / "1.png")
    rows = [
        compared("a", "b", id="x", image="mcq/a.png", chosen_reason="good", ls_factor=2),
        compared("b", "c", id="x", image="mcq/a.png"),
        compared("c", "d", id=7, video="video/v", prompt="<image>\nwhy ?"),
    ]
    image = {"image": str(tmp_path / "mcq" / "a.png"), "question": "<image>\nwhich ?", "category": "mcq"}
    image |= {"id": "d-000001", "source_id": "x"}
    assert _exported(tmp_path, "mm_rlhf_pairs", *rows) == [
        {**image, "response": "a", "rejected_response": "b", "chosen_reason": "good", "ls_factor": 2.0},
        {**image, "response": "a", "rejected_response": "c", "chosen_reason": "good"},
        {**image, "response": "b", "rejected_response": "c"},
        {"video": str(tmp_path / "video" / "v"), "question": "why ?", "response": "c", "rejected_response": "d",
         "id": "d-000003", "source_id": 7, "category": "video"},
    ]  # fmt: skip


def test_what_is_exported_is_read_back_as_the_same_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mcq/a.png", "mcq/b.png", "video/v/1.png", "video/v/2.png"):
        picture(tmp_path / name)
    four = [{"response": text, "reason": f"about {text}"} for text in "abcd"]
    rows = [
        ranked("1>2=3>4", *four, id="x", image="mcq/a.png"),
        ranked("2>1", id="y", image=["mcq/b.png", "mcq/a.png"]),
        ranked("1=2", id="none", image="mcq/a.png"),
        ranked("3>1=2", id="z", video="video/v", answer="the other"),
    ]
    assert len(_exported(tmp_path, "mm_rlhf", *rows)) == 5 + 1 + 2
    expected = "pairs   8 of 3 instructions; 1 make none, the first is d-000003: all its responses tie\n"
    assert capsys.readouterr().out == expected
    out = str(tmp_path / "again")
    file = str(tmp_path / "out.jsonl")
    assert main(["import", file, "--out", out, "--format", "mm_rlhf_pairs", "--media-root", str(tmp_path)]) == 0
    before, after = (list(PreferenceStore(tmp_path / name).rows()) for name in ("store", "again"))
    assert [_said(row) for row in after] == [_said(row) for row in before if row.meta["id"] != "none"]


def _read_back(folder: Path) -> list[Instruction]:
    out, file = str(folder / "again"), str(folder / "out.jsonl")
    assert main(["import", file, "--out", out, "--format", "mm_rlhf_pairs", "--media-root", str(folder)]) == 0
    return list(PreferenceStore(folder / "again").rows())


def test_ids_that_repeat_and_rows_without_media_come_back(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [
        plain(id="x", image="a.png"),
        plain(id="x", prompt="这张图片里有什么？", image="a.png", system="be brief"),
        plain(id="x", prompt="no image", history=[["hi", "ho"]]),
        plain(id=1),
    ]
    assert len(_exported(tmp_path, "plain_dpo", *rows)) == 4
    before = list(PreferenceStore(tmp_path / "store").rows())
    assert [_said(row) for row in _read_back(tmp_path)] == [_said(row) for row in before]


def test_images_and_videos_come_back_where_they_stood(tmp_path: Path) -> None:
    for width, name in enumerate(("a.png", "b.png", "c.png", "v/1.png", "v/10.png", "v/2.png"), start=1):
        picture(tmp_path / name, size=(width, 1))
    asked = "Image1: <image>\nImage2: <image>\nImage3: <image>\nwhich ?"
    rows = [
        plain(id=1, images=["a.png", "b.png", "a.png"], prompt=asked),
        plain(id=1, image="a.png", prompt="In the left picture, what?"),
        plain(id=1, image="c.png", prompt="and this ?\n\n<image>", history=[["hi", "ho"]]),
        plain(id=1, video="v", image="b.png", prompt="<video> or <image> ?"),
    ]
    lines = _exported(tmp_path, "plain_dpo", *rows)
    assert lines[0]["question"] == asked
    before = list(PreferenceStore(tmp_path / "store").rows())
    assert [_said(row) for row in _read_back(tmp_path)] == [_said(row) for row in before]


def test_a_video_in_swift_fields_stands_where_its_placeholder_does(tmp_path: Path) -> None:
    for name in ("a.png", "v/1.png", "v/2.png"):
        picture(tmp_path / name)
    line = {"question": "first ?", "response": "this", "rejected_response": "that", "id": "x"}
    rows = [
        line | {"videos": ["v"], "question": "see\n<video>\nwhich ?"},
        line | {"id": "y", "video": "v"},
        line | {"id": "z", "video": "v", "images": ["a.png"], "question": "<image><video>which ?"},
    ]
    made = imported(tmp_path, "mm_rlhf_pairs", *rows)
    first, second, third = made.rows()
    image, text = {"type": "image"}, {"type": "text", "text": "which ?"}
    assert first.messages[0]["content"] == [{"type": "text", "text": "see"}, image, image, text]
    assert second.messages[0]["content"] == [image, image, {"type": "text", "text": "first ?"}]
    assert third.messages[0]["content"] == [image, image, image, text]
    assert _export(tmp_path) == 0
    assert [line["question"] for line in _lines(tmp_path)] == [
        "see<video>\nwhich ?", "first ?", "<image>\n<image>\n<image>\nwhich ?"
    ]  # fmt: skip
    assert [_said(row) for row in _read_back(tmp_path)] == [_said(row) for row in (first, second, third)]


def test_a_part_of_an_order_comes_back(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [compared(*pair, id="x") for pair in ("ab", "cd", "de")] + [compared("e", "f", id="x", is_tie=True)]
    assert {(line["response"], line["rejected_response"]) for line in _exported(tmp_path, "mm_rlhf_pairs", *rows)} == {
        ("a", "b"), ("c", "d"), ("d", "e"), ("c", "e"), ("d", "f"), ("c", "f")
    }  # fmt: skip
    (before,), (after,) = PreferenceStore(tmp_path / "store").rows(), _read_back(tmp_path)
    assert before.meta["num_pairs_added"] == 3
    before.meta.pop("num_pairs_added")  # every pair of the view is in a line now
    assert _said(after) == _said(before)


def test_a_store_of_any_format_is_exported(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = feedback(rated("5"), rated("4", response="that"), img_path="a.png", prompt="of <image> which ?")
    (line,) = _exported(tmp_path, "vlfeedback", row)
    assert line == {
        "image": str(tmp_path / "a.png"),
        "question": "of <image>\n which ?",
        "response": "this",
        "rejected_response": "that",
        "id": "d-000001",
        "source_id": "f-1",
        "chosen_score": 5.0,
        "rejected_score": 4.0,
        "chosen_model": "llava",
        "rejected_model": "llava",
    }


def test_a_row_without_an_id_has_its_uid_and_one_without_media_no_media(tmp_path: Path) -> None:
    sides = {"question": "which ?", "response": "this", "rejected_response": "that"}
    assert _exported(tmp_path, "plain_dpo", plain()) == [{**sides, "id": "d-000001"}]


def test_each_split_has_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(tmp_path, "plain_dpo", *(plain(prompt=f"p{n}") for n in range(20)), held_out_frac=0.5)
    asked, told = [], []
    for split in ("train", "held_out"):
        assert _export(tmp_path, "--split", split) == 0
        told.append(capsys.readouterr().out.splitlines()[-1])
        asked.append({line["question"] for line in _lines(tmp_path)})
        (tmp_path / "out.jsonl").unlink()
    assert asked[0] | asked[1] == {f"p{n}" for n in range(20)}
    assert asked[0] and asked[1] and not asked[0] & asked[1]
    assert told == [f"other   {len(other)} instructions are of another split" for other in reversed(asked)]


def test_what_cannot_be_exported_is_refused_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png")
    imported(tmp_path, "plain_dpo", plain(), plain(prompt="b", image="a.png"))
    (tmp_path / "a.png").unlink()
    assert _export(tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []
    (tmp_path / "out.jsonl").write_text("mine")
    assert _export(tmp_path) == 2
    assert (tmp_path / "out.jsonl").read_text() == "mine"
    assert main(["export", str(tmp_path / "store"), str(tmp_path / "no" / "x"), "--format", "swift"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"refused: instruction 'd-000002': its media {str(tmp_path / 'a.png')!r} are gone",
        f"refused: output file {str(tmp_path / 'out.jsonl')!r} already exists",
        f"refused: output file {str(tmp_path / 'no' / 'x')!r} cannot be made: {str(tmp_path / 'no')!r} is not a folder",
    ]


def test_a_store_without_a_pair_is_refused_and_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = imported(tmp_path, "plain_kto", labelled(), labelled(label=False))
    assert _export(tmp_path) == 2
    told = "the first instruction is d-000001: it has 1 responses, a pair needs 2"
    assert capsys.readouterr().err == f"refused: store {str(store.folder)!r} has no pair in split 'train'; {told}\n"
    assert not (tmp_path / "out.jsonl").exists()


def test_a_response_in_no_pair_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = (rated("5"), rated("4", response="that"), rated("N/A", response="third"))
    assert len(_exported(tmp_path, "vlfeedback", feedback(*made))) == 1
    assert capsys.readouterr().out.splitlines()[1] == "left    1 responses are in no pair, the first of d-000001"


def _instruction(*messages: dict[str, Any], responses: tuple[Response, ...] = (), images: int = 0) -> Instruction:
    sides = responses or (Response(text="this", rank=1), Response(text="that", rank=2))
    image = StoredMedia(sha256="0" * 64, path="a.png", size_bytes=1, width=1, height=1)
    return Instruction(uid="d-000001", split="train", messages=messages, media=(image,) * images, responses=sides)


def _turn(role: str, *parts: str) -> dict[str, Any]:
    content = [{"type": "image"} if part == "IMAGE" else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        (_instruction(_turn("user", "what does <image> mean ?")),
         "a turn of the user holds the text '<image>'; format swift has media stand there"),
        (_instruction(_turn("user", "<vid", "eo>", "IMAGE"), images=1),
         "a turn of the user holds the text '<video>'; format swift has media stand there"),
        (_instruction(_turn("system", "<image>"), _turn("user", "why ?")),
         "a turn of the system holds the text '<image>'; format swift has media stand there"),
        (_instruction(_turn("user", "a"), _turn("user", "b")),
         "it has the turns user, user; format swift takes questions and answers in turn"),
        (_instruction(_turn("user", "a"), _turn("assistant", "b")),
         "it has the turns user, assistant; format swift takes questions and answers in turn"),
        (_instruction(_turn("system", "IMAGE", "a"), _turn("user", "b"), images=1),
         "a turn of the system holds an image; format swift has them in questions"),
        (_instruction(_turn("user", " ")), "a turn of the user is blank"),
        (_instruction(_turn("user", "a"), responses=(
            Response(text="x", score=5.0), Response(text="y", score=3.0), Response(text="x", score=1.0))),
         "responses 1 and 3 are the same text and one is better; format swift tells responses by their text"),
    ],
)  # fmt: skip
def test_what_the_fields_cannot_say_is_refused_by_name(tmp_path: Path, instruction: Instruction, reason: str) -> None:
    picture(tmp_path / "a.png")
    pairs = preference_pairs(instruction.responses, score_margin=0.0)
    with pytest.raises(RefusedInput, match="^" + re.escape(f"instruction 'd-000001': {reason}") + "$"):
        list(swift_rows(instruction, pairs, media_root=tmp_path))


def test_texts_of_several_responses_that_stand_alike_are_one(tmp_path: Path) -> None:
    made = (rated("5", model="a"), rated("5", model="b"), rated("4", response="that"))
    (line,) = _exported(tmp_path, "vlfeedback", feedback(*made))
    assert (line["response"], line["rejected_response"], line["chosen_model"]) == ("this", "that", "a")
