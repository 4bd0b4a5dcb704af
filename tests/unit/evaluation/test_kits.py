"""What kits leave, read; their rows in our tables and counted by ours. No kit and no model is run."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.items import CountOptions
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.kits.evalscope import command as evalscope_command
from orchestrator.evaluation.kits.evalscope import read as read_evalscope
from orchestrator.evaluation.kits.kit import KitAsk, KitRow
from orchestrator.evaluation.kits.lmms_eval import command as lmms_eval_command
from orchestrator.evaluation.kits.lmms_eval import read as read_lmms_eval
from orchestrator.evaluation.kits.registry import KITS, kit_of
from orchestrator.evaluation.kits.rows import answered_items, as_predictions, counted_by_kit, paired, write_rows
from orchestrator.evaluation.predictions import read_predictions
from tests.unit.evaluation.kit_files import Told, evalscope_files, lmms_eval_files
from tests.unit.evaluation.released_files import cell, parquet, read

TOLD = (
    Told("Is there a dog ?", "no", "No", 1.0),
    Told("Is there a cat ?", "yes", " Yes, a cat.", 1.0),
    Told("Is there a car ?", "yes", "not at all", 0.0),
)


def _asked(folder: Path) -> KitAsk:
    return KitAsk(
        python="python",
        url="http://127.0.0.1:1/v1",
        model="policy",
        tasks=("pope", "mme"),
        folder=folder,
        max_new_tokens=7,
        timeout_s=600.5,
        parallel=4,
        args=("--limit", "5"),
    )


def test_a_kit_is_given_our_time_limit_and_address_and_what_is_passed_on(tmp_path: Path) -> None:
    words = evalscope_command(_asked(tmp_path))
    asked = json.loads(words[words.index("--generation-config") + 1])
    assert asked == {"temperature": 0.0, "timeout": 600.5, "retries": 1, "max_tokens": 7}
    assert words[words.index("--datasets") + 1 :][:2] == ["pope", "mme"]
    assert words[-2:] == ["--limit", "5"]
    words = lmms_eval_command(_asked(tmp_path))
    assert "base_url=http://127.0.0.1:1/v1" in words[words.index("--model_args") + 1]
    assert "timeout=601," in words[words.index("--model_args") + 1]
    assert words[words.index("--tasks") + 1] == "pope,mme"
    assert words[words.index("--gen_kwargs") + 1] == "max_new_tokens=7"
    assert words[-2:] == ["--limit", "5"]


def test_unless_it_is_said_the_kit_decides_how_long_an_answer_is(tmp_path: Path) -> None:
    asked = replace(_asked(tmp_path), max_new_tokens=None)
    assert "max_tokens" not in " ".join(evalscope_command(asked))
    assert "--gen_kwargs" not in lmms_eval_command(asked)


def test_evalscopes_rows_are_known_by_number_though_their_lines_come_in_any_order(tmp_path: Path) -> None:
    results = read_evalscope(evalscope_files(tmp_path, "pope", {"random": TOLD}, {"accuracy": 2 / 3, "f1": 0.5}))
    rows = sorted(results.rows, key=lambda row: row.index)
    assert [row.text for row in rows] == [one.text for one in TOLD]
    assert (rows[1].task, rows[1].part, rows[1].id, rows[1].truth) == ("pope", "random", "q1", "YES")
    assert rows[1].question == "Is there a cat ?\nYES or NO."
    assert dict(rows[1].scores) == {"acc": 1.0}
    assert [(figure.name, figure.part, figure.value) for figure in results.figures] == [
        ("accuracy", "", 2 / 3),
        ("f1", "", 0.5),
    ]


def test_evalscopes_figures_of_several_parts_stand_beside_that_of_all(tmp_path: Path) -> None:
    files = evalscope_files(tmp_path, "pope", {"random": TOLD, "popular": TOLD[:1]}, {"accuracy": 0.75})
    counting = counted_by_kit(read_evalscope(files), way="evalscope")
    assert [figure.name for figure in counting.figures] == ["accuracy/random", "accuracy/popular", "accuracy"]
    assert counting["accuracy"] == 0.75
    assert counting.counts == {"rows": 4, "failed": 0}


def test_a_task_does_not_take_the_rows_of_another_whose_name_goes_on(tmp_path: Path) -> None:
    evalscope_files(tmp_path, "mmmu", {"art": TOLD[:1]}, {"acc": 1.0})
    results = read_evalscope(evalscope_files(tmp_path, "mmmu_pro", {"art": TOLD[:2]}, {"acc": 1.0}))
    assert sorted((row.task, row.part) for row in results.rows) == [("mmmu", "art"), *[("mmmu_pro", "art")] * 2]
    assert [figure.name for figure in counted_by_kit(results, way="evalscope").figures] == ["mmmu/acc", "mmmu_pro/acc"]


def test_requests_that_failed_are_told_where_evalscope_went_on(tmp_path: Path) -> None:
    summary = {"requested": 5, "succeeded": 3, "errored": 2}
    files = evalscope_files(tmp_path, "pope", {"random": TOLD}, {"f1": 0.5}, execution_summary=summary)
    assert read_evalscope(files).notes == ("2 of 5 requests of pope failed and are in no figure",)


def test_a_kit_whose_files_are_others_is_a_stop_that_names_the_field(tmp_path: Path) -> None:
    with pytest.raises(GuardStop, match=r"evalscope left no reports/MODEL/TASK\.json"):
        read_evalscope(tmp_path)
    files = evalscope_files(tmp_path, "pope", {"random": TOLD}, {"f1": 0.5})
    reviews = files / "reviews" / "policy" / "pope_random.jsonl"
    reviews.write_text(reviews.read_text().replace('"group_id": 1', '"group": 1'))
    with pytest.raises(GuardStop, match=r"pope_random\.jsonl', line 2: field 'group_id' is missing or no int"):
        read_evalscope(files)
    reviews.unlink()
    with pytest.raises(GuardStop, match="left no reviews of pope"):
        read_evalscope(files)
    with pytest.raises(GuardStop, match="lmms-eval left 0 files"):
        read_lmms_eval(tmp_path / "none")


def test_lmms_evals_rows_are_what_the_model_said_before_it_was_stripped(tmp_path: Path) -> None:
    results = read_lmms_eval(lmms_eval_files(tmp_path, "pope", TOLD, {"pope_accuracy": 1 / 3, "pope_f1": 0}))
    assert [row.text for row in results.rows] == [one.text for one in TOLD]
    assert [row.index for row in results.rows] == [0, 1, 2]
    assert (results.rows[2].id, results.rows[2].truth) == ("q2", "yes")
    assert dict(results.rows[0].scores) == {"pope_accuracy": 1.0, "pope_f1": 1.0}
    # Spreads are no figures.
    assert [(figure.name, figure.value) for figure in results.figures] == [("pope_accuracy", 1 / 3), ("pope_f1", 0.0)]


def test_a_request_that_lmms_eval_counts_as_a_wrong_answer_is_a_stop(tmp_path: Path) -> None:
    failed = Told("q", "yes", "[LMMS_EVAL_REQUEST_FAILED after 1 retries] Request timed out.", 0.0)
    files = lmms_eval_files(tmp_path, "pope", [*TOLD, failed], {"pope_accuracy": 0.5})
    with pytest.raises(GuardStop, match=r"1 of 4 requests failed, .*; row 4 of pope: .*Request timed out"):
        read_lmms_eval(files)


def _pope(folder: Path, *, truths: tuple[str, ...] = ("no", "yes", "yes"), category: str = "random") -> Path:
    return parquet(
        folder / "pope.parquet",
        *(
            {"question_id": "7", "question": one.question, "answer": truth, "category": category, "image": cell(i)}
            for i, (one, truth) in enumerate(zip(TOLD, truths, strict=True))
        ),
    )


def _rows(folder: Path) -> tuple[KitRow, ...]:
    return read_evalscope(evalscope_files(folder / "kit", "pope", {"random": TOLD}, {"accuracy": 2 / 3})).rows


def test_the_kits_answers_are_counted_by_ours(tmp_path: Path) -> None:
    items = read("pope", _pope(tmp_path)).items
    found = paired(_rows(tmp_path), items)
    pope = benchmark_of("pope")
    counted = {way: pope.count(answered_items(found, items), CountOptions(way=way)) for way in pope.ways}
    # "not at all" says neither word: wrong by ours as by the kit's, a no by the released script, which is wrong too.
    assert {way: one["accuracy"] for way, one in counted.items()} == {
        "strict": pytest.approx(2 / 3),
        "official": pytest.approx(2 / 3),
        "lmms_eval": pytest.approx(1 / 3),
    }
    assert counted["strict"].counts["unreadable"] == 1


def test_a_kit_that_asked_about_some_rows_is_counted_on_these(tmp_path: Path) -> None:
    items = read("pope", _pope(tmp_path)).items
    some = [row for row in _rows(tmp_path) if row.index != 1]
    assert [one.item.row for one in answered_items(paired(some, items), items)] == [1, 3]


@pytest.mark.parametrize(
    ("truths", "told", "message"),
    [
        (("no", "no", "yes"), TOLD, "row 2 of pope (random) has the truth 'YES', row 2 of data 'no': they are not"),
        (("no", "yes", "yes"), TOLD[::-1], "asks 'Is there a car ? YES or NO.', row 1 of data 'Is there a dog ?'"),
        (("no", "yes", "yes"), (*TOLD, TOLD[0]), "row 4 of pope (random) is none of the 3 rows of data"),
    ],
)
def test_other_rows_are_refused(truths: tuple[str, ...], told: tuple[Told, ...], message: str, tmp_path: Path) -> None:
    files = evalscope_files(tmp_path / "kit", "pope", {"random": told}, {"accuracy": 0.5})
    rows = sorted(read_evalscope(files).rows, key=lambda row: row.index)
    with pytest.raises(RefusedInput) as refused:
        paired(rows, read("pope", _pope(tmp_path, truths=truths)).items)
    assert message in str(refused.value)


def test_with_several_parts_a_row_is_counted_within_its_category(tmp_path: Path) -> None:
    parquet(
        tmp_path / "pope.parquet",
        *(
            {"question": one.question, "answer": one.truth, "category": category, "image": cell(i)}
            for i, (one, category) in enumerate(zip(TOLD, ("random", "popular", "random"), strict=True))
        ),
    )
    parts = {"random": (TOLD[0], TOLD[2]), "popular": (TOLD[1],)}
    rows = read_evalscope(evalscope_files(tmp_path / "kit", "pope", parts, {"accuracy": 0.5})).rows
    found = paired(rows, read("pope", tmp_path / "pope.parquet").items)
    assert {one.row: one.text for one in found} == {1: "No", 2: " Yes, a cat.", 3: "not at all"}


def test_its_table_has_our_columns_and_what_the_kit_tells(tmp_path: Path) -> None:
    rows = _rows(tmp_path)
    predictions = as_predictions(rows)
    write_rows(tmp_path / "predictions.parquet", rows, predictions)
    assert read_predictions(tmp_path / "predictions.parquet") == predictions
    table = pq.read_table(tmp_path / "predictions.parquet").to_pylist()
    (second,) = [row for row in table if row["row"] == 2]
    assert (second["id"], second["text"], second["truth"]) == ("q1", " Yes, a cat.", "YES")
    assert (second["task"], second["part"], json.loads(second["scores"])) == ("pope", "random", {"acc": 1.0})
    assert second["question"].startswith("Is there a cat ?")


def test_kits_are_known_by_name() -> None:
    assert {name: kit_of(name).package for name in KITS} == {name: name for name in KITS}
    with pytest.raises(RefusedInput, match="kit = 'opencompass': expected one of evalscope, lmms-eval"):
        kit_of("opencompass")
