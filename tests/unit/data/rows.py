"""Rows in the R1-Reward-RL format, written as a person would write them."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from orchestrator.data.reading import Dataset, SourceFile, read_prompts

MAX_PIXELS = 100


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def image(name: str) -> dict[str, str]:
    return {"type": "image", "image": name}


def row(*parts: dict[str, str], answer: Any = ("<answer>2</answer>",), **fields: Any) -> dict[str, Any]:
    """One user turn of ``parts``, which ask something, encoded twice as the published files are."""
    asked = [] if any(part["type"] == "text" for part in parts) else [text("which ?")]
    message = json.dumps([{"role": "user", "content": [*parts, *asked]}])
    return {"message": message, "question": "which ?", "answer": answer, **fields}


def picture(path: Path, *, size: tuple[int, int] = (6, 4), color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


def write_jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def read(path: Path, *, media_root: Path | None = None, video_frames: int = 3, demonstrations: bool = False) -> Dataset:
    return read_prompts(source(path, media_root=media_root, video_frames=video_frames), demonstrations=demonstrations)


def source(
    path: Path, read_by: str = "r1_reward", *, media_root: Path | None = None, video_frames: int = 3
) -> SourceFile:
    return SourceFile(
        path=path,
        read_by=read_by,
        media_root=media_root or path.parent,
        max_pixels=MAX_PIXELS,
        video_frames=video_frames,
    )
