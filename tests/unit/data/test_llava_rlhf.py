"""The files of LLaVA-RLHF: what their rows become, and the facts that are joined to them by their own ids."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import load_config
from orchestrator.data.__main__ import main
from orchestrator.data.facts import FactFiles
from orchestrator.data.keys import Notes
from orchestrator.data.reading import Dataset, read_prompts, read_records
from orchestrator.data.records import Instruction
from orchestrator.data.rows import BadRow
from orchestrator.data.source_file import SourceFile, source_file
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.run.folder import RunFolder
from tests.unit.data.rows import picture, source, write_jsonl
from tests.unit.data.store_rows import good_row, records, the_record

_TALK = [
    {"from": "human", "value": "<image>\nWhat is it?"},
    {"from": "gpt", "value": "A cat."},
    {"from": "human", "value": "What colour?"},
    {"from": "gpt", "value": "Black."},
]


def _asked(**fields: Any) -> dict[str, Any]:
    return good_row("llava_ppo") | fields


def _compared(**fields: Any) -> dict[str, Any]:
    return good_row("llava_preference") | fields


def _joined(folder: Path, form: str, rows: list[Any], *files: Any) -> SourceFile:
    """Rows beside files of facts."""
    paths = []
    for number, facts in enumerate(files):
        paths.append(folder / f"facts{number}.json")
        paths[-1].write_text(facts if isinstance(facts, str) else json.dumps(facts))
    plain = source(write_jsonl(folder / "d.jsonl", *rows), form)
    return SourceFile(
        path=plain.path,
        read_by=form,
        media_root=folder,
        max_pixels=None,
        video_frames=1,
        facts=FactFiles(tuple(paths)),
    )


def _facts(data: Dataset) -> list[list[str]]:
    return [prompt.meta["facts"] for prompt in data.prompts]


# -- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preference", "ranks"), [(1, [1, 2]), (2, [2, 1]), (0, [1, 1])])
def test_both_outputs_are_ranked(preference: int, ranks: list[int], tmp_path: Path) -> None:
    found = the_record(tmp_path, "llava_preference", _compared(preference=preference))
    assert [(r.text, r.rank) for r in found.responses] == [("this", ranks[0]), ("that", ranks[1])]
    assert found.meta == {"id": 7}


def test_outputs_stand_for_the_last_answer_and_earlier_ones_are_context(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    row = _compared(conversations=_TALK, image="a.png", hallucination=True, captions=["It is dark.", "It sleeps."])
    found = the_record(tmp_path, "llava_preference", row)
    said = [[part.get("text", "<image>") for part in turn["content"]] for turn in found.messages]
    assert said == [["<image>", "What is it?"], ["A cat."], ["What colour?"]]
    assert found.meta == {"id": 7, "hallucination": True, "facts": ["It is dark.", "It sleeps."]}
    # A conversation that ends with the question has no answer for the outputs to stand for.
    again = the_record(tmp_path, "llava_preference", row | {"conversations": _TALK[:3]})
    assert (again.messages, again.responses) == (found.messages, found.responses)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"preference": 3}, "field 'preference' is 3, expected 1, 2, or 0 for neither"),
        ({"preference": -1}, "field 'preference' is -1"),
        ({"preference": True}, "field 'preference' is true"),
        ({"preference": "1"}, "field 'preference' is \"1\""),
        ({"preference": None}, "field 'preference' is null"),
        (
            {"output_2": {"from": "gpt", "value": "this"}},
            "fields 'output_1' and 'output_2' are the same text, \"this\"",
        ),
        ({"output_2": None}, "field 'output_2' is null, expected an answer"),
        ({"output_2": {"from": "gpt", "value": "<image>"}}, "field 'output_2' holds the placeholder"),
        ({"output_1": {"from": "human", "value": "hi"}}, "field 'output_1' has 1 turns, expected one of the assistant"),
        ({"conversations": []}, "field 'conversations' is [], expected a list of turns"),
        ({"conversations": "hi"}, "field 'conversations' is \"hi\", expected a list of turns"),
        ({"facts": ["a", 3]}, "field 'facts' is [\"a\", 3], expected texts"),
        ({"facts": ["a", " "]}, "field 'facts' is"),
        ({"facts": ["a"], "captions": ["b"]}, "fields 'facts' and 'captions' are both given, expected one"),
    ],
)
def test_a_comparison_that_is_none_says_why(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    good, bad = records(tmp_path, "llava_preference", _compared(), _compared(**fields))
    assert isinstance(good, Instruction) and isinstance(bad, BadRow)
    assert bad.row == 2 and bad.reason.startswith(told)


@pytest.mark.parametrize(
    ("kind", "label", "name"),
    [
        *[(None, None, "general"), (1, None, "general")],
        *[(number, letter, "choice") for number, letter in zip((2, 3, 4, 5), "ABCD", strict=True)],
        *[(6, "No", "yes_no"), (7, "Yes", "yes_no")],
    ],
)
def test_a_prompt_has_its_kind_its_answer_and_its_length_bonus(
    kind: int | None, label: str | None, name: str, tmp_path: Path
) -> None:
    found = read_prompts(source(write_jsonl(tmp_path / "d.jsonl", _asked(caption_type=kind)), "llava_ppo"))
    (prompt,) = found.prompts
    assert (prompt.label, prompt.meta) == (label, {"kind": name, "length_bonus": 0.5, "id": 7})


def test_of_a_general_question_the_row_may_say_what_is_right(tmp_path: Path) -> None:
    rows = [
        _asked(caption_type=1, answer="seven"),
        _asked(caption_type=3, answer="B"),
        _asked(caption_type=1, answer=""),
    ]
    found = read_prompts(source(write_jsonl(tmp_path / "d.jsonl", *rows), "llava_ppo"))
    assert [(p.label, p.meta["kind"]) for p in found.prompts] == [
        ("seven", "general"),
        ("B", "choice"),
        (None, "general"),
    ]


def test_of_a_conversation_the_first_question_is_asked_and_what_is_left_is_told(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    rows = [
        _asked(conversations=_TALK, image="a.png", length_bonus=None),
        _asked(conversations=_TALK[:1], image="a.png"),
    ]
    notes = Notes()
    whole, bare = read_records(source(write_jsonl(tmp_path / "d.jsonl", *rows), "llava_ppo"), notes=notes)
    assert isinstance(whole, Instruction) and isinstance(bare, Instruction)
    assert whole.messages == bare.messages and len(whole.messages) == 1
    assert ([r.text for r in whole.responses], bare.responses) == (["A cat."], ())
    assert whole.meta["length_bonus"] == 1.0
    assert notes.unknown_keys == {"conversations (turns behind the first answer)": (1, 1)}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"caption_type": 2, "answer": "B"}, "field 'answer' is \"B\", and its 'caption_type' says 'A'"),
        ({"caption_type": 1, "answer": 5}, "field 'answer'"),
        ({"caption_type": 8}, "field 'caption_type' is 8, expected 1 to 7"),
        ({"caption_type": 0}, "field 'caption_type' is 0"),
        ({"caption_type": "2"}, "field 'caption_type' is \"2\""),
        ({"caption_type": 2.0}, "field 'caption_type' is 2.0"),
        ({"length_bonus": "1"}, "field 'length_bonus' is \"1\", expected a number"),
        ({"length_bonus": float("nan")}, "field 'length_bonus' is NaN"),
        ({"captions": {"a": 1}}, "field 'captions' is"),
        ({"conversations": [{"from": "gpt", "value": "hi"}]}, "the prompt has no turn of the user"),
        (
            {"conversations": [{"from": "gpt", "value": "hi"}, *_TALK[2:]]},
            "the prompt begins with a turn of the assist",
        ),
        ({"preference": 1}, "field 'preference' is 1, a preference, which this format does not read"),
    ],
)
def test_a_prompt_that_is_none_says_why(fields: dict[str, Any], told: str, tmp_path: Path) -> None:
    found = read_prompts(source(write_jsonl(tmp_path / "d.jsonl", _asked(), _asked(**fields)), "llava_ppo"))
    (bad,) = found.bad_rows
    assert len(found.prompts) == 1 and bad.row == 2 and bad.reason.startswith(told)


# -- facts -----------------------------------------------------------------------------------------------------------


def test_facts_are_joined_by_the_id_of_the_row_whatever_its_picture_is_called(tmp_path: Path) -> None:
    picture(tmp_path / "000000000001.jpg")
    rows = [_asked(id=name, image="000000000001.jpg") for name in ("first", "second", 3)]
    captions = {"second": ["two"], "first": ["one", "both"], "3": ["three"], "000000000001.jpg": ["by the picture"]}
    found = read_prompts(_joined(tmp_path, "llava_ppo", rows, captions))
    assert not found.bad_rows and _facts(found) == [["one", "both"], ["two"], ["three"]]


def test_a_sample_has_the_facts_of_its_row_and_of_every_file_once(tmp_path: Path) -> None:
    rows = [_asked(id="a", captions=["own", "shared"]), _asked(id="b")]
    captions, rationales = {"a": ["shared", "caption"]}, {"a": ["rationale"], "b": ["alone"]}
    found = read_prompts(_joined(tmp_path, "llava_ppo", rows, captions, rationales))
    assert _facts(found) == [["own", "shared", "caption", "rationale"], ["alone"]]
    (first, _) = read_records(_joined(tmp_path, "llava_ppo", rows, captions, rationales))
    assert isinstance(first, Instruction) and first.meta["facts"] == _facts(found)[0]


def test_a_sample_without_facts_is_a_bad_row_and_its_neighbours_are_none(tmp_path: Path) -> None:
    rows = [_compared(id="a"), _compared(id="b"), {k: v for k, v in _compared().items() if k != "id"}]
    good, *bad = read_records(_joined(tmp_path, "llava_preference", rows, {"a": ["one"], "z": ["other"]}))
    assert isinstance(good, Instruction) and good.meta["facts"] == ["one"]
    assert [one.reason for one in bad if isinstance(one, BadRow)] == [
        'sample "b" has no facts in \'facts0.json\', which has 2 samples, the first is "a"',
        "the row has no 'id', by which 'facts0.json' would tell its facts",
    ]


def test_a_file_of_other_ids_is_refused_with_a_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = _joined(tmp_path, "llava_preference", [_compared(id="a"), _compared(id="b")], {"000001.jpg": ["one"]})
    facts = str(tmp_path / "facts0.json")
    assert main(["check", str(made.path), "--facts", facts]) == 2
    told = capsys.readouterr().out
    assert 'row 1: sample "a" has no facts in \'facts0.json\', which has 1 samples, the first is "000001.jpg"' in told
    assert "rows    2: 0 good, 2 bad" in told
    assert main(["import", str(made.path), "--out", str(tmp_path / "store"), "--facts", facts]) == 2
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ("[]", 'it is no object {"id of the row": ["a fact", ...]}'),
        ("{", "it cannot be read as JSON"),
        ('{"a": "one"}', 'sample "a" has "one", expected texts'),
        ('{"a": []}', 'sample "a" has [], expected texts'),
        ('{"a": ["one", ""]}', 'sample "a" has ["one", ""], expected texts'),
        ('{"a": ["one"], "a": ["two"]}', 'sample "a" is there twice'),
    ],
)
def test_a_file_that_tells_no_facts_is_refused(facts: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedInput) as refused:
        read_prompts(_joined(tmp_path, "llava_ppo", [_asked(id="a")], facts))
    assert str(refused.value) == f"--facts {str(tmp_path / 'facts0.json')!r}: {told}"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", _asked())
    config = load_config(
        ["--algo", "grpo", "--model.path", "m", "--data.path", str(file), "--data.format", "llava_ppo",
         "--data.facts", str(tmp_path / "gone.json")]
    )[0]  # fmt: skip
    with pytest.raises(RefusedInput, match=r"^data\.facts '.*gone\.json' is not a file$"):
        read_prompts(source_file(config, str(file)))
    with pytest.raises(RefusedInput, match=r"data\.facts.*needs data\.path"):
        load_config(["--algo", "grpo", "--model.path", "m", "--data.facts", "a.json"])


def test_other_facts_are_other_data(tmp_path: Path) -> None:
    rows = [_asked(id="a")]
    prints = [read_prompts(_joined(tmp_path, "llava_ppo", rows, {"a": [fact]})).fingerprint for fact in ("one", "two")]
    prints.append(read_prompts(source(tmp_path / "d.jsonl", "llava_ppo")).fingerprint)
    assert len(set(prints)) == 3


def test_a_store_has_the_facts_that_it_was_made_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = _joined(tmp_path, "llava_preference", [_compared(id="a")], {"a": ["one"]})
    facts, folder = tmp_path / "facts0.json", RunFolder(tmp_path / "run")
    flags = ["--algo", "dpo", "--model.path", "m", "--data.format", "llava_preference", "--data.facts", str(facts)]
    config, _ = load_config([*flags, "--data.path", str(made.path)])
    (row,) = open_data(config, folder).train.rows()
    assert row.meta["facts"] == ["one"]
    facts.write_text(json.dumps({"a": ["another"]}))
    with pytest.raises(RefusedInput, match=r"was imported from another file than .* with its facts"):
        open_data(config, folder)
    config, _ = load_config([*flags, "--data.path", str(folder.root / "store")])
    with pytest.raises(RefusedInput, match=r"data\.facts = .* has the facts that it was made with"):
        open_data(config, RunFolder(tmp_path / "other"))
    assert main(["check", str(folder.root / "store"), "--facts", str(facts)]) == 2
    assert "has the facts that it was made with" in capsys.readouterr().err
