"""``python -m orchestrator.data import``, and ``check`` and ``show`` on what it made: outputs and exit codes."""

from pathlib import Path

import pytest

from orchestrator.data.__main__ import main
from orchestrator.data.store import PreferenceStore
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import FORMATS, good_row, plain, query


def _import(folder: Path, *rows: dict, flags: tuple[str, ...] = ()) -> int:
    file = write_jsonl(folder / "d.jsonl", *rows)
    return main(["import", str(file), "--out", str(folder / "store"), "--format", "plain_dpo", *flags])


@pytest.mark.parametrize("reader", FORMATS)
def test_every_format_is_checked_imported_and_shown_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], reader: str
) -> None:
    picture(tmp_path / "a.png")
    file = str(write_jsonl(tmp_path / "d.jsonl", good_row(reader), good_row(reader)))
    out = str(tmp_path / "store")
    assert main(["check", file, "--format", reader]) == 0
    assert main(["import", file, "--out", out, "--format", reader]) == 0
    capsys.readouterr()
    shown = []
    for arguments in ([file, "--format", reader], [out]):
        assert main(["show", *arguments, "--row", "2"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith("uid    d-000002\n")


def test_import_lists_bad_rows_and_says_what_the_store_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "a.png", size=(6, 4))
    rows = [plain(image="a.png"), plain(chosen=3), plain(prompt="b")]
    assert _import(tmp_path, *rows, flags=("--max-bad-frac", "0.5")) == 0
    expected = [
        "row 2: field 'chosen' is 3, expected text",
        "rows    3: 2 good, 1 bad",
        "images  1",
        "responses  4, 4 with a rank or a score",
        "pairs   2; 0 rows make none",
        "rows without an image: 1 of 2; the first is row 3: others have one",
    ]
    assert capsys.readouterr().out.splitlines() == [*expected, f"store   {tmp_path / 'store'}"]
    assert main(["check", str(tmp_path / "store")]) == 0
    assert capsys.readouterr().out.splitlines() == expected
    assert main(["show", str(tmp_path / "store"), "--row", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "uid    d-000001",
        "user:",
        f"  [image {tmp_path / 'a.png'}, 6 x 4]",
        "  which ?",
        "response 1 of 2, rank 1:",
        "  this",
        "response 2 of 2, rank 2:",
        "  that",
    ]


def test_a_share_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [plain(prompt=f"p{n}") for n in range(20)]
    assert _import(tmp_path, *rows, flags=("--held-out-frac", "0.5")) == 0
    store = PreferenceStore(tmp_path / "store")
    train, held_out = store.num_instructions("train"), store.num_instructions("held_out")
    assert (train + held_out, min(train, held_out) > 0) == (20, True)
    assert f"splits  {train} train, {held_out} held out\n" in capsys.readouterr().out


def test_media_are_found_under_the_root_that_is_given(tmp_path: Path) -> None:
    picture(tmp_path / "media" / "a.png")
    assert _import(tmp_path, plain(image="a.png"), flags=("--media-root", str(tmp_path / "media"))) == 0
    assert PreferenceStore(tmp_path / "store").media_root == tmp_path / "media"


def test_a_row_of_a_store_that_is_bad_or_not_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _import(tmp_path, plain(), plain(chosen=3), flags=("--max-bad-frac", "0.5")) == 0
    store = str(tmp_path / "store")
    assert main(["show", store, "--row", "2"]) == main(["show", store, "--row", "3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "refused: row 2: field 'chosen' is 3, expected text",
        f"refused: --row 3 is no row of {store!r}, which holds 2",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--held-out-frac", "1"), "--held-out-frac = 1: must be at least 0 and below 1"),
        (("--held-out-frac", "nan"), "--held-out-frac = nan: must be at least 0 and below 1"),
        (("--max-bad-frac", "-0.1"), "--max-bad-frac = -0.1: must be from 0 to 1"),
        (("--video-frames", "0"), "--video-frames = 0: must be at least 1"),
        (("--media-root", "no/such"), "--media-root 'no/such' is not a folder"),
    ],
)
def test_a_setting_out_of_bounds_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    assert _import(tmp_path, plain(), flags=flags) == 2
    assert capsys.readouterr().err == f"refused: {message}\n"
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_a_file_that_is_empty_missing_or_too_bad_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = repr(str(tmp_path / "d.jsonl"))
    assert _import(tmp_path) == _import(tmp_path, plain(), plain(chosen=3)) == 2
    assert main(["import", str(tmp_path / "x"), "--out", str(tmp_path / "s"), "--format", "plain_dpo"]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"refused: data file {name} is empty: 0 rows, at least 1 is needed",
        f"refused: data file {name} has 1 bad rows out of 2, --max-bad-frac = 0 allows 0; "
        "the first is row 2: field 'chosen' is 3, expected text",
        f"refused: data file {str(tmp_path / 'x')!r} is not a file",
        f"refused: store {str(tmp_path / 'empty')!r} has no manifest.json: it does not exist, or was never finished",
    ]


def test_what_nobody_reads_is_told_once_by_check_and_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [plain(source="web"), plain(prompt="b"), plain(prompt="c", source="web", lang="en")]
    told = [
        "key 'source' is not read: 2 rows have it, the first is row 1",
        "key 'lang' is not read: 1 row has it, row 3",
        "none of the 3 rows has an image",
    ]
    assert _import(tmp_path, *rows) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [*told, f"store   {tmp_path / 'store'}"]
    for arguments in ([str(tmp_path / "d.jsonl"), "--format", "plain_dpo"], [str(tmp_path / "store")]):
        assert main(["check", *arguments]) == 0
        assert capsys.readouterr().out.splitlines()[-3:] == told


def test_rows_whose_column_can_only_be_a_picture_keep_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    row = plain(image_path="a.png", history=[["earlier", "turn"]], system="Be brief.")
    assert _import(tmp_path, row) == 0
    assert capsys.readouterr().out.splitlines()[:3] == [
        "rows    1: 1 good, 0 bad",
        "images  1",
        "context 1 earlier answers stand in prompts: nothing is learned from them",
    ]


def test_a_preference_file_is_no_file_of_demonstrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LLaVA-RLHF's, POVID's and LLaMA-Factory's files all have conversations."""
    judged = [
        {"output_1": {"value": "a"}, "output_2": {"value": "b"}, "preference": 1, "hallucination": False},
        {"rejected_conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "no"}]},
        {"kto_tag": False},
        {"chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}},
    ]
    file = str(write_jsonl(tmp_path / "d.jsonl", *(query(**fields) for fields in judged)))
    assert main(["check", file, "--format", "vlquery_json"]) == 2
    told = capsys.readouterr().out.splitlines()
    assert all(line.endswith(", a preference, which this format does not read") for line in told[:4])
    assert told[4] == "rows    4: 0 good, 4 bad"


def test_a_conversation_is_counted_by_row_and_by_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    turns = (("human", "<image>\nwhich ?"), ("gpt", "this"), ("human", "why ?"), ("gpt", "so"))
    file = str(write_jsonl(tmp_path / "d.jsonl", query(*turns, image="a.png"), query(), query(("human", "hi"))))
    out = str(tmp_path / "store")
    assert main(["import", file, "--out", out, "--format", "vlquery_json", "--max-bad-frac", "0.4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "row 3: field 'conversations' ends with a turn of the user, expected an answer to a user turn",
        "rows    3: 2 good, 1 bad",
        "images  1",
        "learned 3 answers: every one of a conversation",
        "responses  3, 0 with a rank or a score",
        "rows without an image: 1 of 2; the first is row 2: others have one",
        f"store   {out}",
    ]
    shown = []
    for arguments in ([file, "--format", "vlquery_json"], [out]):
        assert main(["show", *arguments, "--row", "1"]) == 0
        shown.append(capsys.readouterr().out)
        assert main(["show", *arguments, "--row", "4"]) == 2
        assert capsys.readouterr().err.endswith("which holds 3\n")
    assert shown[0] == shown[1]
    assert [line for line in shown[0].splitlines() if line.startswith("uid")] == [
        "uid    d-000001.1",
        "uid    d-000001.2",
    ]
