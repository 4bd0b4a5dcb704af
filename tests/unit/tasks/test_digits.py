"""The embedded task's files: real digits, balanced and disjoint, read by the same reader as anybody's own."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.data.reading import Dataset, SourceFile, read_prompts
from orchestrator.tasks.digits import SIDE, WORDS, DigitsPaths, build_digits_data
from workers.types import Prompt


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> DigitsPaths:
    return build_digits_data(tmp_path_factory.mktemp("digits"), seed=0)


@pytest.fixture(scope="module")
def train(paths: DigitsPaths) -> Dataset:
    return _read(paths.train)


@pytest.fixture(scope="module")
def held_out(paths: DigitsPaths) -> Dataset:
    return _read(paths.held_out)


def _read(path: Path) -> Dataset:
    dataset = read_prompts(
        SourceFile(path=path, read_by="r1_reward", media_root=path.parent, max_pixels=SIDE * SIDE, video_frames=1)
    )
    assert not dataset.bad_rows
    return dataset


def _choices(prompt: Prompt) -> tuple[str, str]:
    """The words of both responses: ``... ? A 1 , B 2 .``"""
    words = prompt.messages[0]["content"][-1]["text"].split()
    return words[-6], words[-3]


def test_labels_are_balanced_in_both_splits(train: Dataset, held_out: Dataset) -> None:
    for dataset in (train, held_out):
        labels = Counter(prompt.label for prompt in dataset.prompts)
        assert labels["1"] == labels["2"] == len(dataset.prompts) / 2


def test_splits_share_no_image(train: Dataset, held_out: Dataset) -> None:
    seen, unseen = ({prompt.media[0].sha256 for prompt in split.prompts} for split in (train, held_out))
    assert len(unseen) >= 256 and len(held_out.prompts) >= 512
    assert seen & unseen == set()


def test_every_image_is_judged_in_both_orders(train: Dataset, held_out: Dataset) -> None:
    for dataset in (train, held_out):
        by_image: dict[str, list[Prompt]] = {}
        for prompt in dataset.prompts:
            by_image.setdefault(prompt.media[0].path, []).append(prompt)
        for pair in by_image.values():
            first, second = sorted(pair, key=lambda prompt: str(prompt.label))
            assert (first.label, second.label) == ("1", "2")
            assert _choices(first) == _choices(second)[::-1]


def test_the_label_names_the_response_that_says_what_the_image_shows(held_out: Dataset) -> None:
    loaded: Any = load_digits()
    digits = loaded.target
    for prompt in held_out.prompts:
        truth = WORDS[digits[int(Path(prompt.media[0].path).stem)]]
        right, wrong = _choices(prompt) if prompt.label == "1" else _choices(prompt)[::-1]
        assert right == truth != wrong
        assert prompt.target == (
            f"<think> the image shows {truth} {prompt.label} , so response {prompt.label} . </think> "
            f"<answer> {prompt.label} </answer>"
        )


def test_images_are_the_digits_at_56_pixels(paths: DigitsPaths) -> None:
    digits: Any = load_digits()
    for index in (0, 1, 1796):
        with Image.open(paths.train.parent / "images" / f"{index:04d}.png") as image:
            assert (image.size, image.mode) == ((56, 56), "RGB")
            small = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.corrcoef(small.ravel(), digits.images[index].ravel())[0, 1] > 0.95


def test_the_same_seed_writes_the_same_files_and_another_seed_others(paths: DigitsPaths, tmp_path: Path) -> None:
    again, other = (build_digits_data(tmp_path / str(seed), seed=seed) for seed in (0, 1))
    assert again.train.read_bytes() == paths.train.read_bytes()
    assert again.held_out.read_bytes() == paths.held_out.read_bytes()
    assert other.held_out.read_bytes() != paths.held_out.read_bytes()


def test_files_that_are_there_are_left_alone_and_unfinished_ones_written_again(tmp_path: Path) -> None:
    paths = build_digits_data(tmp_path, seed=0)
    written = paths.train.read_bytes()
    paths.train.write_text("mine")
    build_digits_data(tmp_path, seed=0)
    assert paths.train.read_text() == "mine"
    (tmp_path / "manifest.json").unlink()  # it is written last, so without it nothing is finished
    build_digits_data(tmp_path, seed=0)
    assert paths.train.read_bytes() == written
    assert json.loads((tmp_path / "manifest.json").read_text())["seed"] == 0
    assert [path.name for path in tmp_path.rglob("*partial*")] == []


def test_the_demonstrations_reason_rightly_and_answer_with_a_bias_for_the_first(
    paths: DigitsPaths, train: Dataset
) -> None:
    demonstrations = _read(paths.demonstrations).prompts
    assert len(demonstrations) == len(train.prompts)
    answers = {"1": Counter[str](), "2": Counter[str]()}
    for shown, true in zip(demonstrations, train.prompts, strict=True):
        assert shown.target is not None and true.target is not None and shown.label is not None
        reasoning, answer = shown.target.split("</think>")
        assert reasoning == true.target.split("</think>")[0]
        answers[shown.label][answer.split()[1]] += 1
    assert answers["1"].keys() == {"1"}
    assert 0.65 < answers["2"]["1"] / answers["2"].total() < 0.75
