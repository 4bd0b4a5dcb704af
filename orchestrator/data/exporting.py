"""From a store to a file of pairs in swift's fields, with what the original's conversion loses: ids, reasons, factors.

One line for each pair of the view: ``{"image": path, "images": paths or "video": folder, "question", "response",
"rejected_response", "id"}``. ``question`` has ``<image>`` where an image stands; ``system`` and ``history`` are the
turns before it. ``id`` is the instruction's own, ``source_id`` the one it had in its file. Where they are known
``category``, ``ls_factor`` and, of each of the two sides, ``reason``, ``score``, ``model`` and ``tie_group`` follow.
Paths are absolute. ``mm_rlhf_pairs`` reads the file back as the same instructions with the same pairs.

Source: MM-RLHF, ``convert_to_swift.py``, for the first four fields. It copies the prompt; here ``<image>`` stands where
the image does.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.data.media import spelt_media
from orchestrator.data.pairs import Pair, preference_pairs, tied_pairs, unpaired_reason
from orchestrator.data.readers.comparisons import GROUP_FIELD, SOURCE_ID, TIE_GROUP
from orchestrator.data.records import Instruction, Response, Split
from orchestrator.data.store import PreferenceStore
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import flush


@dataclass(slots=True, kw_only=True)
class Exported:
    """What a file of pairs holds, and what of the store it does not."""

    num_pairs: int = 0
    num_instructions: int = 0
    num_unpaired: int = 0
    """Instructions that make no pair."""
    first_unpaired: str = ""
    """The first of them, and why."""
    num_left_out: int = 0
    """Responses in no pair of instructions that make some."""
    first_left_out: str = ""
    """Whose the first of them is."""
    num_elsewhere: int = 0
    """Instructions of the other split."""

    def add(self, instruction: Instruction, pairs: Sequence[Pair]) -> None:
        """Count an instruction."""
        self.num_pairs += len(pairs)
        if not pairs:
            self.num_unpaired += 1
            reason = unpaired_reason(instruction.responses, score_margin=0.0)
            self.first_unpaired = self.first_unpaired or f"{instruction.uid}: {reason}"
            return
        self.num_instructions += 1
        left_out = len(instruction.responses) - len({side for pair in pairs for side in (pair.chosen, pair.rejected)})
        self.num_left_out += left_out
        self.first_left_out = self.first_left_out or (instruction.uid if left_out else "")

    def lines(self) -> Iterator[str]:
        """The counts, for people."""
        first = f", the first is {self.first_unpaired}" if self.num_unpaired else ""
        yield f"pairs   {self.num_pairs} of {self.num_instructions} instructions; {self.num_unpaired} make none{first}"
        if self.num_left_out:
            yield f"left    {self.num_left_out} responses are in no pair, the first of {self.first_left_out}"
        if self.num_elsewhere:
            yield f"other   {self.num_elsewhere} instructions are of another split"


def export_swift(store: PreferenceStore, out: Path, *, split: Split) -> Exported:
    """Write every pair of a split in file order.

    Raises:
        RefusedInput: ``out`` exists or cannot be made, there is no pair, see ``swift_rows``, or the store is damaged;
            no file is left.
    """
    if out.exists():
        raise RefusedInput(f"output file {str(out)!r} already exists")
    if not out.parent.is_dir():
        raise RefusedInput(f"output file {str(out)!r} cannot be made: {str(out.parent)!r} is not a folder")
    partial = out.with_name(f".{out.name}.partial")
    exported = Exported()
    try:
        with partial.open("w", encoding="utf-8") as file:
            for instruction in store.rows():
                if instruction.split != split:
                    exported.num_elsewhere += 1
                    continue
                pairs = preference_pairs(instruction.responses, score_margin=0.0)
                exported.add(instruction, pairs)
                file.writelines(
                    json.dumps(row) + "\n" for row in swift_rows(instruction, pairs, media_root=store.media_root)
                )
        if not exported.num_pairs:
            told = f"; the first instruction is {exported.first_unpaired}" if exported.num_unpaired else ""
            raise RefusedInput(f"store {str(store.folder)!r} has no pair in split {split!r}{told}")
        flush(partial)
        partial.replace(out)
    except OSError as error:
        raise RefusedInput(f"output file {str(out)!r} cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    return exported


def swift_rows(instruction: Instruction, pairs: Sequence[Pair], *, media_root: Path) -> Iterator[dict[str, Any]]:
    """A line for each of an instruction's pairs.

    Raises:
        RefusedInput: swift's fields cannot say it: its turns are not a system turn, questions and answers in turn and a
            last question; media stand outside the questions; a text holds a placeholder; two of its responses are the
            same text and stand differently; or its media are gone.
    """
    if not pairs:
        return
    meta, sides = instruction.meta, _sides(instruction, pairs)
    prompt = _media(instruction, media_root) | _turns(instruction)
    factors = {(chosen, rejected): factor for chosen, rejected, factor in meta.get("ls_factor", ())}
    once: dict[tuple[str, str], Pair] = {}
    for pair in pairs:
        once.setdefault((sides[pair.chosen].text, sides[pair.rejected].text), pair)
    for pair in once.values():
        chosen, rejected = sides[pair.chosen], sides[pair.rejected]
        known = (
            {SOURCE_ID: meta.get("id"), "category": meta.get("category")}
            | {f"chosen_{name}": value for name, value in chosen.known.items()}
            | {f"rejected_{name}": value for name, value in rejected.known.items()}
            | {"ls_factor": factors.get((pair.chosen, pair.rejected))}
        )
        yield (
            prompt
            | {"response": chosen.text, "rejected_response": rejected.text, GROUP_FIELD: instruction.uid}
            | {name: value for name, value in known.items() if value is not None}
        )


@dataclass(frozen=True, slots=True)
class _Side:
    text: str
    known: dict[str, Any]
    """By the end of the field's name."""


def _sides(instruction: Instruction, pairs: Sequence[Pair]) -> dict[int, _Side]:
    """What the lines say of each response in a pair; of several with the same text, what they say of the first."""
    responses = instruction.responses
    groups = _tie_groups(responses)
    firsts: dict[str, int] = {}
    sides: dict[int, _Side] = {}
    for index in sorted({side for pair in pairs for side in (pair.chosen, pair.rejected)}):
        own, first = responses[index], firsts.setdefault(responses[index].text, index)
        if (own.rank, own.score) != (responses[first].rank, responses[first].score):
            raise _refused(
                instruction, f"responses {first + 1} and {index + 1} are the same text and one is better; format swift "
                "tells responses by their text"
            )  # fmt: skip
        one = responses[first]
        known = {"reason": one.critique, "score": one.score, "model": one.provenance, TIE_GROUP: groups.get(first)}
        sides[index] = _Side(own.text, known)
    return sides


def _tie_groups(responses: Sequence[Response]) -> dict[int, int]:
    """A number for each response that ties with others, the same for all of these."""
    groups: dict[int, int] = {}
    for one, other in tied_pairs(responses):
        groups[one] = groups[other] = groups.get(one) or groups.get(other) or one + 1
    return groups


def _turns(instruction: Instruction) -> dict[str, Any]:
    """The fields of what was said; a single video has no place among the words where it stands before them all."""
    turns = instruction.messages
    roles = [turn["role"] for turn in turns]
    num_system = int(roles[:1] == ["system"])
    spoken = roles[num_system:]
    if len(spoken) % 2 == 0 or spoken != ["user", "assistant"] * (len(spoken) // 2) + ["user"]:
        told = ", ".join(roles)
        raise _refused(instruction, f"it has the turns {told}; format swift takes questions and answers in turn")
    texts = [_text(instruction, turn, is_first=place == num_system) for place, turn in enumerate(turns)]
    system, (*earlier, question) = texts[:num_system], texts[num_system:]
    history = [list(pair) for pair in zip(earlier[::2], earlier[1::2], strict=True)]
    return (
        ({"system": system[0]} if system else {}) | ({"history": history} if history else {}) | {"question": question}
    )


def _text(instruction: Instruction, turn: dict[str, Any], *, is_first: bool) -> str:
    content, is_video = turn["content"], "video" in instruction.meta
    if turn["role"] != "user" and any(part["type"] == "image" for part in content):
        raise _refused(instruction, f"a turn of the {turn['role']} holds an image; format swift has them in questions")
    if is_video and is_first and content[0]["type"] == "image":
        content = [part for part in content if part["type"] != "image"]
    try:
        text = spelt_media(content, "video" if is_video else "image")
    except ValueError as error:
        raise _refused(
            instruction, f"a turn of the {turn['role']} {error}; format swift has media stand there"
        ) from error
    if not text.strip():
        raise _refused(instruction, f"a turn of the {turn['role']} is blank")
    return text


def _media(instruction: Instruction, root: Path) -> dict[str, Any]:
    video = instruction.meta.get("video")
    paths = [root / media.path for media in instruction.media] if video is None else [root / video]
    for path in paths:
        if not path.exists():
            raise _refused(instruction, f"its media {str(path)!r} are gone")
    names = [str(path) for path in paths]
    if video is not None:
        return {"video": names[0]}
    return {"image": names[0]} if len(names) == 1 else ({"images": names} if names else {})


def _refused(instruction: Instruction, reason: str) -> RefusedInput:
    return RefusedInput(f"instruction {instruction.uid!r}: {reason}")
