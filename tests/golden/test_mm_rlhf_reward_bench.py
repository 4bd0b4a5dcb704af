"""ACC and ACC+ against the numbers of the script that MM-RLHF and R1-Reward share."""

import pytest

from orchestrator.evaluation.benchmarks.mm_rlhf_reward_bench import CATEGORIES, count_mm_rlhf_reward_bench
from orchestrator.evaluation.benchmarks.pairs import PairRow
from tests.golden.vectors import Case, one, select

FILE = "mm_rlhf.json"
BENCH = "llava/eval/cal_performance_mmreweard_bench.py:1-98"
R1_FILE, R1_BENCH = "r1_reward.json", "inference/MM-RLHF-Reward/get_acc.py:1-94"
DEFECTS = ("path_substring_picks_first_keyword", "path_without_keyword_only_in_overall", "id_spanning_two_categories")
EVERY = [*select(FILE, BENCH), *select(R1_FILE, R1_BENCH)]
Figures = dict[str, tuple[float, float, float]]


def _name(case: Case) -> str:
    return case.name


def _rows(case: Case) -> list[PairRow]:
    return [
        PairRow(id=row["id"], media=row.get("image") or row["video"], rewards=tuple(row["rewards"]))
        for row in case.inputs["rows"]
    ]


def _released(case: Case) -> Figures:
    """ACC, ACC+ and number of pairs of every category with rows, and of all."""
    stats = case.outputs["category_stats"] | {"overall": case.outputs["overall_stats"]}
    return {
        name: (figures["accuracy"], figures["acc_plus"], figures["total"])
        for name, figures in stats.items()
        if figures["total"]
    }


def _ours(rows: list[PairRow], *, way: str = "strict") -> Figures:
    found = count_mm_rlhf_reward_bench(rows, way=way)
    pairs = {figure.name: figure.weight for figure in found.figures}
    names = {"overall": "", **{name: f"/{name}" for name in CATEGORIES if f"accuracy/{name}" in pairs}}
    return {
        name: (found[f"accuracy{suffix}"], found[f"accuracy_plus{suffix}"], pairs[f"accuracy{suffix}"])
        for name, suffix in names.items()
    }


@pytest.mark.parametrize("case", EVERY, ids=_name)
def test_acc_and_acc_plus_as_released(case: Case) -> None:
    assert _ours(_rows(case), way="mmrlhf_released") == _released(case)
    assert _ours(_rows(case), way="r1_released") == _released(case)


@pytest.mark.parametrize("case", [case for case in EVERY if case.name not in DEFECTS], ids=_name)
def test_acc_and_acc_plus(case: Case) -> None:
    assert _ours(_rows(case)) == _released(case)


def test_category_is_the_first_folder_where_the_original_takes_any_part_of_the_path() -> None:
    case = one(FILE, BENCH, DEFECTS[0])
    ours, released = _ours(_rows(case)), _released(case)
    # short/belong.png, long/bs_7.png and short/bs_8.png, all right.
    assert ours == {"long": (1.0, 1.0, 1), "short": (1.0, 1.0, 2), "overall": (1.0, 1.0, 3)}
    # There the first is long, and in ACC+ an instruction of short that is never right.
    assert released == {"long": (1.0, 1.0, 2), "short": (1.0, 0.5, 1), "overall": (1.0, 1.0, 3)}


def test_a_path_outside_the_categories_is_refused_where_the_original_counts_it_overall_only() -> None:
    case = one(FILE, BENCH, DEFECTS[1])
    with pytest.raises(ValueError, match=r"media 'misc/q\.png' of id 'bs9' must begin with one of the folders"):
        count_mm_rlhf_reward_bench(_rows(case))
    assert _released(case) == {"mcq": (0.0, 0.0, 1), "overall": (0.5, 0.5, 2)}
    assert _ours(_rows(case)[1:]) == {"mcq": (0.0, 0.0, 1), "overall": (0.0, 0.0, 1)}


def test_an_instruction_in_two_categories_counts_in_both_where_the_original_credits_the_first() -> None:
    case = one(FILE, BENCH, DEFECTS[2])
    ours, released = _ours(_rows(case)), _released(case)
    # bs11 has both of its pairs right, bs12 one of two.
    assert ours == released | {"safety": (0.5, 0.5, 2)}
    assert released["safety"] == (0.5, 0.0, 2)
