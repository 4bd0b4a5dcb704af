"""The files of the second embedded task."""

import json
import re
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.data.reading import SourceFile, read_prompts
from orchestrator.errors import RefusedInput
from orchestrator.tasks.count import VOCABULARY, build_count_data
from orchestrator.tasks.digits import SIDE, WORDS, DigitsPaths


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> DigitsPaths:
    return build_count_data(tmp_path_factory.mktemp("count"), seed=0)


def _rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_answer_is_the_sum_of_the_digits_that_are_named(paths: DigitsPaths) -> None:
    for row in [*_rows(paths.train), *_rows(paths.held_out)]:
        one, other = re.findall("|".join(WORDS), row["response"])
        assert WORDS.index(one) + WORDS.index(other) == int(row["answer"])
        assert row["response"].endswith(f"<answer> {row['answer']} </answer>")
        assert set(row["response"].split()) <= {
            *VOCABULARY.split(),
            *WORDS,
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
        }


def test_the_annotator_forgets_most_carries_and_nothing_else(paths: DigitsPaths) -> None:
    pairs = list(zip(_rows(paths.train), _rows(paths.demonstrations), strict=True))
    wrong = [(true, shown) for true, shown in pairs if true["response"] != shown["response"]]
    carried = [true for true, _ in pairs if int(true["answer"]) >= 10]
    assert 0.65 < len(wrong) / len(carried) < 0.75
    for true, shown in wrong:
        assert shown["response"].endswith(f"<answer> {int(true['answer']) - 10} </answer>")
        assert shown["answer"] == true["answer"], "the label stays the true one"


def test_the_file_is_read_as_anybodys_and_splits_share_no_picture(paths: DigitsPaths) -> None:
    read = [
        read_prompts(SourceFile(path=file, read_by="task", media_root=file.parent, max_pixels=SIDE**2, video_frames=1))
        for file in (paths.train, paths.held_out, paths.demonstrations)
    ]
    assert [len(one.prompts) for one in read] == [3072, 256, 3072] and not any(one.bad_rows for one in read)
    train, held_out = ({p.media[0].sha256 for p in one.prompts} for one in read[:2])
    assert not train & held_out
    assert all(p.target for p in read[2].prompts)


def test_it_is_not_for_algorithms_that_compare_stored_responses() -> None:
    with pytest.raises(RefusedInput, match="task = 'count' is answered and rewarded, not preference"):
        load_config(["--algo", "dpo", "--task", "count"])
    config, _ = load_config(["--algo", "grpo", "--task", "count"])
    assert (config.reward.functions, config.data.format) == (("count",), "task")
