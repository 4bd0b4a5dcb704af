"""Rows of every format, written as people write them, and stores made of them."""

import json
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from orchestrator.config import formats
from orchestrator.data.order import assign_split
from orchestrator.data.reading import read_records
from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import BadRow
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import StoreWriter, import_file
from tests.unit.data.rows import source, write_jsonl

FORMATS = tuple(formats.FORMATS)


MM_RLHF = ("mm_rlhf", "mm_rlhf_pairs")
"""Their rows always have media, which come first."""
_ids = count(1)


def plain(**fields: Any) -> dict[str, Any]:
    return {"prompt": "which ?", "chosen": "this", "rejected": "that", **fields}


def labelled(**fields: Any) -> dict[str, Any]:
    return {"prompt": "which ?", "completion": "this", "label": True, **fields}


def query(*turns: tuple[str, str], **fields: Any) -> dict[str, Any]:
    spoken = turns or (("human", "which ?"), ("gpt", "this"))
    return {"conversations": [{"from": sender, "value": value} for sender, value in spoken], **fields}


def rated(*ratings: str | None, response: str = "this", model: str = "llava") -> dict[str, Any]:
    aspects = ("Helpfulness", "Ethical Considerations", "Visual Faithfulness")
    annotations = {aspect: {"Rating": rating} for aspect, rating in zip(aspects, ratings, strict=False)}
    return {"annotations": annotations, "model": model, "response": response}


def feedback(*completions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    made = list(completions) or [rated("5", "5", "5"), rated("4", "4", "4", response="that")]
    return {"id": "f-1", "prompt": "which ?", "models": [c["model"] for c in made], "completions": made, **fields}


def corrected(text: dict[str, Any] | str | None = None, **fields: Any) -> dict[str, Any]:
    sides = {"question": "which ?", "chosen": "this", "rejected": "that"} if text is None else text
    return {"ds_name": "RLHF-V", "text": sides if isinstance(sides, str) else json.dumps(sides), **fields}


def judged(**fields: Any) -> dict[str, Any]:
    return {"message": [{"role": "user", "content": "which ?"}], "question": "which ?", "answer": "1", **fields}


def compared(chosen: str = "this", rejected: str = "that", **fields: Any) -> dict[str, Any]:
    """A row of dpo_pairs.jsonl; of an instruction of its own where no id is given."""
    media = {} if "image" in fields or "video" in fields else {"image": "a.png"}
    sides = {"chosen": chosen, "rejected": rejected}
    return {"id": f"m-{next(_ids)}", "prompt": "which ?", **sides, **media, **fields}


def ranked(ranking: str, *responses: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A row of data.jsonl."""
    media = {} if "image" in fields or "video" in fields else {"image": "a.png"}
    made = list(responses) or [{"response": "this"}, {"response": "that"}]
    return {"id": "m-1", "prompt": "which ?", "responses": made, "ranking": ranking, **media, **fields}


def good_row(reader: str, **media: Any) -> dict[str, Any]:
    """A good row, with the media fields of ``plain_dpo`` spelt as the format spells them."""
    images = media.get("images")
    if reader in ("plain_dpo", "plain_kto", "pairs"):
        return labelled(**media) if reader == "plain_kto" else plain(**media)
    if reader == "task":
        return {"prompt": "which ?", "answer": "this", **media}
    if reader in MM_RLHF:
        fields = {"image" if name == "images" else name: value for name, value in media.items()}
        return compared(**fields) if reader == "mm_rlhf_pairs" else ranked("1>2", **fields)
    if reader.startswith("llava"):
        asked = [{"from": "human", "value": media.pop("prompt", "which ?")}, {"from": "gpt", "value": "this"}]
        sides = {f"output_{n}": {"from": "gpt", "value": text} for n, text in ((1, "this"), (2, "that"))}
        own = sides | {"preference": 1} if reader == "llava_preference" else {"caption_type": 6, "length_bonus": 0.5}
        return {"id": 7, "conversations": asked, **own, **media}
    if reader == "vlquery_json":
        return query(("human", media.pop("prompt", "which ?")), ("gpt", "this"), **media)
    if reader == "vlfeedback":
        return feedback(**{"img_path" if name == "images" else name: value for name, value in media.items()})
    if reader == "rlhfv":
        prompt = media.pop("prompt", "which ?")
        fields = {"image_path" if name == "images" else name: value for name, value in media.items()}
        return corrected({"question": prompt, "chosen": "this", "rejected": "that"}, **fields)
    videos = media.get("video")
    parts = [{"type": "image", "image": name} for name in images or ()]
    parts += [{"type": "video", "video": videos}] if videos else []
    return judged(message=[{"role": "user", "content": [*parts, {"type": "text", "text": "which ?"}]}])


def records(folder: Path, reader: str, *rows: Any) -> list[Instruction | BadRow]:
    return list(read_records(source(write_jsonl(folder / "d.jsonl", *rows), reader)))


def the_record(folder: Path, reader: str, row: Any) -> Instruction:
    (found,) = records(folder, reader, row)
    assert isinstance(found, Instruction), found
    return found


def imported(folder: Path, reader: str, *rows: Any, held_out_frac: float = 0.0, max_bad_frac: float = 0.0):
    """A store made of these rows, opened."""
    file = write_jsonl(folder / "d.jsonl", *rows)
    import_file(source(file, reader), out=folder / "store", held_out_frac=held_out_frac, max_bad_frac=max_bad_frac)
    return PreferenceStore(folder / "store")


def text_instruction(number: int, *, num_responses: int = 2, held_out_frac: float = 0.0) -> Instruction:
    messages = ({"role": "user", "content": [{"type": "text", "text": f"question {number}"}]},)
    return Instruction(
        uid=f"t-{number:06d}",
        split=assign_split(messages, (), held_out_frac=held_out_frac),
        messages=messages,
        media=(),
        responses=tuple(Response(text=f"answer {number}.{k}", rank=k + 1) for k in range(num_responses)),
    )


def written(
    folder: Path,
    instructions: Iterable[Instruction],
    *,
    group_rows: int,
    held_out_frac: float = 0.0,
) -> PreferenceStore:
    """A store of these instructions, in row groups of so many."""
    with StoreWriter(
        folder,
        reader="plain_dpo",
        source_name="t.jsonl",
        source_sha256="0" * 64,
        media_root=folder.parent,
        held_out_frac=held_out_frac,
        group_rows=group_rows,
    ) as writer:
        for instruction in instructions:
            writer.add(instruction)
        writer.commit()
    return PreferenceStore(folder)
