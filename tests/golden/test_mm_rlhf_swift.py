"""Pairs of MM-RLHF in swift's fields against its own conversion.

Ours deviates on purpose: what the original aborts at costs its own instruction, a row with an image and a video is bad
instead of a video, and a question about an image always names it, as the original's own loader has it.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.data.exporting import export_swift
from tests.golden.vectors import Case, select
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported

FILE = "mm_rlhf_swift.json"
SOURCE = "scripts/convert_to_swift.py:1-62"
ROOT = "{your_path_to_mmrlhf}/MM-RLHF/"
FIELDS = ("question", "response", "rejected_response")
BAD_ROWS = {
    "row_with_both_keys_goes_to_video": [(1, "the row has both of 'image' and 'video', expected one of the two")],
    "missing_second_file_aborts": [(2, "image 'mcq/s14.png' is not found under the media root")],
    "row_with_neither_key_raises": [(2, "the row has neither of 'image' and 'video', expected one of the two")],
}
GAINED = {"missing_second_file_aborts": "s15", "row_with_neither_key_raises": "s21"}
"""Id of the row that the original does not reach."""
NAMED = {"\u00e9\u4e2d\ns": "<image>\n\u00e9\u4e2d\ns"}


def _rooted(row: dict[str, Any], root: Path) -> dict[str, Any]:
    return {key: value.replace(ROOT, f"{root}/") if isinstance(value, str) else value for key, value in row.items()}


def _make_media(row: dict[str, Any], root: Path, missing: list[str]) -> None:
    if "image" in row and row["image"] not in missing:
        picture(root / row["image"])
    if "video" in row:
        picture(root / row["video"] / "frame_01.png")


def _expected(case: Case, kind: str, root: Path) -> list[dict[str, Any]]:
    """The original's file, with what it lacks by the deviations above."""
    lost = {row["video"] for row in case.inputs["rows"] if "video" in row and "image" in row}
    rows = [_rooted(row, root) for row in case.outputs[f"{kind}_rows"]]
    kept = [row for row in rows if not any(row[kind].endswith(name) for name in lost)]
    gained = [r for r in case.inputs["rows"] if kind == "image" and r["id"] == GAINED.get(case.name)]
    kept += [
        {"image": f"{root}/{r['image']}", **dict(zip(FIELDS, (r["prompt"], r["chosen"], r["rejected"]), strict=True))}
        for r in gained
    ]
    return [row | {"question": NAMED.get(row["question"], row["question"])} for row in kept]


@pytest.mark.parametrize("case", select(FILE, SOURCE), ids=lambda case: case.name)
def test_lines_have_the_fields_of_the_original_in_its_order(tmp_path: Path, case: Case) -> None:
    given = [_rooted(row, tmp_path) for row in case.inputs["rows"]]
    for row in given:
        _make_media(row, tmp_path, case.inputs["missing_files"])
    store = imported(tmp_path, "mm_rlhf_pairs", *given, max_bad_frac=0.5)
    export_swift(store, tmp_path / "out.jsonl", split="train")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    for kind in ("image", "video"):
        ours = [{name: line[name] for name in (kind, *FIELDS)} for line in lines if kind in line]
        assert ours == _expected(case, kind, tmp_path)
    bad = [(row.row, row.reason) for row in store.bad_rows()]
    expected = BAD_ROWS.get(case.name, [])
    assert [number for number, _ in bad] == [number for number, _ in expected]
    assert all(found.startswith(start) for (_, found), (_, start) in zip(bad, expected, strict=True))


def test_ids_reasons_and_factors_are_kept_where_the_original_drops_them(tmp_path: Path) -> None:
    (case,) = [case for case in select(FILE, SOURCE) if case.name == "three_image_rows"]
    for row in case.inputs["rows"]:
        _make_media(row, tmp_path, [])
    store = imported(tmp_path, "mm_rlhf_pairs", *case.inputs["rows"])
    export_swift(store, tmp_path / "out.jsonl", split="train")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(r["source_id"], r.get("chosen_reason"), r.get("ls_factor")) for r in lines] == [
        ("s1", "x", None),
        ("s2", None, 0.5),
        ("s3", None, None),
    ]
