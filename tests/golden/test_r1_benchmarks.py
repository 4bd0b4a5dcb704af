"""R1-Reward's evaluations against the numbers of its own scripts: ways of counting reproduce them, ours deviate."""

from collections import Counter
from typing import Any

import pytest

from orchestrator.data.verdicts import parse_verdict
from orchestrator.evaluation.benchmarks.multimodal_reward_bench import count_multimodal_reward_bench, group_of
from orchestrator.evaluation.benchmarks.pairs import Judgement, PairRow
from orchestrator.evaluation.benchmarks.vl_reward_bench import (
    CATEGORIES,
    category_official,
    category_r1,
    category_unified,
    count_vl_reward_bench,
)
from orchestrator.evaluation.verdict_readings import R1Script, r1_student, r1_verdict
from tests.golden.vectors import Case, one, select

FILE = "r1_reward.json"
VL, MM, MULTI = "inference/VL-Reward-Bench", "inference/MM-RLHF-Reward", "inference/Multimodal-Reward"
PARSERS = (f"{VL}/r1_reward.py:137-152", f"{MM}/r1_reward.py:159-174", f"{MULTI}/get_r1_reward.py:167-182")
SCRIPTS = (f"{VL}/r1_reward.py:50-161", f"{MM}/r1_reward.py:51-181", f"{MULTI}/get_r1_reward.py:72-191")
IDS, ACCURACY = f"{VL}/get_acc.py:5-11", f"{VL}/get_acc.py:14-54"
GROUPS = f"{MULTI}/1_get_accuracy.py:13-34"
_RESUME = "resume_skips_every_row_sharing_a_finished_id"
LEFT_OUT = {
    _RESUME: "a resumed run takes up the rows that are not done, whatever their ids (see the tests of predictions)",
    "chunk_1_of_2": "rows are shared out by the pool; no file is cut into chunks that know nothing of each other",
    "as_shipped": "the script as shipped cuts the rewards to one and then fails",
}
"""Cases of the scripts without a counterpart here, each with the reason."""


def _name(case: Case) -> str:
    return f"{case.source.split('/')[1]}/{case.name}"


def _cases(*sources: str) -> list[Case]:
    return [case for source in sources for case in select(FILE, source) if case.name not in LEFT_OUT]


@pytest.mark.parametrize("case", _cases(*PARSERS), ids=_name)
def test_what_is_taken_for_the_answer(case: Case) -> None:
    script: R1Script = "first_line" if case.source.startswith(MM) else "any_line"
    # The reader of golden files makes a number of the text "nan".
    stored = ["nan" if answer != answer else answer for answer in case.outputs["student_answer"]]
    assert [r1_student(text, script=script) for text in case.inputs["texts"]] == stored
    rewards = [[1, 0] if r1_verdict(text, script=script) == "1" else [0, 1] for text in case.inputs["texts"]]
    assert rewards == case.outputs["rewards"]


def test_what_ours_reads_of_the_same_texts() -> None:
    texts = {text: r1_verdict(text) for case in _cases(f"{VL}/r1_reward.py:137-152") for text in case.inputs["texts"]}
    ours = {text: parse_verdict(text) for text in texts}
    assert all(verdict in (None, texts[text]) for text, verdict in ours.items())
    assert {text for text, verdict in ours.items() if verdict is not None} == {
        "<think>Response 1 is more accurate.</think><answer>1</answer>",
        "<think>Response 2 wins</think><answer>2</answer>",
        "<think>x</think><answer> 1 </answer>",
        "<think>x</think>\n<answer>\n2\n</answer>",
    }


@pytest.mark.parametrize("case", _cases(*SCRIPTS), ids=_name)
def test_a_whole_script(case: Case) -> None:
    """Of each row the better response is shown first, and the reply is read to the end."""
    better = ["Output1" if row.get("Better", "Output1") == "Output1" else "Output2" for row in case.inputs["rows"]]
    shown = [
        first in ("chosen", name) for (first, _), name in zip(case.outputs["response_1_then_2"], better, strict=True)
    ]
    assert shown == [True] * len(better)
    replies = case.inputs["replies_by_prompt"]
    script: R1Script = "first_line" if case.source.startswith(MM) else "any_line"
    found = [
        {
            "id": row.get("id") or row["ID"],
            "prompt": row.get("prompt") or row["Text"],
            "rewards": [1, 0]
            if r1_verdict(replies[row.get("prompt") or row["Text"]], script=script) == "1"
            else [0, 1],
        }
        for row in case.inputs["rows"]
    ]
    assert found == case.outputs["answers"]


@pytest.mark.parametrize("name", ["ids", "random_ids"])
def test_categories_by_id(name: str) -> None:
    case = one(FILE, IDS, name)
    assert [category_r1(own) for own in case.inputs["ids"]] == case.outputs["category"]


def _released_ids() -> list[str]:
    """As many ids of each kind as the released file has; their own are in no file of this repository."""
    kinds = {
        "hallucination_pair-": 448, "RLAIF-V-": 233, "RLHF-V-": 68, "mathverse_": 167, "mmmu_pro_test_Art_": 151,
        "wildvision-battle-": 173, "jailbreak-Fraud-": 9, "LRVInstruction-": 1,
    }  # fmt: skip
    return [f"{kind}{number}" for kind, times in kinds.items() for number in range(times)]


def test_three_splits_of_the_released_ids() -> None:
    released = one(FILE, IDS, "all_1250_released_ids").outputs["counts"]
    split = {
        name: dict(Counter(map(category, _released_ids())))
        for name, category in (("r1", category_r1), ("official", category_official), ("unified", category_unified))
    }
    assert split == {
        "r1": {"general": 484, "hallucination": 448, "reasoning": 318},
        "official": {"general": 183, "hallucination": 749, "reasoning": 318},
        "unified": {"general": 631, "hallucination": 301, "reasoning": 318},
    }
    assert split["r1"] == released


def _rewarded(row: dict[str, Any]) -> PairRow:
    return PairRow(id=row.get("id") or row["ID"], category=row.get("Category", ""), rewards=tuple(row["rewards"]))


@pytest.mark.parametrize("case", _cases(ACCURACY), ids=_name)
def test_vl_reward_bench_as_released(case: Case) -> None:
    found = count_vl_reward_bench([_rewarded(row) for row in case.inputs["rows"]], way="r1_released")
    weights = {figure.name: figure.weight for figure in found.figures}
    for name in CATEGORIES:
        wanted = case.outputs["results"][name]
        samples = weights.get(f"accuracy/{name}", 0)
        assert samples == wanted["samples"]
        assert (found[f"accuracy/{name}"] if samples else 0) == wanted["accuracy"]
    assert found["accuracy"] == case.outputs["average_accuracy"]
    assert found["macro"] == pytest.approx(case.outputs["macro_acc"], abs=1e-15)


@pytest.mark.parametrize("case", _cases(GROUPS), ids=_name)
@pytest.mark.parametrize("way", ["strict", "official", "r1_released"])
def test_multimodal_reward_bench_as_released(case: Case, way: str) -> None:
    found = count_multimodal_reward_bench([_rewarded(row) for row in case.inputs["rows"]], way=way)
    ours = {
        figure.name.partition("/")[2] or "all": (figure.value, figure.weight)
        for figure in found.figures
        if figure.name.startswith("accuracy")
    }
    assert ours == {name: (one["acc"], one["total"]) for name, one in case.outputs["groups"].items()}


# -- figures of the papers that can be derived from counts ----------------------------------------------------------


def _judged(name: str, right: bool) -> PairRow:
    """The better response is shown first, as the release shows every pair."""
    verdict = "1" if right else "2"
    text = f"<think> . </think><answer>{verdict}</answer>"
    return PairRow(id=name, judgements=(Judgement(better_first=True, text=text, verdict=verdict),))


def test_the_papers_row_on_vl_reward_bench() -> None:
    """R1-Reward, table 3: 63.84 / 85.71 / 64.78 and 71.92 overall are 309/484, 384/448, 206/318 and 899/1250.

    Its macro average, 71.44, is that of the printed percentages; of the counts it is 71.45.
    """
    right = {"general": 309, "hallucination": 384, "reasoning": 206}
    rows = []
    for name in _released_ids():
        group = category_r1(name)
        rows.append(_judged(name, right[group] > 0))
        right[group] -= 1
    found = count_vl_reward_bench(rows, way="r1_released")
    assert (found["accuracy"], found.notes) == (899 / 1250, ())
    percent = [round(100 * found[f"accuracy/{name}"], 2) for name in CATEGORIES]
    assert percent == [63.84, 85.71, 64.78]
    assert (round(100 * found["accuracy"], 2), round(100 * found["macro"], 2)) == (71.92, 71.45)
    assert round(sum(percent) / 3, 2) == 71.44
    # The same answers by the other splits: the overall stays, categories and macro do not.
    for way, counts in (
        ("strict", (183, 749, 318)),
        ("official", (183, 749, 318)),
        ("unified_reward", (631, 301, 318)),
    ):
        other = count_vl_reward_bench(rows, way=way)
        weights = {figure.name: figure.weight for figure in other.figures}
        assert tuple(weights[f"accuracy/{name}"] for name in CATEGORIES) == counts
        assert other["accuracy"] == 899 / 1250
        assert other["macro"] != pytest.approx(found["macro"], abs=1e-3)


def test_groups_of_multimodal_reward_bench() -> None:
    rows = [PairRow(id=name, category=category) for name, category in (("Pairs-1", "safety"), ("code", "reasoning"))]
    assert [group_of(row) for row in rows] == ["safety/bias", "reasoning/coding"]


def test_every_case_of_the_scripts_is_covered_or_left_out_by_name() -> None:
    sources = [*PARSERS, *SCRIPTS, IDS, ACCURACY, GROUPS, f"{MM}/get_acc.py:1-94"]
    found = [case for case in select(FILE, "inference/") if not any(case.source.startswith(own) for own in sources)]
    assert found == []
    assert len(select(FILE, "inference/")) == 50
    assert sum(case.name in LEFT_OUT for case in select(FILE, "inference/")) == 7
