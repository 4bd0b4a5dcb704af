"""A format that is known by its keys is held against the algorithm as one that was named."""

from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.data.recognising import with_format
from orchestrator.data.shards import data_files
from orchestrator.errors import RefusedInput
from tests.unit.data.rows import write_jsonl

_PAIR = {"prompt": "?", "chosen": "a", "rejected": "b"}


def test_preferences_are_no_prompts_of_grpo(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "d.jsonl", _PAIR)
    config, _ = load_config(["--algo", "grpo", "--model.path", "m", "--data.path", str(file)])
    with pytest.raises(RefusedInput, match=r"data\.format = 'pairs' cannot serve algo = 'grpo'"):
        with_format(config)


def test_nor_is_one_of_several_sources(tmp_path: Path) -> None:
    asked = write_jsonl(tmp_path / "a.jsonl", {"problem": "?", "answer": 1})
    pairs = write_jsonl(tmp_path / "b.jsonl", _PAIR)
    (tmp_path / "c.toml").write_text(
        "".join(f'[[data.source]]\nname = "{name}"\npath = "{file}"\n' for name, file in (("a", asked), ("b", pairs)))
    )
    config, _ = load_config(["--algo", "grpo", "--model.path", "m", "--config", str(tmp_path / "c.toml")])
    with pytest.raises(RefusedInput, match="'pairs' cannot serve algo = 'grpo'"):
        with_format(config)


@pytest.mark.parametrize("names", [("train2014", "val2014"), ("trainset", "testset"), ("data_train1", "data_test1")])
def test_splits_by_other_names_are_not_joined(names: tuple[str, str], tmp_path: Path) -> None:
    for name in names:
        write_jsonl(tmp_path / f"{name}.jsonl", _PAIR)
    with pytest.raises(RefusedInput, match="more than one split"):
        data_files(tmp_path)
