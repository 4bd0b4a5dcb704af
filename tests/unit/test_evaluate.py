"""The command that measures a model on a benchmark: what it refuses and writes; its engines are stood in for."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from orchestrator.data.__main__ import main as data
from orchestrator.evaluate import main
from tests.tiny_models import write_released_qwen2_5_vl
from tests.unit.evaluation.released_files import cell, jsonl, parquet, save, text_png, tsv
from tests.unit.stand_in_engines import StandInEngines

_ASKED = {"question_id": 1, "image": "a.png", "text": "Is there a dog ?", "label": "no"}


def _pope(folder: Path, *rows: dict[str, Any]) -> Path:
    save(folder / "a.png")
    return jsonl(folder / "coco_pope_random.json", *(rows or (_ASKED,)))


def _refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(words) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--benchmark", "popes"], "benchmark = 'popes': expected one of judgements"),
        (
            ["--benchmark", "reward_bench_2"],
            "of rewards, which only a reward model gives: scorer = 'generative'",
        ),
        (["--benchmark", "mmhal"], "mmhal is rated by a judge: give --reward.judge_url, --reward.judge_model"),
        (["--benchmark", "pope", "--compat", "r1_released"], "pope is counted as strict, official, lmms_eval"),
        (
            ["--benchmark", "pope", "--votes", "3"],
            "votes = 3: expected an odd number, and verdicts on a benchmark",
        ),
        (["--benchmark", "vl_reward_bench", "--votes", "4"], "votes = 4: expected an odd number"),
        (["--benchmark", "vl_reward_bench", "--template", "no.txt"], "template 'no.txt' cannot be read as text"),
        (["--benchmark", "pope", "--form", "bracketed"], "form = 'bracketed' says how a verdict is asked for"),
        (
            ["--benchmark", "judgements", "--order", "one"],
            "order = 'one' says how a verdict is asked for, and a judgement",
        ),
        (
            ["--benchmark", "judgements", "--template", "t"],
            "template = 't' says how a verdict is asked for, and a judge",
        ),
        (["--benchmark", "pope", "--scorer", "scalar"], "has no reward head: it should be what scalar_rm leaves"),
        (["--benchmark", "pope", "--scorer", "critique"], "is no critique reward model (no request in reward_head"),
        (["--benchmark", "pope", "--algo", "dpo"], "--algo: a model is measured by --benchmark, --model, --data"),
        (["--benchmark", "pope", "--rollout.no", "1"], "rollout.no"),
        (["--benchmark", "pope"], "no.json' is not a file"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = _refused(capsys, *words, "--model", str(tmp_path), "--data", str(tmp_path / "no.json"))
    assert told.startswith("refused: ") and message in told
    assert list(tmp_path.iterdir()) == []


def test_bad_rows_are_told_and_refused_beyond_the_bound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = _pope(tmp_path, _ASKED, {**_ASKED, "label": "maybe"})
    assert main(["--benchmark", "pope", "--model", str(tmp_path), "--data", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "row 2 is left out: field 'label' is \"maybe\", expected yes or no"
    assert lines[-1].startswith(
        f"refused: 1 of 2 rows of {str(file)!r} cannot be used, more than data.max_bad_frac = 0"
    )
    words = ["--benchmark", "pope", "--model", str(tmp_path), "--data", str(file), "--data.max_bad_frac", "0.5"]
    assert main(words) == 2
    assert "model.path" in capsys.readouterr().err


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released_qwen2_5_vl(tmp_path_factory.mktemp("evaluate") / "model")


def _measure(model: Path, file: Path, name: str, out: Path, *more: str) -> int:
    words = ["--benchmark", name, "--model", str(model), "--data", str(file), "--out", str(out)]
    return main([*words, "--rollout.max_new_tokens", "16", *more])


def test_a_policy_is_measured_and_measured_again_for_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _pope(tmp_path, _ASKED, {**_ASKED, "label": "yes"}, _ASKED)
    engines = StandInEngines(monkeypatch, model, "No, there is none.")
    assert _measure(model, file, "pope", tmp_path / "out") == 0
    first = capsys.readouterr()
    assert "| accuracy | 0.667 " in first.out
    assert "3 answers to ask for; workers are started\n3 of 3 answers are kept\n" in first.err
    assert (engines.num_asked, engines.num_started) == (3, 1)
    told = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert told["ways"]["official"]["figures"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert told["ways"]["lmms_eval"]["counts"] == {"rows": 3, "unreadable": 3}
    assert told["asked"]["benchmark"] == "pope" and len(told["asked"]["file"]) == 64
    assert _measure(model, file, "pope", tmp_path / "out") == 0
    assert (engines.num_asked, engines.num_started) == (3, 1)
    assert capsys.readouterr().out == first.out
    assert _measure(model, file, "pope", tmp_path / "out", "--run.seed", "7") == 2
    assert "holds answers made with seed = 0, now it is 7" in capsys.readouterr().err


def test_another_models_answers_are_looked_at_before_anything_is_asked(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, file, other = StandInEngines(monkeypatch, model, "No."), _pope(tmp_path), tmp_path / "other"
    assert _measure(model, file, "pope", tmp_path / "out", "--against", str(other)) == 2
    assert "predictions.parquet' is not a file" in capsys.readouterr().err
    other.mkdir()
    (other / "asked.json").write_text('{"benchmark": "mme"}')
    assert _measure(model, file, "pope", tmp_path / "out", "--against", str(other)) == 2
    assert "holds answers to 'mme', not to 'pope'" in capsys.readouterr().err
    assert engines.num_started == 0


def test_answers_are_forgotten_where_nothing_is_to_be_resumed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, file = StandInEngines(monkeypatch, model, "No."), _pope(tmp_path)
    for _ in range(2):
        assert _measure(model, file, "pope", tmp_path / "out", "--run.resume", "never") == 0
    assert engines.num_asked == 2


def test_pictures_that_are_resized_make_other_answers_than_those_that_are_not(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    StandInEngines(monkeypatch, model, "No.")
    file, bound = _pope(tmp_path), ("--data.max_pixels", "10000")
    assert _measure(model, file, "pope", tmp_path / "out", *bound) == 0
    assert _measure(model, file, "pope", tmp_path / "out", *bound, "--data.oversize", "refuse") == 2
    assert "holds answers made with max_pixels = 10000, now it is None" in capsys.readouterr().err


def test_a_judge_of_pairs_votes_and_is_compared(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"query": "What ?", "response": ["a", "b"], "human_ranking": [0, 1]}
    file = parquet(tmp_path / "v.parquet", *({**row, "id": f"mathverse_{i}", "image": cell(i)} for i in range(3)))
    engines = StandInEngines(monkeypatch, model, "<answer>1</answer>")
    assert _measure(model, file, "vl_reward_bench", tmp_path / "one", "--votes", "3", "--compat", "r1_released") == 0
    shown = capsys.readouterr().out
    assert "|  | strict | r1_released |" in shown
    assert "| accuracy | 0.500 " in shown and "1.000 (1.000-1.000) |" in shown
    assert (engines.num_asked, engines.spec.max_images_per_prompt) == (3 * 2 * 4, 1)  # type: ignore[attr-defined]
    StandInEngines(monkeypatch, model, "<answer>2</answer>")
    more = ("--votes", "3", "--against", str(tmp_path / "one"))
    assert _measure(model, file, "vl_reward_bench", tmp_path / "two", *more) == 0
    compared = (tmp_path / "two" / "comparison.md").read_text()
    assert "| accuracy | 0.500 | 0.500 | +0.000" in compared
    assert "| first\\_position | 1.000 | 0.000 | -1.000" in compared
    page = (tmp_path / "two" / "disagreements.html").read_text()
    assert "<h2>strict</h2><p>They agree on every row.</p>" in page
    assert "3 of 3 rows speak for one" in page and "of 3 rows speak for" in page.partition("<h2>r1_released</h2>")[2]
    assert page.count("data:image/png") == 3


def test_each_of_two_judges_is_read_in_the_form_that_it_was_asked_in(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"query": "What ?", "response": ["a", "b"], "human_ranking": [0, 1], "id": "mathverse_1", "image": cell(1)}
    file, one = parquet(tmp_path / "v.parquet", row), tmp_path / "one"
    StandInEngines(monkeypatch, model, "Answer 1 is better")
    assert _measure(model, file, "vl_reward_bench", one, "--form", "answer_is_better") == 0
    StandInEngines(monkeypatch, model, "<answer>2</answer>")
    assert _measure(model, file, "vl_reward_bench", tmp_path / "two", "--against", str(one)) == 0
    compared = (tmp_path / "two" / "comparison.md").read_text()
    assert "| accuracy | 0.500 | 0.500 | +0.000" in compared and "| unreadable | 0.000 | 0.000 |" in compared
    page = (tmp_path / "two" / "disagreements.html").read_text()
    assert "as listed: for response 1" in page and "not readable" not in page
    asked = json.loads((one / "asked.json").read_text())
    assert asked.pop("reading") == "answer_is_better"
    # A folder of before it was kept is read as the command says.
    (one / "asked.json").write_text(json.dumps(asked))
    assert _measure(model, file, "vl_reward_bench", one, "--form", "answer_is_better") == 0
    assert _measure(model, file, "vl_reward_bench", tmp_path / "two", "--against", str(one)) == 0
    assert "| unreadable | 1.000 | 0.000 |" in (tmp_path / "two" / "comparison.md").read_text()
    (one / "asked.json").write_text('{"reading": ["tagged"]}')
    capsys.readouterr()
    assert _measure(model, file, "vl_reward_bench", tmp_path / "two", "--against", str(one)) == 2
    assert "has verdicts of reading = \"['tagged']\": expected" in capsys.readouterr().err


def test_judgements_that_a_model_does_not_solve_are_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"which of {n} ?", "chosen": "a", "rejected": "b", "image": "a.png"} for n in range(4)]
    save(tmp_path / "a.png")
    pairs = str(jsonl(tmp_path / "pairs.jsonl", *rows))
    made, out = tmp_path / "all.parquet", tmp_path / "out"
    assert data(["judgements", pairs, "--out", str(made)]) == 0
    engines = StandInEngines(monkeypatch, model, "<answer>1</answer>")
    assert _measure(model, made, "judgements", out, "--votes", "3") == 0
    assert engines.num_asked == 4 * 4
    told = capsys.readouterr().out
    assert "| accuracy | 0.500 " in told and "| accuracy/better\\_1 | 1.000 " in told
    assert "| first\\_position | 1.000 " in told
    hard = tmp_path / "hard.parquet"
    assert data(["judgements", pairs, "--out", str(hard), "--attempts", str(out / "predictions.parquet")]) == 0
    assert "4 pairs: 2 kept, not solved at the first attempt, 2 dropped; 0 without" in capsys.readouterr().out
    known = {row["question"]: row["answer"] for row in pq.read_table(made).to_pylist()}
    kept = pq.read_table(hard).to_pylist()
    assert [known[row["question"]] for row in kept] == [["<answer>2</answer>"]] * 2
    assert sorted(row["answer"][0] for row in kept) == ["<answer>1</answer>", "<answer>2</answer>"]
    assert {(row["right"], row["tried"], row["difficulty"]) for row in kept} == {(0, 4, None)}


def test_rows_that_make_no_whole_benchmark_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"index": 1, "question": "q ?", "answer": "Yes", "category": "count", "image": text_png(1), "image_path": "i"}
    StandInEngines(monkeypatch, model, "Yes")
    assert _measure(model, tsv(tmp_path / "m.tsv", row), "mme", tmp_path / "out") == 2
    assert "image 'i' of count has 1 questions, MME has 2" in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.json").exists()


def test_rows_too_long_for_the_model_are_refused_with_their_number(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = StandInEngines(monkeypatch, model, "Yes")
    file = _pope(tmp_path, _ASKED, {**_ASKED, "text": "dog " * 600 + "?"})
    assert _measure(model, file, "pope", tmp_path / "out") == 2
    told = capsys.readouterr().err
    assert "1 rows of" in told and "cannot be asked; row 2: " in told and "are more than" in told
    assert engines.num_started == 0


def _holds(folder: Path) -> Path:
    """Two benchmarks, pictures of one of them, and one that needs a judge."""
    save(folder / "a.png")
    jsonl(folder / "POPE.jsonl", _ASKED, {**_ASKED, "label": "yes"})
    row = {"id": "mathverse_1", "query": "What ?", "response": ["a", "b"], "human_ranking": [0, 1], "image": cell(1)}
    parquet(folder / "VL-RewardBench" / "test.parquet", row)
    (folder / "mmhal.json").write_text("[]")
    (folder / ".cache").mkdir()
    return folder


def test_all_that_a_folder_holds_is_measured_and_what_is_refused_stops_no_other(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    engines, data, out = StandInEngines(monkeypatch, model, "No."), _holds(tmp_path / "data"), tmp_path / "out"
    more = ("--votes", "3", "--form", "bracketed", "--compat", "lmms_eval")
    assert _measure(model, data, "all", out, *more) == 2
    told = capsys.readouterr()
    assert told.err.count("named after no benchmark: a.png\n") == 1
    assert "refused: mmhal: mmhal is rated by a judge" in told.err
    lines = [line for line in told.out.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines[1:]] == ["| mmhal", "| pope", "| vl\\_reward\\_bench"]
    assert "| refused: mmhal is rated by a judge: give" in lines[1]
    assert lines[2].startswith("| pope | accuracy | 0.500 (") and lines[2].endswith("| 2 | 0 |")
    assert lines[3].startswith("| vl\\_reward\\_bench | accuracy | 0.000 ") and lines[3].endswith("| 1 | 2 |")
    assert (out / "summary.md").read_text() == told.out
    assert list(json.loads((out / "pope" / "scores.json").read_text())["ways"]) == ["strict", "lmms_eval"]
    assert list(json.loads((out / "vl_reward_bench" / "scores.json").read_text())["ways"]) == ["strict"]
    assert (engines.num_asked, engines.num_started) == (2 + 2 * 4, 2)
    (data / "mmhal.json").unlink()
    assert _measure(model, data, "all", out, *more) == 0
    assert engines.num_started == 2, "all of it was there"


@pytest.mark.parametrize(
    ("names", "more", "message"),
    [
        ((), (), "holds nothing named after one of judgements"),
        (("images",), (), "holds nothing named after one of judgements"),
        (("pope", "POPE"), (), "refused: pope: POPE and pope are both named after it"),
        (("pope",), ("--compat", "r1_released"), "these benchmarks are counted as lmms_eval, official, strict"),
    ],
)
def test_a_folder_that_does_not_say_what_it_holds_is_refused(
    names: tuple[str, ...], more: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    assert _measure(tmp_path, tmp_path / "data", "all", tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


def test_all_of_a_file_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = jsonl(tmp_path / "pope.jsonl", _ASKED)
    assert _measure(tmp_path, file, "all", tmp_path / "out") == 2
    assert "is no folder, and all benchmarks of one are asked for" in capsys.readouterr().err
