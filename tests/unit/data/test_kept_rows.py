"""What a prompt keeps of its row for reward functions: plain JSON, whatever stands in the file."""

import base64
import io
import json
from pathlib import Path

from PIL import Image

from orchestrator.data.reading import SourceFile, read_prompts


def test_a_kept_row_can_be_sent_to_anybody(tmp_path: Path) -> None:
    row = r'{"problem": "?", "answer": 1, "note": "\ud83d", "share": NaN, "deep": {"a": [1, "\udc00"]}}'
    (tmp_path / "d.jsonl").write_text(row + "\n")
    source = {
        "path": tmp_path / "d.jsonl",
        "read_by": "task",
        "media_root": tmp_path,
        "max_pixels": None,
        "video_frames": 1,
    }
    (prompt,) = read_prompts(SourceFile(**source, keeps_rows=True)).prompts  # type: ignore[arg-type]
    sent = json.dumps(prompt.row, allow_nan=False).encode()
    assert json.loads(sent) == {"problem": "?", "answer": 1, "note": "?", "share": None, "deep": {"a": [1, "?"]}}
    (bare,) = read_prompts(SourceFile(**source)).prompts  # type: ignore[arg-type]
    assert bare.row == {}


def test_no_place_of_a_picture_stands_in_it(tmp_path: Path) -> None:
    picture = base64.b64encode(_png()).decode()
    parts = [{"type": "image", "image": f"data:image/png;base64,{picture}"}, {"type": "text", "text": "?"}]
    row = {"messages": [{"role": "user", "content": parts}], "answer": "1"}
    kept = []
    for place in ("one", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "d.jsonl").write_text(json.dumps(row) + "\n")
        source = {"path": tmp_path / place / "d.jsonl", "read_by": "task", "media_root": tmp_path / place}
        read = read_prompts(SourceFile(**source, max_pixels=None, video_frames=1, keeps_rows=True))  # type: ignore[arg-type]
        kept.append((read.prompts[0].row, read.fingerprint))
    assert kept[0] == kept[1]
    assert str(tmp_path) not in json.dumps(kept[0][0])


def _png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 30), (9, 9, 9)).save(out, "PNG")
    return out.getvalue()
