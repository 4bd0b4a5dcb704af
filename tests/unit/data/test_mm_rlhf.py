"""The two files of MM-RLHF: what an instruction becomes, and the sentence for what it may not be."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.__main__ import main
from orchestrator.data.pairs import preference_pairs
from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import BadRow
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import MM_RLHF, compared, good_row, ranked, records, the_record

IMAGE = {"type": "image"}
KNOWN_PAIR_KEYS = (
    "prompt, chosen, rejected, image, video, id, category, chosen_reason, rejected_reason, is_tie, ls_factor, "
    "reference_chosen_logp, reference_rejected_logp, mix_reference_chosen_logp, mix_reference_rejected_logp, "
    "mixed_up_image, conversations"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    picture(tmp_path / "a.png")
    return tmp_path


def answers(*texts: str) -> list[dict[str, Any]]:
    return [{"response": text} for text in texts]


def _sides(record: Instruction) -> set[tuple[str, str]]:
    texts = [response.text for response in record.responses]
    return {(texts[p.chosen], texts[p.rejected]) for p in preference_pairs(record.responses, score_margin=0.0)}


@pytest.mark.parametrize("reader", MM_RLHF)
def test_the_media_come_first_wherever_the_prompt_has_them(tmp_path: Path, reader: str) -> None:
    for name in ("mcq/long.png", "b.png", "video/clip/1.png"):
        picture(tmp_path / name)
    rows = [
        good_row(reader, image="mcq/long.png", prompt="<image>\nwhich ?"),
        good_row(reader, image=["mcq/long.png", "b.png"], prompt="of these <image> which ?"),
        good_row(reader, video="./video/clip", prompt="<image>\nwhich ?<video>"),
        good_row(reader, image="b.png"),
    ]
    made = [record for record in records(tmp_path, reader, *rows) if isinstance(record, Instruction)]
    words = ["which ?", "of these  which ?", "which ?", "which ?"]
    assert [record.messages[0]["content"] for record in made] == [
        [*[IMAGE] * num_images, {"type": "text", "text": text}]
        for num_images, text in zip((1, 2, 1, 1), words, strict=True)
    ]
    # The first component counts: the first image is no long one.
    assert [record.meta.get("category") for record in made] == ["mcq", "mcq", "video", None]
    assert [record.meta.get("video") for record in made] == [None, None, "video/clip", None]


@pytest.mark.parametrize("reader", MM_RLHF)
def test_an_empty_folder_of_frames_costs_its_own_row(folder: Path, reader: str) -> None:
    (folder / "video").mkdir()
    first, bad, third = records(folder, reader, *(good_row(reader, **m) for m in ({}, {"video": "video"}, {})))
    assert bad == BadRow(2, "video 'video' holds no frames (.png, .jpg, .jpeg, .webp, .bmp)")
    assert isinstance(first, Instruction) and isinstance(third, Instruction)


@pytest.mark.parametrize("reader", MM_RLHF)
@pytest.mark.parametrize(
    ("media", "reason"),
    [
        ({"image": None}, "the row has neither of 'image' and 'video', expected one of the two"),
        ({"image": []}, "the row has neither of 'image' and 'video', expected one of the two"),
        ({"image": "a.png", "video": "v"}, "the row has both of 'image' and 'video', expected one of the two"),
        ({"video": ["v", "w"]}, "field 'video' names 2 folders, expected one"),
        ({"image": 3}, "field 'image' is 3, expected a path or a list of paths"),
        ({"prompt": "<image>\n"}, "field 'prompt' is \"<image>\\n\", expected text beside the placeholder"),
    ],
)
def test_a_row_has_one_kind_of_media_and_words(folder: Path, reader: str, media: dict[str, Any], reason: str) -> None:
    assert records(folder, reader, good_row(reader, **media)) == [BadRow(1, reason)]


def test_rows_of_one_id_are_one_instruction_wherever_they_stand(folder: Path) -> None:
    rows = [
        compared("a", "b", id="x", chosen_reason="good", rejected_reason="bad", ls_factor=2),
        compared("c", "d", id="y"),
        compared("b", "c", id="x", chosen_reason="better", rejected_reason=" "),
        compared("a", "c", id="x", chosen_reason="good", ls_factor=0.5),
    ]
    first, second = records(folder, "mm_rlhf_pairs", *rows)
    assert isinstance(first, Instruction) and isinstance(second, Instruction)
    assert first.responses == (
        Response(text="a", rank=1, critique="good"),
        Response(text="b", rank=2, critique="bad\nbetter"),
        Response(text="c", rank=3),
    )
    assert first.meta == {"id": "x", "ls_factor": [[0, 1, 2.0], [0, 2, 0.5]]}
    assert (first.uid, second.uid) == ("d-000001", "d-000002")
    assert _sides(first) == {("a", "b"), ("a", "c"), ("b", "c")}
    assert (_sides(second), second.meta) == ({("c", "d")}, {"id": "y"})


def test_a_tie_gives_equal_ranks(folder: Path) -> None:
    rows = [compared("a", "b", id="x", is_tie=True), compared("b", "c", id="x"), compared("a", "c", id="x")]
    (record,) = records(folder, "mm_rlhf_pairs", *rows)
    assert isinstance(record, Instruction)
    assert [response.rank for response in record.responses] == [1, 1, 2]
    assert record.meta == {"id": "x"}


def test_pairs_that_are_in_no_row_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        compared("a", "b", id="x"),
        compared("b", "c", id="x"),  # a > c follows
        compared("a", "b", id="y"),
        compared("c", "d", id="y"),  # a and d were not compared, nor c and b: they are no pair
        compared("a", "b", id="z"),
    ]
    first, second, third = records(folder, "mm_rlhf_pairs", *rows)
    assert isinstance(first, Instruction) and isinstance(second, Instruction) and isinstance(third, Instruction)
    assert _sides(first) == {("a", "b"), ("b", "c"), ("a", "c")}
    assert _sides(second) == {("a", "b"), ("c", "d")}
    assert [r.meta.get("num_pairs_added") for r in (first, second, third)] == [1, None, None]
    assert main(["check", str(folder / "d.jsonl"), "--format", "mm_rlhf_pairs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["pairs   6; 0 rows make none", "added   1 of the pairs are in no line of the file, in 1 rows"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", "b"), ("b", "c"), ("c", "a")],
         '"a" > "b" (row 1), "b" > "c" (row 2), "c" > "a" (row 3)'),
        ([("a", "b"), ("b", "a")], '"a" > "b" (row 1), "b" > "a" (row 2)'),
        ([("a", "b"), ("b", "a", True)], '"a" > "b" (row 1), "b" = "a"'),
    ],
)  # fmt: skip
def test_a_cycle_costs_its_own_instruction_and_is_named(folder: Path, rows: list[Any], told: str) -> None:
    file = [compared(*row[:2], id="x", is_tie=len(row) > 2) for row in rows]
    bad, good = records(folder, "mm_rlhf_pairs", *file, compared(id="y"))
    assert isinstance(good, Instruction)
    assert bad == BadRow(1, f"the preferences form a cycle: {told}")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"score": 1, "gt": 2},
         f'the row has keys that are not in the declared map: "score", "gt"; the map has {KNOWN_PAIR_KEYS}'),
        ({"id": None}, "field 'id' is null, expected text or a whole number"),
        ({"id": True}, "field 'id' is true, expected text or a whole number"),
        ({"chosen": ""}, "field 'chosen' is \"\", expected text"),
        ({"chosen": "that"}, "fields 'chosen' and 'rejected' are the same text, \"that\""),
        ({"is_tie": "yes"}, "field 'is_tie' is \"yes\", expected true or false"),
        ({"ls_factor": "1"}, "field 'ls_factor' is \"1\", expected a finite number"),
        ({"ls_factor": float("nan")}, "field 'ls_factor' is NaN, expected a finite number"),
        ({"ls_factor": 10**400}, f"field 'ls_factor' is 1{'0' * 79} ..., expected a finite number"),
        ({"chosen_reason": ["a"]}, "field 'chosen_reason' is [\"a\"], expected text"),
    ],
)  # fmt: skip
def test_a_bad_comparison_is_told_by_field_and_value(folder: Path, fields: dict[str, Any], reason: str) -> None:
    first, bad, third = records(folder, "mm_rlhf_pairs", compared(), compared(**fields), compared())
    assert bad == BadRow(2, reason)
    assert isinstance(first, Instruction) and isinstance(third, Instruction)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"chosen": 3}, "row 3 of the same id: field 'chosen' is 3, expected text"),
        ({"prompt": "another"}, "row 3 has the id of row 2, but another prompt or other media"),
        ({"image": "b.png"}, "row 3 has the id of row 2, but another prompt or other media"),
        ({"ls_factor": 2}, "row 3 gives a pair ls_factor = 2, before it was 1"),
    ],
)
def test_a_bad_row_costs_its_whole_instruction(folder: Path, second: dict[str, Any], reason: str) -> None:
    rows = [compared(), compared(id="x", ls_factor=1), compared(**{"id": "x", **second}), compared()]
    first, bad, last = records(folder, "mm_rlhf_pairs", *rows)
    assert bad == BadRow(2, reason)
    assert isinstance(first, Instruction) and isinstance(last, Instruction)


def test_a_row_of_data_keeps_ranks_reasons_models_and_scores(folder: Path) -> None:
    made = [
        {
            "response": "a",
            "model": "gpt-4o",
            "reason": "right",
            "helpfulness": 5,
            "faithfulness": 4.5,
            "ethics": "high",
        },
        {"response": "b", "reason": ""},
        {"response": "c"},
    ]
    record = the_record(folder, "mm_rlhf", ranked("1>2=3", *made, ranking_reason="a is right", answer="a"))
    assert record.responses == (
        Response(text="a", rank=1, critique="right", provenance="gpt-4o"),
        Response(text="b", rank=2),
        Response(text="c", rank=2),
    )
    assert record.meta == {
        "id": "m-1",
        "ranking_reason": "a is right",
        "scores": [{"helpfulness": 5, "faithfulness": 4.5, "ethics": "high"}, {}, {}],
        "answer": "a",  # the ranking counts it not: it is no response
    }


@pytest.mark.parametrize(
    ("ranking", "rank", "provenance"), [("3>1=2", 1, "tie_positive"), ("1=2>3", 2, "tie_negative")]
)
def test_the_answer_to_a_tie_is_a_response(folder: Path, ranking: str, rank: int, provenance: str) -> None:
    record = the_record(folder, "mm_rlhf", ranked(ranking, answer="mine"))
    assert record.responses[2] == Response(text="mine", rank=rank, provenance=provenance)
    assert len(_sides(record)) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ranked("1>2", gt="a", boxes=[]),
         'the row has keys that are not in the declared map: "gt", "boxes"; the map has '
         "id, prompt, image, video, responses, ranking, ranking_reason, answer"),
        (ranked("1>2", {"response": "a"}, {"text": "b"}),
         'response 2 has keys that are not in the declared map: "text"; the map has '
         "response, model, reason, helpfulness, faithfulness, ethics"),
        (ranked("1>2", {"response": "a"}),
         "field 'responses' is [{\"response\": \"a\"}], expected a list of 2 or more responses"),
        (ranked("1>2", {"response": "a", "model": 3}, {"response": "b"}), "field 'model' is 3, expected text"),
        (ranked("1>2", {"response": "a", "ethics": []}, {"response": "b"}),
         "field 'ethics' is [], expected a finite number or text"),
        (ranked("first"),
         "field 'ranking' is \"first\", expected each of the numbers 1 to 2 once, joined by '>' and '='"),
        (ranked("1>2>3"),
         "field 'ranking' is \"1>2>3\", expected each of the numbers 1 to 2 once, joined by '>' and '='"),
        (ranked("1=2", answer="a"),
         "field 'ranking' is \"1=2\", which does not say whether field 'answer', written for a tie, is better or worse "
         "than the others"),
        (ranked("1>3>2", answer="a"),
         "field 'ranking' is \"1>3>2\", by which field 'answer' is neither better nor worse than all others"),
    ],
)  # fmt: skip
def test_a_bad_row_of_data_is_told_by_field_and_value(folder: Path, row: dict[str, Any], reason: str) -> None:
    first, bad, third = records(folder, "mm_rlhf", ranked("1>2"), row, ranked("1>2"))
    assert bad == BadRow(2, reason)
    assert isinstance(first, Instruction) and isinstance(third, Instruction)


def test_a_file_with_other_keys_is_refused_naming_them(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)  # of a long path the sentence would show less
    write_jsonl(folder / "d.jsonl", {"question": "which ?", "img": "a.png"})
    assert main(["import", "d.jsonl", "--out", str(folder / "store"), "--format", "mm_rlhf"]) == 2
    assert 'not in the declared map: "question", "img"; the map has id, prompt' in capsys.readouterr().err
