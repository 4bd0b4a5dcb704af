"""``python -m orchestrator.data``: what it prints, and its exit code."""

from pathlib import Path

import pytest

from orchestrator.data.__main__ import main
from tests.unit.data.rows import image, picture, row, text, write_jsonl
from tests.unit.data.store_rows import feedback, rated


def test_check_lists_every_bad_row_and_sums_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png", color="red")
    picture(tmp_path / "b.png", color="blue")
    file = write_jsonl(
        tmp_path / "d.jsonl",
        row(image("a.png"), answer="1"),
        row(image("x.png")),
        row(image("b.png"), image("a.png")),
        row(answer="3"),
        row(),
    )
    assert main(["check", str(file)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "read as r1_reward",
        f"row 2: image 'x.png' is not found under the media root {str(tmp_path)!r}",
        "row 4: field 'answer' is \"3\", expected 1 or 2",
        "rows    5: 3 good, 2 bad",
        "images  2 different",
        "labels  1 say 1, 2 say 2",
        "rows without an image: 1 of 3; the first is row 5: others have one",
    ]


def test_check_of_a_good_file_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(write_jsonl(tmp_path / "d.jsonl", row()))]) == 0
    assert capsys.readouterr().out.startswith("read as r1_reward\nrows    1: 1 good, 0 bad\n")


def test_check_applies_the_given_root_and_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "media" / "a.png", size=(6, 4))
    file = str(write_jsonl(tmp_path / "d.jsonl", row(image("a.png"))))
    settings = ["--media-root", str(tmp_path / "media"), "--max-pixels"]
    assert main(["check", file, *settings, "24"]) == 0
    assert main(["check", file, *settings, "23"]) == 2
    assert "row 1: image 'a.png' has 6 x 4 = 24 pixels, more than max_pixels = 23\n" in capsys.readouterr().out


@pytest.mark.parametrize("verb", [["check"], ["show", "--row", "1"]])
def test_a_file_that_cannot_be_read_at_all_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    missing, empty = tmp_path / "x.jsonl", tmp_path / "empty.jsonl"
    empty.touch()
    assert main([*verb, str(missing)]) == main([*verb, str(empty)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"refused: data file {str(missing)!r} is not a file",
        f"refused: data file {str(empty)!r} is empty: 0 rows, at least 1 is needed",
    ]


def test_a_limit_below_1_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_jsonl(tmp_path / "d.jsonl", row()))
    assert main(["check", file, "--max-pixels", "0"]) == 2
    assert capsys.readouterr().err == "refused: --max-pixels = 0: must be at least 1\n"


def test_show_prints_a_row_as_the_model_sees_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = picture(tmp_path / "a.png", size=(6, 4))
    shown = row(text("which\none\x1b[2J ?"), image("a.png"), response="the second")
    file = write_jsonl(tmp_path / "d.jsonl", row(answer="3"), shown)
    assert main(["show", str(file), "--row", "2", "--format", "r1_reward"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "uid    d-000002",
        "label  2",
        "user:",
        "  which",
        "  one\N{REPLACEMENT CHARACTER}[2J ?",  # a terminal would have cleared its screen
        f"  [image {path}, 6 x 4]",
        "response:",
        "  the second",
    ]


def test_show_refuses_a_bad_row_and_a_row_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(write_jsonl(tmp_path / "d.jsonl", row(answer="3"), row()))
    assert main(["show", file, "--row", "1"]) == main(["show", file, "--row", "3"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "refused: row 1: field 'answer' is \"3\", expected 1 or 2",
        f"refused: --row 3 is no row of {file!r}, which holds 2",
    ]


def test_check_tells_what_is_odd_with_the_first_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a.png")
    rows = [
        row(image("a.png")),
        row(image("a.png"), source="x"),
        row(text("why ?"), response="so"),
        row(image("a.png")),
    ]
    rows += [row(image("a.png"), answer="1"), row(image("a.png"), answer="1", mark="7")]
    assert main(["check", str(write_jsonl(tmp_path / "d.jsonl", *rows))]) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "key 'source' is not read: 1 row has it, row 2",
        "key 'mark' is not read: 1 row has it, row 6",
        "rows without an image: 1 of 6; the first is row 3: others have one",
        "rows like an earlier one: 3 of 6; the first is row 2: the same as row 1",
        "rows with another label than an earlier one: 2 of 6; "
        "the first is row 5: the question of row 1, whose label is 2",
        "rows not learned from by imitation (sft): 5 of 6; the first is row 1: it has no response",
    ]


def test_check_tells_who_passes_over_which_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tie = [rated("4", "4", "4"), rated("4", "4", "4", response="that")]
    rows = [feedback(id=1), feedback(*tie, id=2), feedback(rated("5", "5", "5"), prompt="why ?", id=1)]
    assert main(["check", str(write_jsonl(tmp_path / "d.jsonl", *rows)), "--format", "vlfeedback"]) == 0
    printed = capsys.readouterr().out
    assert printed.endswith(
        "ids given twice: 1 of 3; the first is row 3: the id of row 1\n"
        "rows not learned from by pairs (dpo and the like): 2 of 3, for 2 reasons\n"
        "  1; the first is row 2: all its responses tie\n"
        "  1; the first is row 3: it has 1 responses, a pair needs 2\n"
        "rows not learned from by labels (kto): 1 of 3; the first is row 2: all its responses tie\n"
    )
