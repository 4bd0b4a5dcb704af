"""What a prompt keeps of its row for reward functions: plain JSON, whatever stands in the file."""

import json
from pathlib import Path

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
