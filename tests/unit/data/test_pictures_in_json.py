"""Pictures that stand in rows of JSON: as base64 text, as an address, as a picture's bytes and path."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.data.__main__ import main
from orchestrator.data.reading import SourceFile, read_prompts, read_records
from orchestrator.data.recognising import recognised
from orchestrator.data.records import Instruction
from workers.multimodal.media import load_image
from workers.types import Prompt


def _bytes(shade: int, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (9, 7), (shade, shade, shade)).save(out, kind)
    return out.getvalue()


_TEXT = base64.b64encode(_bytes(40)).decode()
_ADDRESS = f"data:image/png;base64,{_TEXT}"
_ASKED = {"problem": "what ?", "answer": "a"}


def _source(folder: Path, *rows: Any, name: str = "d.jsonl", read_by: str | None = None) -> SourceFile:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(list(rows)))
    found = read_by or recognised(file)
    assert found is not None
    return SourceFile(path=file, read_by=found, media_root=folder, max_pixels=None, video_frames=2)


def _prompt(source: SourceFile) -> Prompt:
    found = read_prompts(source)
    assert not found.bad_rows, found.bad_rows
    (prompt,) = found.prompts
    return prompt


@pytest.mark.parametrize("name", ["d.jsonl", "d.json"])
@pytest.mark.parametrize(
    "fields",
    [
        {"image": _TEXT},
        {"images": [_ADDRESS]},
        {"images": [{"bytes": _TEXT, "path": "x.png"}]},
        {"image": {"bytes": _TEXT, "path": None}},
        {"image_url": _ADDRESS.replace("image/png", "IMAGE/PNG")},
        {"image": "\n".join([_TEXT[:76], _TEXT[76:]])},
    ],
    ids=["text", "address", "bytes in a list", "bytes", "another column", "broken lines"],
)
def test_a_picture_in_a_row_is_a_file_of_its_content(name: str, fields: dict[str, Any], tmp_path: Path) -> None:
    prompt = _prompt(_source(tmp_path, {**_ASKED, **fields}, name=name))
    (ref,) = prompt.media
    assert load_image(ref).getpixel((0, 0)) == (40, 40, 40)
    assert Path(ref.path) == (tmp_path / "raylign_images" / f"{ref.sha256}.png").resolve()
    assert [part["type"] for part in prompt.messages[0]["content"]] == ["image", "text"]


def test_pictures_in_parts_stand_where_the_parts_do(tmp_path: Path) -> None:
    light = base64.b64encode(_bytes(220, "JPEG")).decode()
    content = [
        {"type": "image_url", "image_url": {"url": _ADDRESS}},
        {"type": "text", "text": "darker than"},
        {"type": "image", "image": f"data:image/jpeg;base64,{light}"},
        {"type": "text", "text": "?"},
    ]
    chat = [{"role": "system", "content": "be brief ."}, {"role": "user", "content": content}]
    prompt = _prompt(_source(tmp_path, {"messages": chat, "answer": "yes"}))
    assert [turn["role"] for turn in prompt.messages] == ["system", "user"]
    assert [part["type"] for part in prompt.messages[1]["content"]] == ["image", "text", "image", "text"]
    assert [load_image(ref).getpixel((0, 0))[0] for ref in prompt.media] == [40, 220]  # type: ignore[index]


def test_an_address_inside_a_text_of_json_is_a_picture_too(tmp_path: Path) -> None:
    message = [{"role": "user", "content": [{"type": "image", "image": _ADDRESS}, {"type": "text", "text": "which ?"}]}]
    prompt = _prompt(_source(tmp_path, {"message": json.dumps(message), "question": "q", "answer": "1"}))
    assert len(prompt.media) == 1 and "data:" not in json.dumps(prompt.messages)


def test_pairs_with_a_picture_in_their_row_stay_together(tmp_path: Path) -> None:
    common = {"id": 3, "prompt": "what ?", "image": _ADDRESS, "chosen_reason": "why"}
    rows = [{**common, "chosen": "best", "rejected": text} for text in ("bad", "worse")]
    (read,) = read_records(_source(tmp_path, *rows))
    assert isinstance(read, Instruction) and len(read.responses) == 3
    assert [media.path for media in read.media] == [f"raylign_images/{read.media[0].sha256}.png"]


def test_an_address_in_somebodys_words_is_words(tmp_path: Path) -> None:
    prompt = _prompt(_source(tmp_path, {"problem": _ADDRESS, "answer": "a"}))
    assert not prompt.media and prompt.messages[0]["content"][0]["text"] == _ADDRESS
    assert not (tmp_path / "raylign_images").exists()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": "data:image/png;base64,AAAA"}, "field 'image' is a data: URI that holds no image of a kind"),
        ({"images": [f"{_ADDRESS[:-40]}!"]}, "field 'images' is a data: URI that holds no image of a kind"),
        (
            {"image": {"bytes": "AAAA", "path": "a.png"}},
            'field \'image\' is {"bytes": "AAAA", "path": "a.png"}, expected a path',
        ),
        ({"image": base64.b64encode(_bytes(1)[:50]).decode()}, "is not a readable image: a PNG that is truncated"),
    ],
)
def test_what_is_no_picture_makes_its_row_a_bad_one_and_no_other(
    fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    found = read_prompts(_source(tmp_path, _ASKED, {**_ASKED, **fields}, _ASKED, read_by="task"))
    assert len(found.prompts) == 2
    (bad,) = found.bad_rows
    assert bad.row == 2 and reason in bad.reason and len(bad.reason) < 300


def test_a_look_writes_no_picture_beside_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = _source(tmp_path, {**_ASKED, "image": _ADDRESS})
    assert main(["check", str(source.path)]) == 0
    assert main(["show", str(source.path), "--row", "1"]) == 0
    assert "9 x 7" in capsys.readouterr().out
    assert [entry.name for entry in tmp_path.iterdir()] == ["d.jsonl"]
