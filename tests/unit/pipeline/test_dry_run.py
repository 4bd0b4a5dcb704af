"""A dry run looks at the data as the run would, refuses what it would, and writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.train import main
from tests.unit.data.rows import image, picture, row, text, write_jsonl
from tests.unit.data.store_rows import imported, plain
from tests.unit.evaluation.released_files import cell, parquet
from tests.user_files import write_llava

_LONG = "many words " * 30
_CLUSTER = '[[nodes]]\nname = "one"\ncpus = 8\ngpus = 2\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava") / "model")


class Dry:
    """Dry runs in one folder, which they must leave as it is."""

    def __init__(self, folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._model, self._capsys = folder, model, capsys

    def __call__(self, algo: str, data: Path, *flags: str) -> tuple[int, list[str]]:
        """The exit code, and what was said of the data, or the refusal."""
        before = sorted(self.folder.rglob("*"))
        own = () if "--model.path" in flags else ("--model.path", str(self._model))
        flags = (
            "--rollout.max_new_tokens",
            "8",
            "--algo",
            algo,
            "--data.path",
            str(data),
            "--run.dir",
            str(self.folder / "run"),
            *own,
            *flags,
        )
        code = main([*flags, "--dry-run"])
        assert sorted(self.folder.rglob("*")) == before
        said = self._capsys.readouterr()
        marks = ("data:", "held-out data:", "benchmark ", "refused:")
        return code, [line for line in (said.out + said.err).splitlines() if line.startswith(marks)]

    def file(self, *rows: Any, name: str = "d.jsonl") -> Path:
        return write_jsonl(self.folder / name, *rows)


@pytest.fixture
def dry(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> Dry:
    return Dry(tmp_path, model, capsys)


@pytest.mark.parametrize("algo", ["stable_reinforce", "sft"])
def test_bad_rows_are_refused_as_the_run_would(dry: Dry, algo: str) -> None:
    file = dry.file(row(response="one"), row(answer="3", response="one"))
    code, (told,) = dry(algo, file)
    assert code == 2
    assert told.endswith("has 1 bad rows out of 2, data.max_bad_frac = 0 allows 0; "
                         'the first is row 2: field \'answer\' is "3", expected 1 or 2')  # fmt: skip


def test_what_an_online_run_does_not_learn_from_is_told(dry: Dry) -> None:
    picture(dry.folder / "a.png")
    file = dry.file(row(image("a.png")), row(answer="3"), row(source="x"), row(text(_LONG)))
    held_out = dry.file(row(), row(answer="3"), name="e.jsonl")
    flags = ("--data.max_bad_frac", "0.5", "--data.max_prompt_tokens", "100", "--data.eval_path", str(held_out))
    code, told = dry("stable_reinforce", file, *flags)
    assert code == 0, told
    assert told[:2] == [
        "data: learned from: 2 rows",
        "data: bad rows: 1 of 4; the first is row 2: field 'answer' is \"3\", expected 1 or 2",
    ]
    assert told[2] == "data: rows without an image: 2 of 3; the first is row 3: others have one"
    assert told[3].startswith("data: rows not learned from: 1 of 3; the first is row 4: its prompt has ")
    assert told[4] == "data: key 'source' is not read: 1 row has it, row 3"
    assert told[5].startswith("held-out data: bad rows: 1 of 2; the first is row 2: ")
    code, (refused,) = dry("stable_reinforce", dry.file(row(), row(text(_LONG))), "--data.max_prompt_tokens", "100")
    assert code == 2 and "1 of 2 prompts are longer than data.max_prompt_tokens = 100" in refused


def test_benchmarks_are_read_as_the_run_would(dry: Dry) -> None:
    pair = {"id": "mmmu", "query": "which ?", "response": ["a", "b"], "human_ranking": [0, 1], "image": cell(1)}
    bench, file, table = parquet(dry.folder / "b.parquet", pair, pair), dry.file(row()), dry.folder / "eval.toml"
    table.write_text(f'[[eval.benchmark]]\nname = "vl_reward_bench"\npath = "{bench}"\nrows = 1\n')
    code, told = dry("grpo", file, "--config", str(table))
    assert code == 0, told
    assert told[-1:] == ["benchmark vl_reward_bench: 1 of 2 rows, 2 questions at every evaluation"]
    parquet(bench, {**pair, "human_ranking": [0, 0]})
    code, (refused,) = dry("grpo", file, "--config", str(table))
    assert code == 2 and "row 1: field 'human_ranking' is [0, 0]" in refused
    bench.unlink()
    code, (refused,) = dry("grpo", file, "--config", str(table))
    assert code == 2 and refused.endswith(f"eval.benchmark 'vl_reward_bench': path {str(bench)!r} is not there")
    code, (refused,) = dry("dpo", dry.file(plain()), "--data.format", "plain_dpo", "--config", str(table))
    assert code == 2 and "on stored responses has none" in refused


def test_rows_without_a_demonstration_count_as_bad_ones(dry: Dry) -> None:
    file = dry.file(row(response="one"), row())
    code, (refused,) = dry("sft", file)
    assert code == 2 and "has 1 bad rows out of 2" in refused
    assert refused.endswith("the first is row 2: it has no 'response', which --algo sft learns from")
    code, told = dry("sft", file, "--data.max_bad_frac", "0.5")
    assert code == 0, told
    assert told[0] == "data: learned from: 1 rows"


def test_a_file_of_preferences_is_read_and_no_store_is_made_of_it(dry: Dry) -> None:
    file = dry.file(plain(), plain(prompt=f"{_LONG}?"), plain(chosen=3), plain(prompt="why ?"))
    flags = ("--data.format", "plain_dpo", "--data.max_prompt_tokens", "100")
    code, (refused,) = dry("dpo", file, *flags)
    assert code == 2 and "1 bad rows out of 4, data.max_bad_frac = 0 allows 0; the first is row 3" in refused
    code, told = dry("dpo", file, *flags, "--data.max_bad_frac", "0.5")
    assert code == 0, told
    assert told[0] == "data: learned from: 2 of 3 rows, 4 of their 6 responses, 2 pairs"
    assert told[1].startswith("data: rows not learned from: 1 of 3; the first is row 2: its prompt has ")
    assert told[2].startswith("data: pairs passed over: 1 of 3; the first is row 2: its prompt has ")
    assert told[3] == "data: bad rows: 1 of 4; the first is row 3: field 'chosen' is 3, expected text"
    code, (refused,) = dry("dpo", dry.file(plain(), plain(prompt=f"{_LONG}?")), *flags)
    assert code == 2 and refused.endswith(" tokens, data.max_prompt_tokens = 100")


def test_bad_rows_and_those_not_learned_from_are_one_share(dry: Dry) -> None:
    judged = [row(answer="3", response="one"), row(), row(response="one"), row(response="two")]
    code, (refused,) = dry("sft", dry.file(*judged), "--data.max_bad_frac", "0.4")
    assert code == 2 and "has 2 bad rows out of 4, data.max_bad_frac = 0.4 allows 1; the first is row 1" in refused
    pairs = [plain(chosen=3), plain(prompt=f"{_LONG}?"), plain(), plain(prompt="why ?")]
    flags = ("--data.format", "plain_dpo", "--data.max_prompt_tokens", "100")
    code, (refused,) = dry("dpo", dry.file(*pairs), *flags, "--data.max_bad_frac", "0.4")
    assert code == 2 and "has 2 bad rows out of 4, data.max_bad_frac = 0.4 allows 1; the first is row 1" in refused
    held_out = [plain(prompt=f"{i} ?") for i in range(20)]
    assert (
        dry(
            "dpo",
            dry.file(plain(chosen=3), *held_out),
            *flags,
            "--data.max_bad_frac",
            "0.05",
            "--data.held_out_frac",
            "0.5",
        )[0]
        == 0
    )


def test_held_out_rows_that_are_left_out_are_told(dry: Dry) -> None:
    held_out = dry.file(plain(), plain(chosen=f"{_LONG}?"), plain(chosen=3), name="e.jsonl")
    flags = ("--data.format", "plain_dpo", "--policy.tokens_per_microbatch", "100", "--data.max_bad_frac", "0.4")
    code, told = dry("dpo", dry.file(plain(), plain(prompt="why ?")), *flags, "--data.eval_path", str(held_out))
    assert code == 0, told
    said = [line.removeprefix("held-out data: ") for line in told if line.startswith("held-out data: ")]
    assert said[0] == "2 rows" and said[2].startswith("bad rows: 1 of 3; the first is row 3: ")
    assert said[1].startswith("held-out rows left out: 1 of 2; the first is row 2: its response 1 and its prompt have ")
    store = imported(dry.folder, "plain_dpo", *[plain(prompt=f"{i} ?") for i in range(20)], held_out_frac=0.5).folder
    code, told = dry("dpo", store)
    assert code == 0, told
    num_train = int(told[0].split()[3])
    assert f"held-out data: {20 - num_train} rows" in told


def test_a_store_is_looked_at(dry: Dry) -> None:
    store = imported(dry.folder, "plain_dpo", plain(), plain(prompt="why ?")).folder
    assert dry("dpo", store)[1][0] == "data: learned from: 2 of 2 rows, 4 of their 4 responses, 2 pairs"
    code, (refused,) = dry("dpo", store, "--data.held_out_frac", "0.3")
    assert code == 2 and "was split at 0" in refused


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
@pytest.mark.parametrize(("algo", "reader"), [("stable_reinforce", "r1_reward"), ("dpo", "plain_dpo")])
def test_an_empty_file_is_refused(dry: Dry, algo: str, reader: str, content: str) -> None:
    file = dry.folder / "d.jsonl"
    file.write_text(content)
    code, (refused,) = dry(algo, file, "--data.format", reader)
    assert code == 2 and refused.endswith("is empty: 0 rows, at least 1 is needed")
    code, (refused,) = dry(algo, dry.folder / "gone.jsonl", "--data.format", reader)
    assert code == 2 and refused.endswith("gone.jsonl' is not a file")


def test_on_a_described_cluster_data_and_model_may_be_elsewhere(dry: Dry, model: Path) -> None:
    cluster = dry.folder / "cluster.toml"
    cluster.write_text(_CLUSTER)
    described = dry.folder / "described"
    described.mkdir()
    (described / "config.json").write_text((model / "config.json").read_text())
    flags = ("--placement.cluster", str(cluster), "--model.path", str(described))
    assert dry("stable_reinforce", Path("no/such.jsonl"), *flags) == (
        0,
        ["data: not looked at, as 'no/such.jsonl' is not on this machine"],
    )
    code, told = dry("stable_reinforce", dry.file(row()), *flags)
    assert code == 0, told
    assert told[0] == "data: learned from: 1 rows"
    assert told[-1] == "data: lengths not looked at, as the model folder has no processor"
    assert dry("stable_reinforce", dry.file(row(answer="3")), *flags)[0] == 2


def test_the_embedded_task_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--algo", "stable_reinforce", "--run.dir", str(tmp_path / "run"), "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "data: the embedded task's, written by the run\n" in printed
    assert json.loads(printed[: printed.index("\n}\n") + 3])["algo"] == "stable_reinforce"
    assert list(tmp_path.iterdir()) == []
