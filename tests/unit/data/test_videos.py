"""Video files become frames beside the data, as pictures of rows do."""

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.data import videos
from orchestrator.data.__main__ import main
from orchestrator.data.reading import Dataset, SourceFile, read_prompts
from orchestrator.data.store import PreferenceStore
from tests.unit.data.rows import write_jsonl
from workers.multimodal.media import load_image

_NUM_FRAMES = 25
_CODECS = {"mp4": "mp4v", "mov": "mp4v", "mkv": "mp4v", "avi": "MJPG", "webm": "VP80"}


def _video(path: Path, *, num_frames: int = _NUM_FRAMES, size: tuple[int, int] = (64, 48)) -> Path:
    """Frame n is grey of 10 n, its left upper corner white."""
    frames = [np.full((size[1], size[0], 3), min(10 * n, 255), np.uint8) for n in range(num_frames)]
    for frame in frames:
        frame[:16, :16] = 255
    if path.suffix == ".gif":
        first, *others = map(Image.fromarray, frames)
        first.save(path, save_all=True, append_images=others, duration=100)
        return path
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*_CODECS[path.suffix[1:]]), 10, size)
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def _source(file: Path, *, frames: int = 4, read_by: str = "task") -> SourceFile:
    return SourceFile(path=file, read_by=read_by, media_root=file.parent, max_pixels=None, video_frames=frames)


def _read(folder: Path, *rows: dict[str, Any], frames: int = 4) -> Dataset:
    asked = ({"problem": "what moves ?", "answer": "a", **row} for row in rows)
    return read_prompts(_source(write_jsonl(folder / "d.jsonl", *asked), frames=frames))


@pytest.mark.parametrize("kind", [*_CODECS, "gif"])
def test_frames_of_a_video_are_evenly_spread_and_named_by_content(kind: str, tmp_path: Path) -> None:
    _video(tmp_path / f"v.{kind}")
    found = _read(tmp_path, {"video": f"v.{kind}"})
    assert not found.bad_rows, found.bad_rows
    (prompt,) = found.prompts
    assert [part["type"] for part in prompt.messages[0]["content"]] == ["image"] * 4 + ["text"]
    # Of 25 frames the places 0, 8, 16 and 24; codecs lose a little.
    grey = [load_image(ref).getpixel((40, 40))[0] for ref in prompt.media]  # type: ignore[index]
    assert np.abs(np.array(grey) - [0, 80, 160, 240]).max() <= 8, grey
    assert load_image(prompt.media[0]).getpixel((4, 4))[0] > 240  # type: ignore[index]
    assert [Path(ref.path).name for ref in prompt.media] == [f"{ref.sha256}.png" for ref in prompt.media]
    assert {Path(ref.path).parent for ref in prompt.media} == {(tmp_path / "raylign_images").resolve()}
    before = sorted((tmp_path / "raylign_images").iterdir())
    assert _read(tmp_path, {"video": f"v.{kind}"}).fingerprint == found.fingerprint
    assert sorted((tmp_path / "raylign_images").iterdir()) == before


@pytest.mark.parametrize(("num_frames", "asked", "expected"), [(3, 8, 3), (1, 4, 1), (9, 1, 1), (9, 2, 2)])
def test_a_video_gives_no_more_frames_than_it_has_or_than_are_asked_for(
    num_frames: int, asked: int, expected: int, tmp_path: Path
) -> None:
    _video(tmp_path / "v.mp4", num_frames=num_frames)
    (prompt,) = _read(tmp_path, {"video": "v.mp4"}, frames=asked).prompts
    assert len(prompt.media) == expected


def test_videos_stand_where_their_placeholders_do_beside_folders_of_frames(tmp_path: Path) -> None:
    _video(tmp_path / "v.mp4")
    (tmp_path / "folder").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "folder" / "1.png")
    row = {"problem": "<video>then<video>?", "videos": ["folder", "v.mp4"]}
    (prompt,) = _read(tmp_path, row, frames=2).prompts
    kinds = [part["type"] for part in prompt.messages[0]["content"]]
    assert kinds == ["image", "text", "image", "image", "text"]
    part = {"type": "video_url", "video_url": {"url": "v.mp4"}}
    chat = [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]
    found = read_prompts(_source(write_jsonl(tmp_path / "chat.jsonl", {"messages": chat, "answer": "a"})))
    assert [p["type"] for p in found.prompts[0].messages[0]["content"]] == ["text"] + ["image"] * 4


def test_a_video_may_stand_in_its_row(tmp_path: Path) -> None:
    data = _video(tmp_path / "v.mp4").read_bytes()
    file = tmp_path / "d.parquet"
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    row = {"problem": "<image><video>?", "answer": "a", "video": {"bytes": data, "path": "x.mp4"}, "image": None}
    pq.write_table(pa.Table.from_pylist([{**row, "image": {"bytes": picture.getvalue(), "path": None}}]), file)
    found = read_prompts(_source(file))
    assert not found.bad_rows, found.bad_rows
    assert len(found.prompts[0].media) == 5
    assert [(ref.width, ref.height) for ref in found.prompts[0].media] == [(8, 8)] + [(64, 48)] * 4


def test_a_store_keeps_the_frames(tmp_path: Path) -> None:
    _video(tmp_path / "v.mp4")
    file = write_jsonl(tmp_path / "d.jsonl", {"question": "what ?", "chosen": "a", "rejected": "b", "video": "v.mp4"})
    assert main(["check", str(file), "--video-frames", "3"]) == 0
    assert not (tmp_path / "raylign_images").exists(), "a look writes nothing beside the data"
    assert main(["import", str(file), "--out", str(tmp_path / "store"), "--video-frames", "3"]) == 0
    (row,) = PreferenceStore(tmp_path / "store").rows()
    assert [media.path for media in row.media] == [f"raylign_images/{media.sha256}.png" for media in row.media]
    assert len(row.media) == 3


def _cut(path: Path, share: float) -> None:
    """Its beginning alone, the index of the frames being at its end."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def _of_text(path: Path) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: _cut(path, 0.5), "video 'v.mp4' is a video that is truncated or damaged: it cannot be opened"),
        (lambda path: path.write_bytes(b"\0\0\0\x1cftypisom" + bytes(400)), "'v.mp4' is a video that is truncated or"),
        (_of_text, "video 'v.mp4' is no folder of frames and no video of a kind that is read: MP4, MOV, WebM"),
        (lambda path: path.unlink(), "video 'v.mp4' is not found under the media root"),
    ],
)
def test_a_broken_video_is_a_bad_row_and_no_other(spoil: Any, reason: str, tmp_path: Path) -> None:
    spoil(_video(tmp_path / "v.mp4"))
    _video(tmp_path / "w.mp4")
    found = _read(tmp_path, {"video": "w.mp4"}, {"video": "v.mp4"}, {"video": "v.mp4"})
    assert len(found.prompts) == 1 and [bad.row for bad in found.bad_rows] == [2, 3]
    assert all(reason in bad.reason for bad in found.bad_rows), found.bad_rows


def test_frames_are_bounded_in_size_and_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _video(tmp_path / "v.mp4")
    monkeypatch.setattr(videos, "MOST_FRAMES", 20)
    assert "has more than 20 frames" in _read(tmp_path, {"video": "v.mp4"}).bad_rows[0].reason
    monkeypatch.setattr(videos, "MOST_FRAMES", 25)
    assert not _read(tmp_path, {"video": "v.mp4"}).bad_rows
    monkeypatch.setattr(videos, "MOST_PIXELS", 64 * 48 - 1)
    told = _read(tmp_path, {"video": "v.mp4"}).bad_rows[0].reason
    assert "has frames of 64 x 48 pixels, more than 3071" in told


def test_a_video_outside_the_media_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    _video(tmp_path / "v.mp4")
    (tmp_path / "data" / "link.mp4").symlink_to(tmp_path / "v.mp4")
    found = _read(tmp_path / "data", {"video": "../v.mp4"}, {"video": "link.mp4"})
    assert [("is outside the media root" in bad.reason) for bad in found.bad_rows] == [True, True]
