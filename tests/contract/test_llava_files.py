"""Files of LLaVA-RLHF as people have them, with faults: each is named and counted, and too many of them end a run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestrator.data.__main__ import main as data
from orchestrator.tasks.digits_model import build_digits_model
from orchestrator.train import main as train

_GOOD = 9
_Spoil = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_digits_model(tmp_path_factory.mktemp("llava_files") / "model", seed=0)


def _row(number: int, *, compared: bool) -> dict[str, Any]:
    talk = [{"from": "human", "value": "<image>\nwhich digit ?"}, {"from": "gpt", "value": "one"}]
    own: dict[str, Any] = {"caption_type": 1 + number % 7, "length_bonus": 1.0}
    if compared:
        own = {f"output_{n}": {"from": "llava", "value": word} for n, word in ((1, "one"), (2, "two"))}
        own |= {"preference": 1 + number % 2, "hallucination": False}
    return {"id": f"{number:012d}", "image": f"{number:012d}.jpg", "conversations": talk, **own}


def _write(folder: Path, spoil: _Spoil, *, compared: bool) -> tuple[Path, Path]:
    """A file whose last row is spoiled, its pictures, and captions of its good rows."""
    rows = [_row(number, compared=compared) for number in range(1, _GOOD + 2)]
    for row in rows:
        Image.new("RGB", (28, 28), (int(row["id"]) * 20, 0, 90)).save(folder / row["image"])
    captions = {row["id"]: [f"it is {row['id']}", "it is small"] for row in rows}
    spoil(rows[-1])
    if rows[-1].pop("told", True) is None:
        del captions[f"{_GOOD + 1:012d}"]
    file, facts = folder / "rows.json", folder / "image_to_caption.json"
    file.write_text(json.dumps(rows))
    facts.write_text(json.dumps(captions))
    return file, facts


_FAULTS: dict[str, tuple[bool, _Spoil, str]] = {
    "no facts": (
        True,
        lambda row: row.update(told=None),
        "sample \"000000000010\" has no facts in 'image_to_caption.json', which has 9 samples, the first is "
        '"000000000001"',
    ),
    "no facts to ask by": (
        False,
        lambda row: row.update(told=None),
        "sample \"000000000010\" has no facts in 'image_to_caption.json'",
    ),
    "no id": (True, lambda row: row.pop("id"), "the row has no 'id', by which 'image_to_caption.json' would tell"),
    "preference 3": (True, lambda row: row.update(preference=3), "field 'preference' is 3, expected 1, 2, or 0"),
    "preference NaN": (
        True,
        lambda row: row.update(preference=float("nan")),
        "field 'preference' is NaN, expected 1, 2, or 0",
    ),
    "equal outputs": (
        True,
        lambda row: row.update(output_2=row["output_1"]),
        "fields 'output_1' and 'output_2' are the same text, \"one\"",
    ),
    "kind 8": (False, lambda row: row.update(caption_type=8), "field 'caption_type' is 8, expected 1 to 7"),
    "bonus NaN": (
        False,
        lambda row: row.update(length_bonus=float("nan")),
        "field 'length_bonus' is NaN, expected a number",
    ),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_fault_is_named_and_counted_and_the_rows_beside_it_are_good(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared, spoil, told = _FAULTS[fault]
    file, facts = _write(tmp_path, spoil, compared=compared)
    assert data(["check", str(file), "--facts", str(facts)]) == 2
    said = capsys.readouterr().out
    assert f"row {_GOOD + 1}: {told}" in said
    assert f"rows    {_GOOD + 1}: {_GOOD} good, 1 bad" in said


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_run_counts_bad_rows_and_ends_where_they_are_too_many(
    fault: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compared, spoil, told = _FAULTS[fault]
    file, facts = _write(tmp_path, spoil, compared=compared)
    online = (
        "--reward.functions",
        "length?most=8",
        "--rollout.engine",
        "transformers",
        "--rollout.max_new_tokens",
        "8",
    )
    flags = [
        *("--algo", "scalar_rm" if compared else "grpo", "--model.path", str(model), "--data.path", str(file)),
        *("--data.format", "llava_preference" if compared else "llava_ppo", "--data.facts", str(facts)),
        *("--run.dir", str(tmp_path / "run"), "--dry-run", *(() if compared else online)),
    ]
    assert train([*flags, "--data.max_bad_frac", "0.05"]) == 2
    refusals = [line for line in capsys.readouterr().err.splitlines() if line.startswith("refused: ")]
    # Of a long path the middle of the sentence is left out, here within the id.
    assert len(refusals) == 1 and f"row {_GOOD + 1}: " in refusals[0] and told.rpartition('0010" ')[2] in refusals[0]
    assert "1 bad rows out of 10" in refusals[0]
    assert train([*flags, "--data.max_bad_frac", "0.2"]) == 0


def test_a_file_of_other_ids_ends_a_run(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Captions by the names of pictures, as LLaVA-RLHF has them, are of no sample's id."""
    file, facts = _write(tmp_path, lambda row: None, compared=True)
    captions = json.loads(facts.read_text())
    facts.write_text(json.dumps({f"{name}.jpg": said for name, said in captions.items()}))
    flags = ["--algo", "scalar_rm", "--model.path", str(model), "--data.path", str(file), "--dry-run"]
    flags += ["--data.format", "llava_preference", "--data.facts", str(facts), "--run.dir", str(tmp_path / "run")]
    assert train(flags) == 2
    told = capsys.readouterr().err
    assert "has 10 bad rows out of 10" in told and 'which has 10 samples, the first is "000000000001.jpg"' in told
    assert data(["check", str(file), "--facts", str(facts)]) == 2
    assert "rows    10: 0 good, 10 bad" in capsys.readouterr().out
