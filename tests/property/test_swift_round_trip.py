"""Any instruction that makes a pair, exported in swift's fields and read again: the same turns, media and pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.data.exporting import swift_rows
from orchestrator.data.pairs import order_from_pairs, preference_pairs, tied_pairs
from orchestrator.data.readers.draft import Draft
from orchestrator.data.readers.mm_rlhf_pairs import read_mm_rlhf_pairs
from orchestrator.data.records import Instruction, Response, StoredMedia
from orchestrator.data.rows import JsonRow
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import picture

PICTURES = ("a.png", "b.png", "c.png")
WORDS = st.text(st.sampled_from("a\n <>é中\u2028\U0001f600"), min_size=1, max_size=8)
SPOKEN = WORDS.filter(lambda text: text.strip() != "")
SAID: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"critique": st.none() | SPOKEN, "provenance": st.sampled_from([None, "x", "y"])}
)
IMAGE = {"type": "image"}
# A line break beside a placeholder belongs to it, so that those of the words are the danger.
BESIDE = st.sampled_from(["\n", "a\n", "\na", "\n\n", "a"]) | WORDS


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name in PICTURES:
        picture(folder / name)
    return folder


def _text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


@st.composite
def _question(draw: st.DrawFn) -> dict[str, Any]:
    parts = draw(st.lists(st.one_of(st.just(IMAGE), BESIDE.map(_text)), max_size=5))
    said = draw(SPOKEN) if all(part["type"] == "text" for part in parts) else ""
    return {"role": "user", "content": [*parts, _text(said)] if said else parts}


@st.composite
def _messages(draw: st.DrawFn) -> tuple[dict[str, Any], ...]:
    turns: list[dict[str, Any]] = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": [_text(draw(SPOKEN))]})
    for _ in range(draw(st.integers(0, 2))):
        turns += [draw(_question()), {"role": "assistant", "content": [_text(draw(SPOKEN))]}]
    return (*turns, draw(_question()))


@st.composite
def _responses(draw: st.DrawFn) -> tuple[Response, ...]:
    texts = draw(st.lists(SPOKEN, min_size=1, max_size=5, unique=True))
    said = [draw(SAID) for _ in texts]
    kind = draw(st.sampled_from(["ranks", "scores", "comparisons"]))
    if kind != "comparisons":
        values = draw(st.lists(st.integers(1, 3), min_size=len(texts), max_size=len(texts)))
        of = (lambda value: {"rank": value}) if kind == "ranks" else (lambda value: {"score": value / 2 - 1})
        return tuple(Response(text=t, **more, **of(v)) for t, more, v in zip(texts, said, values, strict=True))
    steps = [(i, j) for i in range(len(texts)) for j in range(i + 1, len(texts))]
    chosen = draw(st.lists(st.sampled_from(steps), unique=True, max_size=4)) if steps else []
    num_ties = draw(st.integers(0, 1)) if chosen else 0
    try:
        order = order_from_pairs(len(texts), preferred=chosen[num_ties:], ties=chosen[:num_ties])
    except ValueError:
        order = order_from_pairs(len(texts), preferred=chosen, ties=[])
    return tuple(
        Response(text=text, rank=order.ranks[k], **more)
        if order.ranks
        else Response(text=text, preferred_to=order.preferred_to[k], tied_with=order.tied_with[k], **more)
        for k, (text, more) in enumerate(zip(texts, said, strict=True))
    )


@st.composite
def _instructions(draw: st.DrawFn) -> Instruction:
    messages = draw(_messages())
    images = sum(part["type"] == "image" for turn in messages for part in turn["content"])
    names = draw(st.lists(st.sampled_from(PICTURES), min_size=images, max_size=images))
    media = tuple(StoredMedia(sha256=n, path=n, size_bytes=1, width=1, height=1) for n in names)
    meta = draw(st.fixed_dictionaries({}, optional={"id": st.sampled_from(["x", 7]), "category": st.just("mcq")}))
    return Instruction(
        uid="d-000001", split="train", messages=messages, media=media, responses=draw(_responses()), meta=meta
    )


def _merged(content: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Kind and words of each part, texts beside each other as the one text that a model sees."""
    parts: list[tuple[str, str]] = []
    for part in content:
        words = part["text"] if part["type"] == "text" else ""
        if parts and parts[-1][0] == part["type"] == "text":
            words = parts.pop()[1] + words
        parts.append((part["type"], words))
    return parts


def _named(turns: tuple[dict[str, Any], ...]) -> list[str]:
    return [Path(part["image"]).name for turn in turns for part in turn["content"] if part["type"] == "image"]


def _told(responses: tuple[Response, ...]) -> tuple[Any, ...]:
    """What is said of the responses that are in a pair, whatever their order."""
    pairs = [(p.chosen, p.rejected) for p in preference_pairs(responses, score_margin=0.0)]
    paired = {side for pair in pairs for side in pair}
    ties = [pair for pair in tied_pairs(responses) if paired.issuperset(pair)]
    return (
        {(responses[i].text, responses[j].text) for i, j in pairs},
        {frozenset(responses[side].text for side in pair) for pair in ties},
        {(responses[i].text, responses[i].critique, responses[i].provenance, responses[i].score) for i in paired},
    )


def _holds_placeholder(instruction: Instruction) -> bool:
    runs = [words for turn in instruction.messages for _, words in _merged(turn["content"])]
    return any(f"<{kind}>" in words for kind in ("image", "video") for words in runs)


def _again(instruction: Instruction, root: Path) -> Draft | None:
    pairs = preference_pairs(instruction.responses, score_margin=0.0)
    rows = [json.loads(json.dumps(row)) for row in swift_rows(instruction, pairs, media_root=root)]
    return read_mm_rlhf_pairs(tuple(JsonRow(n, row) for n, row in enumerate(rows, start=1))) if rows else None


@settings(max_examples=100)
@given(instruction=_instructions())
def test_what_is_exported_comes_back(root: Path, instruction: Instruction) -> None:
    draft = _again(instruction, root)
    if draft is None:
        assert preference_pairs(instruction.responses, score_margin=0.0) == []
        return
    assert [turn["role"] for turn in draft.turns] == [turn["role"] for turn in instruction.messages]
    assert [_merged(turn["content"]) for turn in draft.turns] == [
        _merged(turn["content"]) for turn in instruction.messages
    ]
    assert _named(draft.turns) == [media.path for media in instruction.media]
    assert _told(draft.responses) == _told(instruction.responses)
    assert draft.meta == {"id": "d-000001"} | instruction.meta
    assert draft.unread == ((),) * len(draft.unread)


@given(words=st.lists(st.sampled_from(["<image>", "<video>", "<ima", "ge>", "\n", "a"]), min_size=1, max_size=4))
def test_words_that_are_a_placeholder_are_refused_or_come_back(root: Path, words: list[str]) -> None:
    instruction = Instruction(
        uid="d-000001",
        split="train",
        messages=({"role": "user", "content": [*map(_text, words), _text("?")]},),
        media=(),
        responses=(Response(text="this", rank=1), Response(text="that", rank=2)),
    )
    if _holds_placeholder(instruction):
        with pytest.raises(RefusedInput, match=r"^instruction 'd-000001': a turn of the user holds the text '<"):
            _again(instruction, root)
    else:
        draft = _again(instruction, root)
        assert draft is not None and _merged(draft.turns[0]["content"]) == [("text", "".join(words) + "?")]
