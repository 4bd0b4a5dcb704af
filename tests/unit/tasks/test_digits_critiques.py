"""The critiques over digits: graded as the issue wants them, and no held-out image among what a policy starts from."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_digits

from orchestrator.data.choice import Choice, choose
from orchestrator.data.reading import SourceFile
from orchestrator.data.records import Instruction
from orchestrator.data.store import PreferenceStore
from orchestrator.data.writer import import_file
from orchestrator.tasks.digits import SIDE, WORDS, build_digits_data
from orchestrator.tasks.digits_critiques import (
    HELD_OUT_FRAC,
    REFUSAL,
    REQUEST,
    VOCABULARY,
    build_digits_critiques,
    named_digit,
)
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.algorithms.asks import learner
from workers.multimodal.prompt_encoder import PromptEncoder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    build_digits_data(folder, seed=0)
    build_digits_critiques(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def critiques(data: Path) -> list[Instruction]:
    return list(PreferenceStore(data / "critiques").rows())


@pytest.fixture(scope="module")
def start(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Instruction]:
    """The demonstrations, imported as make_data.py of the example has them imported."""
    out = tmp_path_factory.mktemp("start") / "store"
    source = SourceFile(
        path=data / "start.jsonl", read_by="vlquery_json", media_root=data, max_pixels=SIDE * SIDE, video_frames=1
    )
    import_file(source, out=out, held_out_frac=HELD_OUT_FRAC, max_bad_frac=0.0)
    return list(PreferenceStore(out).rows())


_DIGITS: Any = load_digits()


def _shown(row: Instruction) -> str:
    return WORDS[_DIGITS.target[int(Path(row.media[0].path).stem)]]


def test_every_instruction_has_five_pairs_and_one_tie(critiques: list[Instruction]) -> None:
    assert len(critiques) == 1797
    for row in critiques:
        choice = choose(row.responses, learner("critique_rm").needs, score_margin=0.0)
        assert isinstance(choice, Choice)
        assert (len(choice.responses), len(choice.pairs), len(choice.ties)) == (4, 5, 1)


def test_the_grades_are_right_and_explained_then_right_then_wrong_or_refused(critiques: list[Instruction]) -> None:
    places = Counter[int]()
    for row in critiques:
        shown, by_rank = _shown(row), sorted(row.responses, key=lambda r: (r.rank or 0, r.text == REFUSAL))
        explained, plain, wrong, refused = by_rank
        assert [r.rank for r in by_rank] == [1, 2, 3, 3]
        assert named_digit(explained.text) == named_digit(plain.text) == shown
        assert len(explained.text) > len(plain.text)
        assert named_digit(wrong.text) not in (shown, None)
        assert refused.text == REFUSAL and named_digit(refused.text) is None
        for response, verdict in zip(by_rank, ("right and explained", "right", "wrong", "wrong"), strict=True):
            said = named_digit(response.text) or "nothing"
            assert response.critique == f"the image shows {shown} , says {said} and {verdict} ."
        places[row.responses.index(explained)] += 1
    assert all(count > 1797 / 5 for count in places.values()) and len(places) == 4, "the place tells nothing"


def test_the_demonstrations_are_read_and_say_all_kinds_of_things(start: list[Instruction]) -> None:
    assert len(start) == 1797
    said = [named_digit(row.responses[0].text) for row in start]
    right = sum(one == _shown(row) for one, row in zip(said, start, strict=True))
    assert 0.45 < right / len(start) < 0.55
    assert 0.2 < said.count(None) / len(start) < 0.3


def test_no_held_out_image_is_among_the_demonstrations_to_learn_from(
    critiques: list[Instruction], start: list[Instruction]
) -> None:
    split = {row.media[0].sha256: row.split for row in critiques}
    assert {row.media[0].sha256: row.split for row in start} == split
    held_out = sum(side == "held_out" for side in split.values())
    assert 0.15 < held_out / len(split) < 0.25
    assert len(split) == len({*(m.sha256 for row in critiques for m in row.media)})


def test_the_example_splits_its_demonstrations_as_the_store_is_split() -> None:
    script = (Path(__file__).parents[3] / "examples" / "mm_dpo_digits" / "make_data.py").read_text()
    assert '"--data.held_out_frac", str(HELD_OUT_FRAC)' in script


def test_the_model_of_the_example_knows_every_word(data: Path, tmp_path: Path) -> None:
    tokenizer = PromptEncoder(build_digits_model(tmp_path / "model", seed=0, words=VOCABULARY)).tokenizer
    words = {REQUEST}
    for line in (data / "critiques.jsonl").read_text().splitlines():
        row = json.loads(line)
        words |= {row["prompt"].removeprefix("<image> ")}
        words |= {said[field] for said in row["responses"] for field in ("response", "reason")}
    for text in words:
        assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], text


def test_the_same_seed_writes_the_same_files_and_another_seed_others(data: Path, tmp_path: Path) -> None:
    written = [(data / name).read_bytes() for name in ("critiques.jsonl", "start.jsonl")]
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        shutil.copytree(data / "images", folder / "images")
        build_digits_critiques(folder, seed=seed)
        again = [(folder / name).read_bytes() for name in ("critiques.jsonl", "start.jsonl")]
        assert (again == written) == (seed == 0)


@pytest.mark.parametrize(
    ("text", "digit"),
    [("it is seven .", "seven"), ("seven because seven", "seven"), ("one or two", None), (REFUSAL, None), ("", None)],
)
def test_a_response_names_one_digit_or_none(text: str, digit: str | None) -> None:
    assert named_digit(text) == digit
