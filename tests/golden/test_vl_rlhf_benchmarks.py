"""Parsers and scripts of VL-RLHF's benchmarks against the numbers of its own code."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from algorithms.maths.logprobs import token_logprobs
from orchestrator.data.rows import RowError
from orchestrator.evaluation.benchmarks.fields import options_of
from orchestrator.evaluation.benchmarks.mmbench import mmbench_prompt
from orchestrator.evaluation.benchmarks.mmmu import mmmu_prompt, placed
from orchestrator.evaluation.benchmarks.pope import PopeRow, count_pope, pope_official
from orchestrator.evaluation.benchmarks.seed_bench import SeedRow, count_seed_bench, likeliest, rows_of_seed_bench
from orchestrator.evaluation.option_readings import option_by_seed
from tests.golden import vectors
from tests.golden.vectors import DECIMAL_TOLERANCE, Case, load, one, select
from tests.response_scores import response_scores
from tests.unit.evaluation.released_files import png, read, text_png, tsv

FILE = "vl_rlhf.json"
EVAL = "src/vlrlhf/eval"
_TAG = "the tag of a row in their database; here a result lies in its own folder"
LEFT_OUT = {
    **{f"parse_tag/{number}": _TAG for number in range(9)},
    "run_vqa_ppl/one_row": "a batch of one fails there",
    "pope_evaluate/odd_labels_count_as_yes": "a label that is neither yes nor no makes a bad row",
    "seedbench_extract_choice/empty_response": "an empty response fails there and is unreadable here",
    "seedbench_extract_choice/judge_empty_reply": "an empty reply of the judge fails there",
    "seedbench_generate_sgl_choice/repeated_question_id_last_wins": "a row is counted, whatever its id",
    "seedbench_ppl_choice/nan_first_never_replaced": "a NaN is no candidate wherever it stands",
    "seedbench_run_inference/type_without_hit": "fails there, and is 0 here",
    "seedbench_run_inference/missing_response": "fails there; here every row has an answer or a status",
    "seedbench_run_inference/unknown_type": "fails there; here a type is a name",
    "seedbench_run_inference/no_questions": "fails there, and is 0 here",
}  # fmt: skip
"""Cases without a counterpart here, each with the reason."""

assert_close = partial(vectors.assert_close, tolerances=DECIMAL_TOLERANCE)


def _name(case: Case) -> str:
    return case.name


def _cases(name: str) -> list[Case]:
    found = [case for case in load(FILE) if case.name.partition("/")[0] == name and case.name not in LEFT_OUT]
    assert found, name
    return found


MMMU, MMBENCH, TABLES = _cases("mmmu_item"), _cases("mmbench_item"), _cases("mme_dataset")
POPE, LIKELIHOODS, PICKED = _cases("pope_evaluate"), _cases("run_vqa_ppl"), _cases("seedbench_ppl_choice")
SCORED, FILTERED = _cases("seedbench_run_inference"), _cases("seedbench_filter_questions")
IMAGES = [case for case in FILTERED if case.params["task"] == "image"]
"""Ours reads the questions about images alone; the other tasks are not ours."""
JUDGED, GENERATED = _cases("seedbench_extract_choice"), _cases("seedbench_generate_sgl_choice")


@pytest.mark.parametrize("case", POPE, ids=_name)
def test_pope(case: Case) -> None:
    texts, labels = case.inputs["responses"], case.inputs["labels"]
    assert [int(pope_official(text) == "yes") for text in texts] == case.outputs["pred_list"]
    found = count_pope([PopeRow(text=t, label=label) for t, label in zip(texts, labels, strict=True)], way="official")
    if "raises" in case.outputs:
        # Precision, recall or F1 divides by zero there.
        assert 0.0 in (found["precision"], found["recall"], found["f1"])
        return
    ours: dict[str, str] = {"acc": "accuracy", "yes_rate": "yes_ratio"}
    metrics: dict[str, float] = case.outputs["metrics"]
    assert {name: round(100 * found[ours.get(name, name)], 2) for name in metrics} == metrics


def _options(row: dict[str, Any]) -> dict[str, str]:
    return {letter: row[f"choice_{letter.lower()}"] for letter in "ABCD"}


@pytest.mark.parametrize("case", JUDGED, ids=_name)
def test_seedbench_asks_its_judge_about_the_rest(case: Case) -> None:
    """What the judge wrote is read by the same rule, so that only its first character counts."""
    replies = iter(case.inputs["judge_replies_in_order"])
    found, asked = {}, 0
    for row in case.inputs["rows"]:
        letter = option_by_seed(row["response"], _options(row), script="judge")
        if letter is None:
            asked, letter = asked + 1, option_by_seed(next(replies), _options(row), script="judge")
        found[row["question_id"]] = letter or "Z"
    assert found == {name: one["choice"] for name, one in case.outputs["final"].items()}
    assert asked == case.outputs["judge_calls"]


@pytest.mark.parametrize("case", GENERATED, ids=_name)
def test_seedbench_without_a_judge(case: Case) -> None:
    found = {
        row["question_id"]: option_by_seed(row["response"], _options(row), script="sglang") or "RANDOM"
        for row in case.inputs["rows"]
    }
    assert found == {name: one["choice"] for name, one in case.outputs["final"].items()}


@pytest.mark.parametrize("case", PICKED, ids=_name)
def test_seedbench_by_likelihood(case: Case) -> None:
    nll: dict[str, dict[str, float]] = {}
    for row in case.inputs["rows"]:
        nll.setdefault(row["question_id"], {})[row["choice"]] = row["ppl"]
    assert {name: likeliest(own) for name, own in nll.items()} == {
        name: one["choice"] for name, one in case.outputs["final"].items()
    }


def test_a_nan_is_no_candidate() -> None:
    case = one(FILE, f"{EVAL}/seedbench/eval.py", "seedbench_ppl_choice/nan_first_never_replaced")
    assert case.outputs["final"]["q0"]["choice"] == "A"
    assert likeliest({row["choice"]: row["ppl"] for row in case.inputs["rows"]}) == "B"
    assert likeliest({"A": float("nan")}) is None


@pytest.mark.parametrize("case", SCORED, ids=_name)
def test_seedbench_scores(case: Case) -> None:
    names = {int(number): name.replace(" ", "") for number, name in case.params["data_type_id2name"].items()}
    rows = [
        SeedRow(label=q["answer"], type=names[q["question_type_id"]], text=case.inputs["choices"][q["question_id"]])
        for q in case.inputs["questions"]
    ]
    found = count_seed_bench(rows, way="official")
    figures = {figure.name.partition("/")[2] or "Total": round(100 * figure.value, 2) for figure in found.figures}
    assert figures == case.outputs["result"]


@pytest.mark.parametrize("case", IMAGES, ids=_name)
def test_seedbench_is_of_images(case: Case) -> None:
    questions = [{"question_type_id": number} for number in case.inputs["question_type_ids"]]
    found = rows_of_seed_bench({"questions": questions})
    assert found is not None and [one["question_type_id"] for one in found] == case.outputs["kept"]


@pytest.mark.parametrize("case", LIKELIHOODS, ids=_name)
def test_mean_likelihood_of_an_option(case: Case) -> None:
    logits = torch.tensor(case.inputs["logits"], dtype=case.dtype)[:, :-1]
    labels = torch.tensor(case.inputs["model_output_labels"] or case.inputs["labels"])[:, 1:]
    mask = labels != -100
    ids = labels.where(mask, 0)
    logprobs, *_ = token_logprobs(logits.flatten(0, 1), ids.flatten())
    found = -response_scores(logprobs.view_as(labels), mask, reduction="mean").to(case.dtype)
    stored = torch.tensor(case.outputs["ppl"], dtype=case.dtype)
    # The mean of nothing is 0 here and NaN there.
    assert torch.equal(stored.isnan(), ~mask.any(dim=1))
    assert_close(found, stored.nan_to_num(0.0))


# -- what is asked, and tables -----------------------------------------------------------------------------------------

_ALL_MARKS, _TWO_DIGITS, _UNNAMED, _MISSING = (f"mmmu_item/row_{number}" for number in (6, 9, 3, 8))


@pytest.mark.parametrize("case", MMMU, ids=_name)
def test_mmmu_asks_with_images_where_the_words_name_them(case: Case) -> None:
    row = {key: value for key, value in case.inputs["row"].items() if key != "index"}
    images = [{"type": "image", "image": str(number)} for number in range(case.inputs["n_images"])]
    words = mmmu_prompt(row, options_of(row))
    if case.name in (_MISSING, _TWO_DIGITS):
        # Ten is no number of an image to the original, and one that is missing ends it.
        with pytest.raises(RowError, match=r"the question names '<image (2|10)>', the row has 1 images"):
            placed(words, images)
        return
    parts = placed(words, images)
    prompt = "".join(part.get("text", "<image>") for part in parts)
    order = [int(part["image"]) for part in parts if part["type"] == "image"]
    if case.name == _UNNAMED:
        # There an image that nothing names is not shown.
        assert (prompt, order) == ("<image>" + case.outputs["prompt"], [0])
    elif case.name == _ALL_MARKS:
        assert prompt == case.outputs["prompt"].replace("<image 1>", "<image>")
        assert order == case.outputs["image_order"]
    else:
        assert (prompt, order) == (case.outputs["prompt"], case.outputs["image_order"])


@pytest.mark.parametrize("case", MMBENCH, ids=_name)
def test_mmbench_asks(case: Case) -> None:
    row = case.inputs["row"]
    assert mmbench_prompt(row) == case.outputs["prompt"]
    assert options_of(row, "ABCDE") == case.outputs["options_dict"]


def _cell(value: Any) -> str:
    """An image id as the base64 text of a picture of its own, the index of another row as it is."""
    if isinstance(value, list):
        return str([text_png(one) for one in value])
    return "" if value is None else value if isinstance(value, str) else text_png(value)


@pytest.mark.parametrize("case", TABLES, ids=_name)
def test_tables_whose_images_stand_in_other_rows(case: Case, tmp_path: Path) -> None:
    asked = {"question": "q ?", "answer": "Yes", "category": "count"}
    rows = [
        {"index": index, **asked, "image": _cell(image)}
        for index, image in zip(case.inputs["index"], case.inputs["image"], strict=True)
    ]
    found = read("mme", tsv(tmp_path / "t.tsv", *rows))
    shades = {png(shade): shade for shade in range(10)}
    images = [[shades[Path(ref.path).read_bytes()] for ref in item.media] for item in found.items]
    if "raises" in case.outputs:
        # One reference to nothing ends the original; here it is a bad row.
        assert [bad.reason for bad in found.bad_rows] == [
            "field 'image' is \"99\", the index of no row that holds an image"
        ]
        return
    assert [item.id for item in found.items] == [str(index) for index in case.outputs["index"]]
    assert images == [one if isinstance(one, list) else [one] for one in case.outputs["image"]]
    # A row without an image is passed over in silence there.
    assert len(found.bad_rows) == len(rows) - case.outputs["len"]


def test_every_case_is_covered_or_left_out_by_name() -> None:
    covered = [*MMMU, *MMBENCH, *TABLES, *POPE, *LIKELIHOODS, *PICKED, *SCORED, *FILTERED, *JUDGED, *GENERATED]
    names = [case.name for case in covered]
    assert len(set(names)) == len(names) and not set(names) & set(LEFT_OUT)
    assert {*names, *LEFT_OUT} == {case.name for case in select(FILE, EVAL)}
    assert len(names) + len(LEFT_OUT) == 92
