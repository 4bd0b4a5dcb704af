"""What both files of MM-RLHF have in common: the prompt, its media, and keys that must be known.

``image`` is a path or a list of paths, ``video`` a folder of frames in plain order of their names; a row has one of the
two. Whatever placeholders the prompt holds are taken out of it, and the media come first, as in the original's loader.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

from orchestrator.data.fields import RowError, shown, text_field
from orchestrator.data.media_sources import Turn
from orchestrator.data.readers.placeholders import media_parts

_PLACEHOLDER = re.compile(r"<(?:image|video)>")


def refuse_unknown_keys(row: dict[str, Any], known: Collection[str], *, where: str) -> None:
    """Stop at keys whose meaning nobody declared: what they hold would be lost without a word.

    Raises:
        RowError: naming all of them.
    """
    unknown = [key for key in row if key not in known]
    if unknown:
        told = ", ".join(map(shown, unknown))
        raise RowError(f"{where} has keys that are not in the declared map: {told}; the map has {', '.join(known)}")


def prompt_turn(row: dict[str, Any], prompt_field: str, *, image_fields: Sequence[str]) -> Turn:
    """The user turn of a row, its media named but not opened.

    Raises:
        RowError: no text, or not exactly one of image and video.
    """
    media = media_parts(row, image_fields=image_fields)
    if bool(media["image"]) == bool(media["video"]):
        given = "both" if media["image"] else "neither"
        raise RowError(f"the row has {given} of 'image' and 'video', expected one of the two")
    if len(media["video"]) > 1:
        raise RowError(f"field 'video' names {len(media['video'])} folders, expected one")
    text = _PLACEHOLDER.sub("", text_field(row, prompt_field)).strip()
    if not text:
        raise RowError(f"field {prompt_field!r} is {shown(row[prompt_field])}, expected text beside the placeholder")
    return {"role": "user", "content": [*media["image"], *media["video"], {"type": "text", "text": text}]}


def media_meta(turn: Turn) -> dict[str, str]:
    """``category``: the folder that the first path begins with, such as ``mcq``; ``video``: the folder of the frames.

    An absolute path, and a name without a folder, have no category. The original takes whichever category occurs
    anywhere in the path, by which ``short/belong.png`` is of ``long``.
    """
    first = turn["content"][0]
    path = PurePosixPath(first[first["type"]])
    found = {} if path.is_absolute() or len(path.parts) < 2 else {"category": path.parts[0]}
    return found | ({"video": str(path)} if first["type"] == "video" else {})
