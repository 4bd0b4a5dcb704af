"""A file that cannot serve stops the run with one line: file, row, field, value and bound."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.config.data_section import DataSection
from orchestrator.data.counted import refuse_bad_share
from orchestrator.data.readers import reader_of
from orchestrator.data.reading import Dataset, read_prompts
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import image, row, source, write_jsonl


def _read(path: Path, *, media_root: Path | None = None, max_bad_frac: float = 0.0) -> Dataset:
    dataset = read_prompts(replace(source(path, media_root=media_root), root_option="data.media_root"))
    bad, num_good = dataset.bad_rows, len(dataset.prompts)
    refuse_bad_share(bad, num_good=num_good, name=str(path), option="data.max_bad_frac", max_bad_frac=max_bad_frac)
    return dataset


def _refuses(path: Path, message: str, **settings) -> None:
    assert "\n" not in message
    with pytest.raises(RefusedInput, match=f"^{re.escape(message)}$"):
        _read(path, **settings)


def test_one_bad_row_stops_a_run_that_allows_none(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", row(), row(answer="3"), row(image("x.png")), row())
    message = (
        f"data file {str(file)!r} has 2 bad rows out of 4, data.max_bad_frac = 0 allows 0; "
        "the first is row 2: field 'answer' is \"3\", expected 1 or 2"
    )
    _refuses(file, message)


def test_bad_rows_are_skipped_up_to_the_share_that_is_allowed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", row(), row(answer="3"), row(image("x.png")), row())
    dataset = _read(file, max_bad_frac=0.5)
    assert (len(dataset.prompts), len(dataset.bad_rows)) == (2, 2)
    message = (
        f"data file {str(file)!r} has 2 bad rows out of 4, data.max_bad_frac = 0.49 allows 1; "
        "the first is row 2: field 'answer' is \"3\", expected 1 or 2"
    )
    _refuses(file, message, max_bad_frac=0.49)


def test_a_file_without_one_usable_row_is_refused_whatever_is_allowed(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", row(answer="3"))
    message = (
        f"data file {str(file)!r} has 1 bad rows out of 1, at least 1 must be usable; "
        "the first is row 1: field 'answer' is \"3\", expected 1 or 2"
    )
    _refuses(file, message, max_bad_frac=1.0)


@pytest.mark.parametrize("content", ["", "\n  \n", "[]"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "d.json"
    file.write_text(content)
    _refuses(file, f"data file {str(file)!r} is empty: 0 rows, at least 1 is needed")


def test_a_broken_line_is_refused_with_its_number(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(f'{json.dumps(row())}\n{{"message": ')
    message = (
        f"data file {str(file)!r} has 1 bad rows out of 2, data.max_bad_frac = 0 allows 0; "
        "the first is row 2: not valid JSON: Expecting value at column 13"
    )
    _refuses(file, message)


def test_a_broken_array_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    file.write_text(f"[\n{json.dumps(row())},\n{{]")
    reason = "Expecting property name enclosed in double quotes at line 3 column 2"
    _refuses(file, f"data file {str(file)!r} is not valid JSON: {reason}", max_bad_frac=1.0)


@pytest.mark.parametrize(
    "row", ['{"a": 1, "image": "a.png", "image": "b.png"}', '{"message": "[{\\"role\\": 1, \\"role\\": 2}]"}']
)
def test_a_key_that_is_given_twice_is_refused(tmp_path: Path, row: str) -> None:
    file = tmp_path / "d.jsonl"
    file.write_text(row)
    with pytest.raises(RefusedInput, match=r"row 1: .*not valid JSON: key \"(image|role)\" is given twice$"):
        _read(file)
    file.write_text(f"[{row}]")
    with pytest.raises(RefusedInput, match=r"not valid JSON: key \"(image|role)\" is given twice$"):
        _read(file)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    _refuses(tmp_path / "x.jsonl", f"data file {str(tmp_path / 'x.jsonl')!r} is not a file")
    _refuses(tmp_path, f"data folder {str(tmp_path)!r} holds no file with rows")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "d.jsonl"
    file.write_bytes(b"{\xff")
    _refuses(file, f"data file {str(file)!r} is not UTF-8 text (byte 1)")


def test_a_media_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", row())
    _refuses(file, f"data.media_root {str(file)!r} is not a folder", media_root=file)


def test_every_format_that_can_be_configured_has_a_reader() -> None:
    for name in get_args(DataSection.model_fields["format"].annotation):
        assert reader_of(name).name == name
