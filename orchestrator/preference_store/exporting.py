"""From a store to a file of pairs in swift's fields, with what the original's conversion loses: ids, reasons, factors.

One line for each pair of the view: ``{"image": path, "images": paths or "video": folder, "question", "response",
"rejected_response", "id"}``, and where they are known ``category``, ``chosen_reason``, ``rejected_reason`` and
``ls_factor``. Paths are absolute. ``mm_rlhf_pairs`` reads the file back.

Source: MM-RLHF, ``convert_to_swift.py``, for the first four fields. It copies the prompt; here ``<image>`` stands where
the image does.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestrator.errors import RefusedInput
from orchestrator.preference_store.pairs import preference_pairs
from orchestrator.preference_store.records import Instruction, Split
from orchestrator.preference_store.store import PreferenceStore
from orchestrator.run.folder import flush


def export_swift(store: PreferenceStore, out: Path, *, split: Split) -> tuple[int, int]:
    """Write every pair of a split in file order; return how many, and of how many instructions.

    Raises:
        RefusedInput: ``out`` exists or cannot be made, see ``swift_rows``, or the store is damaged; no file is left.
    """
    if out.exists():
        raise RefusedInput(f"output file {str(out)!r} already exists")
    if not out.parent.is_dir():
        raise RefusedInput(f"output file {str(out)!r} cannot be made: {str(out.parent)!r} is not a folder")
    partial = out.with_name(f".{out.name}.partial")
    num_pairs = num_instructions = 0
    try:
        with partial.open("w", encoding="utf-8") as file:
            for instruction in store.rows():
                rows = list(swift_rows(instruction, media_root=store.media_root)) if instruction.split == split else []
                file.writelines(json.dumps(row) + "\n" for row in rows)
                num_pairs += len(rows)
                num_instructions += bool(rows)
        flush(partial)
        partial.replace(out)
    except OSError as error:
        raise RefusedInput(f"output file {str(out)!r} cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return num_pairs, num_instructions


def swift_rows(instruction: Instruction, *, media_root: Path) -> Iterator[dict[str, Any]]:
    """The pairs of an instruction; scores make one at any gap.

    Raises:
        RefusedInput: its prompt is more than one user turn, which ``question`` cannot be, or its media are gone.
    """
    responses, meta = instruction.responses, instruction.meta
    pairs = preference_pairs(responses, score_margin=0.0)
    if not pairs:
        return
    prompt = _media(instruction, media_root) | {"question": _question(instruction)}
    factors = {(chosen, rejected): factor for chosen, rejected, factor in meta.get("ls_factor", ())}
    for pair in pairs:
        chosen, rejected = responses[pair.chosen], responses[pair.rejected]
        known = {
            "category": meta.get("category"),
            "chosen_reason": chosen.critique,
            "rejected_reason": rejected.critique,
            "ls_factor": factors.get((pair.chosen, pair.rejected)),
        }
        yield (
            prompt
            | {"response": chosen.text, "rejected_response": rejected.text, "id": meta.get("id", instruction.uid)}
            | {name: value for name, value in known.items() if value is not None}
        )


def _question(instruction: Instruction) -> str:
    """The words of the prompt; the frames of a folder have no place among them."""
    turns = instruction.messages
    if [turn["role"] for turn in turns] != ["user"]:
        told = ", ".join(turn["role"] for turn in turns)
        raise RefusedInput(f"instruction {instruction.uid!r} has the turns {told}; format swift takes one user turn")
    image = "" if "video" in instruction.meta else "<image>\n"
    return "".join(image if part["type"] == "image" else part["text"] for part in turns[0]["content"])


def _media(instruction: Instruction, root: Path) -> dict[str, Any]:
    video = instruction.meta.get("video")
    paths = [root / media.path for media in instruction.media] if video is None else [root / video]
    for path in paths:
        if not path.exists():
            raise RefusedInput(f"instruction {instruction.uid!r}: its media {str(path)!r} are gone")
    names = [str(path) for path in paths]
    if video is not None:
        return {"video": names[0]}
    return {"image": names[0]} if len(names) == 1 else ({"images": names} if names else {})
