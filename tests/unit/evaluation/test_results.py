"""From a released file through answers to tables: each benchmark by every way of counting, without a model."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.evaluation.benchmarks.items import CountOptions, Item
from orchestrator.evaluation.benchmarks.registry import BENCHMARKS, benchmark_of
from orchestrator.evaluation.predictions import Prediction
from orchestrator.evaluation.results import (
    Scores,
    answered,
    as_json,
    as_markdown,
    compared,
    comparison_markdown,
    score,
    write_scores,
)
from tests.unit.evaluation.released_files import cell, jsonl, parquet, read, save, text_png, tsv, whole

_PAIR = {"query": "What ?", "response": ["a", "b"], "human_ranking": [0, 1], "image": cell(1)}


def _file(name: str, folder: Path) -> Path:
    """A few rows of each benchmark, all with their first option, "yes", or the first response for the right one."""
    save(folder / "a.png")
    save(folder / "mcq" / "a.png")
    options = {"A": "cat", "B": "dog", "C": "cow", "D": "ant", "answer": "A"}
    table = {"question": "q ?", "category": "count", "image": text_png(1), **options}
    pair = {"prompt": "q ?", "chosen": "a", "rejected": "b"}
    make: dict[str, Any] = {
        "llava_bench": lambda: jsonl(
            folder / "q.jsonl", {"question_id": 1, "image": "a.png", "text": "q", "category": "conv"}
        ),
        "math_vista": lambda: parquet(
            folder / "m.parquet",
            {"pid": "1", "query": "q", "decoded_image": cell(1), "answer_type": "integer", "answer": "7"},
        ),
        "mm_rlhf_reward_bench": lambda: jsonl(folder / "b.jsonl", {"id": "1", "image": "mcq/a.png", **pair}),
        "mm_vet": lambda: whole(
            folder / "mm-vet.json",
            {"v1": {"imagename": "a.png", "question": "q", "answer": "x", "capability": ["rec"]}},
        ),
        "mmbench": lambda: tsv(
            folder / "m.tsv", *({"index": i + k * 10**6, **table} for i in (1, 2) for k in range(4))
        ),
        "mme": lambda: tsv(
            folder / "m.tsv",
            {"index": 1, **table, "answer": "Yes", "image_path": "i"},
            {"index": 2, **table, "answer": "No", "image_path": "i"},
        ),
        "judgements": lambda: jsonl(
            folder / "j.jsonl",
            {"message": [{"role": "user", "content": "which ?"}], "question": "q", "answer": "1"},
        ),
        "mmhal": lambda: whole(
            folder / "h.json",
            [
                {
                    "question_type": "other",
                    "image_content": ["x"],
                    "question": "q",
                    "gt_answer": "x",
                    "image_path": "a.png",
                }
            ],
        ),
        "mmmu": lambda: tsv(folder / "m.tsv", {"index": 1, **table}),
        "multimodal_reward_bench": lambda: whole(
            folder / "all_data.json",
            [
                {
                    "ID": "1",
                    "Text": "q",
                    "Image": "a.png",
                    "Output1": "a",
                    "Output2": "b",
                    "Better": "Output1",
                    "Category": "vqa",
                }
            ],
        ),
        "multimodal_reward_bench_2": lambda: parquet(
            folder / "t2i.parquet",
            {"pair_id": "1", "prompt_text": "q", "response_a_text": "a", "response_b_text": "b", "chosen": "A"},
        ),
        "pope": lambda: jsonl(folder / "p.jsonl", {"question_id": 1, "image": "a.png", "text": "q", "label": "yes"}),
        "reward_bench_2": lambda: parquet(
            folder / "r.parquet", {"id": "1", "prompt": "q", "chosen": ["a"], "rejected": ["b"] * 3, "subset": "Math"}
        ),
        "safety_bench": lambda: parquet(
            folder / "unsafes.parquet", {"id": "1", "question": "q", "answer": "Yes", "image": cell(1)}
        ),
        "seed_bench": lambda: tsv(folder / "s.tsv", {"index": 1, **table}),
        "seed_bench_likelihood": lambda: tsv(folder / "s.tsv", {"index": 1, **table}),
        "vl_reward_bench": lambda: parquet(
            folder / "v.parquet", *({"id": f"mathverse_{i}", **_PAIR} for i in range(3)), {"id": "mathverse_0", **_PAIR}
        ),
    }
    return make[name]()


def _says(item: Item, asks: str, *, right: bool = True, judged: bool = False) -> list[Prediction]:
    base = Prediction(row=item.row, digest=item.digest, id=item.id)
    if asks == "verdict":
        said = {"12": "1" if right else "2", "21": "2" if right else "1"}
        return [replace(base, order=order, text=f"<answer>{verdict}</answer>") for order, verdict in said.items()]
    if asks in ("rewards", "likelihoods"):
        return [replace(base, rewards=tuple(1.0 if (i == 0) == right else 0.0 for i in range(len(item.responses))))]
    text = item.truths[0] if item.truths else "x"
    reply = ("Rating: 6" if right else "Rating: 0") if judged else None
    return [replace(base, text=text if right else "nothing", reply=reply)]


def _scored(name: str, folder: Path, *, right: bool = True, model: str = "m") -> Scores:
    benchmark, items = benchmark_of(name), read(name, _file(name, folder))
    said = [
        one
        for item in items.items
        for one in _says(item, benchmark.asks, right=right, judged=benchmark.judge is not None)
    ]
    found, others = answered(items.items, said)
    assert others == 0
    return score(name, benchmark, found, model=model, options=CountOptions(), num_resamples=20)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_from_its_file_to_its_scores(name: str, tmp_path: Path) -> None:
    benchmark = benchmark_of(name)
    scores = _scored(name, tmp_path)
    assert [counting.way for counting in scores.countings] == list(benchmark.ways)
    told = json.loads(as_json(scores))
    assert set(told["ways"]) == set(benchmark.ways)
    for counting in scores.countings:
        assert counting.figures and counting.counts["rows"] >= 1
    if benchmark.judge is None:
        first = {"mme": "perception", "mmbench": "circular", "reward_bench_2": "score"}.get(name, "accuracy")
        best = 200.0 if name == "mme" else 1.0
        assert scores.countings[0][first] == pytest.approx(best)
        assert _scored(name, tmp_path, right=False).countings[0][first] == pytest.approx(0.0)


def test_the_table_has_a_column_for_each_way(tmp_path: Path) -> None:
    scores = replace(_scored("vl_reward_bench", tmp_path, model="a|b"), notes=("row 3 is left out: <bad>",))
    lines = as_markdown(scores).splitlines()
    assert lines[0] == "# vl\\_reward\\_bench: a\\|b"
    assert lines[2] == "|  | strict | official | r1_released | unified_reward |"
    table = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    assert table["accuracy"] == "| accuracy " + "| 1.000 (1.000-1.000) " * 4 + "|"
    assert table["macro"].count("0.333") == 12
    assert table["first\\_position"].endswith(" | – | – | – |")
    assert table["unreadable (count)"] == "| unreadable (count) | 0 | 0 | 0 | 0 |"
    assert "- row 3 is left out: \\<bad\\>" in lines
    assert "- strict: the benchmark has 1250 pairs, these are 4" in lines
    write_scores(tmp_path, scores)
    assert (tmp_path / "scores.md").read_text() == as_markdown(scores)
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["ways"]["r1_released"]["figures"]["accuracy"] == {"value": 1.0, "interval": [1.0, 1.0], "of": 4.0}


def test_two_models_on_the_same_rows(tmp_path: Path) -> None:
    good, bad = (_scored("vl_reward_bench", tmp_path, right=right) for right in (True, False))
    found = compared(bad, good, seed=0, num_resamples=200)
    accuracy = found["strict"][0]
    # Of 2^4 swaps 2 differ as much.
    assert (accuracy.difference, accuracy.p_value) == (1.0, pytest.approx(2 / 16, abs=0.06))
    lines = comparison_markdown(found, first="bad", second="good").splitlines()
    assert lines[0] == "# good against bad"
    assert next(line for line in lines if line.startswith("| accuracy |")).startswith(
        "| accuracy | 0.000 | 1.000 | +1.000"
    )


def test_answers_are_joined_by_row_and_never_by_id(tmp_path: Path) -> None:
    items = read("vl_reward_bench", _file("vl_reward_bench", tmp_path)).items
    assert items[0].id == items[3].id and items[0].digest == items[3].digest
    said = [one for item in items for one in _says(item, "verdict", right=item.row == 4)]
    found, others = answered(items, said)
    assert [[p.row for p in one.predictions] for one in found] == [[1, 1], [2, 2], [3, 3], [4, 4]]
    scores = score("vl_reward_bench", benchmark_of("vl_reward_bench"), found, model="m", options=CountOptions())
    assert (scores.countings[0]["accuracy"], others) == (1 / 4, 0)
    # An answer to another text at the same place is none.
    stale = [replace(one, digest="x") for one in said]
    found, others = answered(items, stale)
    assert others == 8
    with pytest.raises(ValueError, match="nothing was said about 4 rows of vl_reward_bench, row 1 is the first"):
        score("vl_reward_bench", benchmark_of("vl_reward_bench"), found, model="m", options=CountOptions())


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if benchmark_of(name).asks in ("answer", "verdict")])
def test_where_an_answer_is_missing_strict_alone_counts_and_cannot_read_it(name: str, tmp_path: Path) -> None:
    items, benchmark = read(name, _file(name, tmp_path)).items, benchmark_of(name)
    first, *rest = (one for item in items for one in _says(item, benchmark.asks, judged=benchmark.judge is not None))
    failed = replace(first, status="failed", text="", reply=None)
    found, _ = answered(items, [failed, *rest])
    scores = score(name, benchmark, found, model="m", options=CountOptions(), num_resamples=10)
    (strict,) = scores.countings
    assert strict.way == "strict"
    unread = next(one for one in ("unreadable", "undecided") if one in strict.counts)
    assert strict.counts[unread] >= 1
    others = ", ".join(benchmark.ways[1:])
    assert scores.notes == ((f"not counted as {others} while a question has no answer",) if others else ())


def test_a_way_that_is_none_is_named(tmp_path: Path) -> None:
    items = read("pope", _file("pope", tmp_path)).items
    found, _ = answered(items, [one for item in items for one in _says(item, "answer")])
    ways: Sequence[str] = ("strict", "r1_released")
    with pytest.raises(
        ValueError, match=r"pope is not counted as 'r1_released': expected one of strict, official, lmms_eval"
    ):
        score("pope", benchmark_of("pope"), found, model="m", options=CountOptions(), ways=ways)
