"""Every format as it is released, in Parquet and in JSON: what a row says is what a store gives back.

A fixture is the row as its hub or its tool writes it, and what it means: the turns of the prompt with the shades of
their pictures, and the responses with what is said of them.
"""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from orchestrator.config.formats import FORMATS
from orchestrator.data.reading import read_prompts
from orchestrator.data.recognising import recognised
from orchestrator.data.records import Instruction
from orchestrator.data.source_file import SourceFile
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from workers.multimodal.media import load_image

DARK, LIGHT = 30, 210


def _png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (12, 10), (shade, shade, shade)).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True)
class Picture:
    """A picture of a row, written as each kind of file writes it."""

    shade: int
    kind: str = "embedded"
    """``embedded``: ``{bytes, path}`` in Parquet, the name of a file in JSON; ``base64``: text in both."""

    @property
    def name(self) -> str:
        return f"images/{self.shade}.png"

    def spelt(self, *, parquet: bool) -> Any:
        if self.kind == "base64":
            return base64.b64encode(_png(self.shade)).decode()
        return {"bytes": _png(self.shade), "path": "elsewhere.png"} if parquet else self.name


Said = tuple[str, Any]
"""A text and what is said of it: a rank, a score, or what it is preferred to."""


@dataclass(frozen=True)
class Case:
    """A row, or several that are one instruction, and what they mean."""

    format: str
    rows: tuple[dict[str, Any], ...]
    prompt: tuple[tuple[str, tuple[Any, ...]], ...]
    """Role and parts of each turn: words, or the shade of a picture."""
    said: tuple[Said, ...] = ()
    label: str | None = None
    only: str = ""
    """The kind of file that has such rows, where one alone does."""


_DARK, _LIGHT = Picture(DARK), Picture(LIGHT)
_ASKED = (("user", (DARK, "What is it?")),)
_RANKED = (("A cat.", 1), ("A dog.", 2))
_PART = [{"type": "image", "text": None}, {"type": "text", "text": "What is it?"}]
_USER, _CAT, _DOG = (
    {"role": "user", "content": _PART},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]},
)
_PLAIN_USER = {"role": "user", "content": "<image>What is it?"}
_PLAIN_CAT, _PLAIN_DOG = ({"role": "assistant", "content": text} for text in ("A cat.", "A dog."))
_PAIR = {"chosen": "A cat.", "rejected": "A dog."}
_MESSAGE = [{"role": "user", "content": [{"type": "image", "image": _DARK.name}, {"type": "text", "text": "Which?"}]}]
_RATED = {"Rating": "4", "Rationale": "good"}

CASES: dict[str, Case] = {
    "R1-Reward": Case(
        "r1_reward",
        ({"message": json.dumps(_MESSAGE), "question": "Which?", "answer": ["<answer>2</answer>"]},),
        (("user", (DARK, "Which?")),),
        label="2",
    ),
    "R1-Reward, as released": Case(
        "r1_reward",
        ({"message": json.dumps(_MESSAGE).replace("images/", "/their/disk/"), "question": "Which?", "answer": ["1"],
          "image": Picture(DARK, "base64")},),
        (("user", (DARK, "Which?")),),
        label="1",
    ),
    "EasyR1": Case(
        "task",
        ({"images": [_DARK, _LIGHT], "problem": "<image>Than <image> darker?", "answer": "yes"},),
        (("user", (DARK, "Than ", LIGHT, " darker?")),),
        label="yes",
    ),
    "TRL, reinforcement": Case(
        "task",
        ({"prompt": [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, _USER], "image": _DARK,
          "solution": "7.5"},),
        (("system", ("Be brief.",)), *_ASKED),
        label="7.5",
    ),
    "a number": Case("task", ({"question": "What is it?", "image": _DARK, "answer": 7},), _ASKED, label="7"),
    "no answer": Case("task", ({"messages": [_PLAIN_USER], "images": [_DARK]},), _ASKED),
    "RLAIF-V": Case(
        "pairs",
        ({"question": "What is it?", **_PAIR, "image": _DARK, "ds_name": "RLAIF-V", "origin_dataset": "VQAv2",
          "origin_split": "train", "idx": 3, "image_path": "gone/3.png"},),
        _ASKED, _RANKED, only="parquet",
    ),
    "RLAIF-V, JSON": Case(
        "pairs", ({"question": "What is it?", **_PAIR, "image": _DARK, "idx": 3},), _ASKED, _RANKED,
    ),
    "SPA-VL": Case("pairs", ({"image": _DARK, "question": "What is it?", **_PAIR},), _ASKED, _RANKED),
    "MMPR": Case("pairs", ({"image": _DARK, "question": "<image>\nWhat is it?", **_PAIR},), _ASKED, _RANKED),
    "MMPR, two pictures": Case(
        "pairs",
        ({"image": [_DARK, _LIGHT], "question": "<image>\n<image>\nWhich?", **_PAIR},),
        (("user", (DARK, LIGHT, "Which?")),), _RANKED,
    ),
    "TRL, preferences": Case(
        "pairs", ({"prompt": [_USER], "chosen": [_CAT], "rejected": [_DOG], "images": [_DARK]},), _ASKED, _RANKED
    ),
    "TRL, prompt in both": Case(
        "pairs", ({"chosen": [_USER, _CAT], "rejected": [_USER, _DOG], "images": [_DARK]},), _ASKED, _RANKED
    ),
    "ms-swift, preferences": Case(
        "pairs", ({"messages": [_PLAIN_USER, _PLAIN_CAT], "rejected_response": "A dog.", "images": [_DARK]},),
        _ASKED, _RANKED,
    ),
    "ms-swift, rejected messages": Case(
        "pairs", ({"messages": [_PLAIN_USER, _PLAIN_CAT], "rejected_messages": [_PLAIN_USER, _PLAIN_DOG],
                   "images": [_DARK]},), _ASKED, _RANKED,
    ),
    "LLaMA-Factory, preferences": Case(
        "pairs", ({"conversations": [{"from": "human", "value": "<image>What is it?"}], "images": [_DARK],
                   "chosen": {"from": "gpt", "value": "A cat."}, "rejected": {"from": "gpt", "value": "A dog."}},),
        _ASKED, _RANKED,
    ),
    "TRL, KTO": Case(
        "plain_kto", ({"prompt": [_USER], "completion": [_CAT], "label": True, "images": [_DARK]},),
        _ASKED, (("A cat.", 1.0),),
    ),
    "KTO in texts": Case(
        "plain_kto", ({"prompt": "<image>What is it?", "completion": "A dog.", "label": False, "image": _DARK},),
        _ASKED, (("A dog.", -1.0),),
    ),
    "LLaMA-Factory, KTO": Case(
        "plain_kto", ({"messages": [_PLAIN_USER, _PLAIN_DOG], "kto_tag": False, "images": [_DARK]},),
        _ASKED, (("A dog.", -1.0),),
    ),
    "LLaMA-Factory, KTO, from and value": Case(
        "plain_kto", ({"conversations": [{"from": "human", "value": "<image>What is it?"},
                                         {"from": "gpt", "value": "A cat."}], "kto_tag": True, "images": [_DARK]},),
        _ASKED, (("A cat.", 1.0),),
    ),
    "ms-swift, KTO": Case(
        "plain_kto", ({"messages": [_PLAIN_USER, _PLAIN_CAT], "label": True, "images": [_DARK]},),
        _ASKED, (("A cat.", 1.0),),
    ),
    "RLHF-V": Case(
        "rlhfv", ({"text": json.dumps({"question": "What is it?", **_PAIR}), "image": _DARK, "idx": 3},),
        _ASKED, _RANKED,
    ),
    "VLFeedback": Case(
        "vlfeedback",
        ({"id": "a", "prompt": "What is it?", "img_path" : _DARK, "completions": [
            {"annotations": {"Helpfulness": _RATED}, "model": "m", "response": "A cat."},
            {"annotations": {"Helpfulness": {**_RATED, "Rating": "2"}}, "model": "n", "response": "A dog."}]},),
        _ASKED, (("A cat.", 4.0), ("A dog.", 2.0)),
    ),
    "MM-RLHF, pairs": Case(
        "mm_rlhf_pairs",
        tuple({"id": "a", "prompt": "<image>\nWhat is it?", "image": _DARK, "chosen": "A cat.", "rejected": text,
               "chosen_reason": "right", "rejected_reason": "wrong"} for text in ("A dog.", "A cow.")),
        _ASKED, (("A cat.", (1, 2)), ("A cow.", ()), ("A dog.", ())),
    ),
    "LLaVA": Case(
        "vlquery_json",
        ({"id": "a", "image": _DARK, "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]},),
        _ASKED, (("A cat.", None),),
    ),
    "LLaVA-RLHF, preferences": Case(
        "llava_preference",
        ({"id": "a", "image": _DARK, "hallucination": False, "preference": 2,
          "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cow."}],
          "output_1": {"from": "gpt", "value": "A dog."}, "output_2": {"from": "gpt", "value": "A cat."}},),
        _ASKED, _RANKED,
    ),
    "LLaVA-RLHF, prompts": Case(
        "llava_ppo",
        ({"id": "a", "image": _DARK, "caption_type": 3, "length_bonus": -0.5, "captions": ["It is dark."],
          "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]},),
        _ASKED, (("A cat.", None),), label="B",
    ),
    "messages": Case(
        "vlquery_json", ({"messages": [_USER, _CAT], "images": [_DARK]},), _ASKED, (("A cat.", None),)
    ),
}  # fmt: skip
"""``plain_dpo`` is the format of ``pairs`` in texts; MM-RLHF's own rows have tests of their own."""


def _spelt(value: Any, *, parquet: bool) -> Any:
    if isinstance(value, Picture):
        return value.spelt(parquet=parquet)
    if isinstance(value, dict):
        return {key: _spelt(one, parquet=parquet) for key, one in value.items()}
    return [_spelt(one, parquet=parquet) for one in value] if isinstance(value, list) else value


def _source(case: Case, kind: str, folder: Path) -> SourceFile:
    (folder / "images").mkdir()
    for picture in (_DARK, _LIGHT):
        (folder / picture.name).write_bytes(_png(picture.shade))
    rows = [_spelt(row, parquet=kind == "parquet") for row in case.rows]
    file = folder / f"data.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), file)
    else:
        file.write_text(json.dumps(rows) if kind == "json" else "".join(json.dumps(row) + "\n" for row in rows))
    found = recognised(file)
    assert found is not None
    return SourceFile(path=file, read_by=found, media_root=folder, max_pixels=None, video_frames=2)


def _turns(messages: Any, shades: list[int]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    waiting = iter(shades)
    return tuple(
        (turn["role"], tuple(next(waiting) if p["type"] == "image" else p["text"] for p in turn["content"]))
        for turn in messages
    )


def _shade(path: Path) -> int:
    return Image.open(path).convert("RGB").getpixel((3, 3))[0]  # type: ignore[index]


def _said(row: Instruction) -> tuple[Said, ...]:
    told = [
        (r.text, r.preferred_to if r.rank is None and r.score is None else r.rank or r.score) for r in row.responses
    ]
    return tuple(sorted(told, key=lambda one: one[0]))


_KINDS = [
    pytest.param(name, kind, id=f"{name}-{kind}")
    for name, case in CASES.items()
    for kind in ("parquet", "json", "jsonl")
    if case.only in ("", kind)
]


@pytest.mark.parametrize(("name", "kind"), _KINDS)
def test_a_store_gives_back_what_the_row_says(name: str, kind: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = _source(case, kind, tmp_path)
    assert source.read_by == case.format
    import_file(source, out=tmp_path / "store", held_out_frac=0.0, max_bad_frac=0.0)
    store = PreferenceStore(tmp_path / "store")
    (row,) = store.rows()
    assert _turns(row.messages, [_shade(store.media_root / media.path) for media in row.media]) == case.prompt
    assert _said(row) == tuple(sorted(case.said, key=lambda one: one[0]))
    assert row.meta.get("label") == case.label
    assert store.manifest.notes.unknown_keys == {}


@pytest.mark.parametrize(
    ("name", "kind"), [p.values for p in _KINDS if "prompts" in FORMATS[CASES[str(p.values[0])].format].serves]
)
def test_a_prompt_is_what_the_row_asks(name: str, kind: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = read_prompts(_source(case, kind, tmp_path))
    assert not found.bad_rows
    (prompt,) = found.prompts
    shades = [load_image(ref).getpixel((3, 3))[0] for ref in prompt.media]  # type: ignore[index]
    assert (_turns(prompt.messages, shades), prompt.label) == (case.prompt, case.label)


def test_every_format_has_a_row_here_or_tests_of_its_own() -> None:
    assert {case.format for case in CASES.values()} | {"plain_dpo", "mm_rlhf"} == set(FORMATS)


_TALK = ("What is it?", "A cat.", "And its colour?", "Black.", "Thank you.", "You are welcome.")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize(
    ("field", "role", "words", "roles"),
    [
        ("conversations", "from", "value", ("human", "gpt")),
        ("messages", "role", "content", ("user", "assistant")),
    ],
)
def test_every_answer_of_a_conversation_is_learned_once_with_all_that_was_said_before(
    kind: str, field: str, role: str, words: str, roles: tuple[str, str], tmp_path: Path
) -> None:
    spoken = [{role: roles[n % 2], words: ("<image>\n" if n == 0 else "") + text} for n, text in enumerate(_TALK)]
    source = _source(Case("vlquery_json", ({field: spoken, "image": _DARK},), ()), kind, tmp_path)
    assert source.read_by == "vlquery_json"
    import_file(source, out=tmp_path / "store", held_out_frac=0.0, max_bad_frac=0.0)
    learned = list(PreferenceStore(tmp_path / "store").rows())
    assert [row.uid for row in learned] == [f"data-000001.{n}" for n in (1, 2, 3)]
    assert [row.responses[0].text for row in learned] == list(_TALK[1::2])
    for number, row in enumerate(learned):
        before = [part["text"] for turn in row.messages for part in turn["content"] if part["type"] == "text"]
        assert before == list(_TALK[: 2 * number + 1]) and len(row.media) == 1
