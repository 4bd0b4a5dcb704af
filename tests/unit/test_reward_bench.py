"""The benchmark command: rows in, one question a response, a row for every pair, and what it refuses."""

from pathlib import Path

import pytest

from orchestrator.data.records import Instruction
from orchestrator.evaluation.benchmarks.mm_rlhf_reward_bench import count_mm_rlhf_reward_bench
from orchestrator.reward_bench import bench_rows, main, told
from orchestrator.rewards.critique_judge import CritiqueReward
from tests.unit.data.rows import picture, write_jsonl
from tests.unit.data.store_rows import compared, records


def _instructions(folder: Path) -> list[Instruction]:
    """One of three responses, a > b > c, and one of two, whose ``short`` holds the word long."""
    picture(folder / "mcq" / "a.png")
    picture(folder / "short" / "belong.png")
    three = [compared(x, y, id="q1", image="mcq/a.png") for x, y in ("ab", "ac", "bc")]
    found = records(folder, "mm_rlhf_pairs", *three, compared("d", "e", id="q2", image="short/belong.png"))
    assert all(isinstance(record, Instruction) for record in found)
    return [record for record in found if isinstance(record, Instruction)]


def _answer(reward: float | None) -> CritiqueReward:
    return CritiqueReward(reward=reward, critique="", num_tokens=1, status="ok" if reward is not None else "cut")


def test_every_pair_has_the_rewards_of_its_responses(tmp_path: Path) -> None:
    rewards = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 0.5, "e": -0.5}
    instructions = _instructions(tmp_path)
    answers = [_answer(rewards[r.text]) for i in instructions for r in i.responses]
    assert len(answers) == 5
    rows = bench_rows(instructions, answers)
    assert [(r.id, r.rewards) for r in rows] == [
        ("q1", (3.0, 1.0)),
        ("q1", (3.0, 2.0)),
        ("q1", (1.0, 2.0)),
        ("q2", (0.5, -0.5)),
    ]
    result = count_mm_rlhf_reward_bench(rows)
    assert (result["accuracy"], result["accuracy_plus"]) == (0.75, 0.5)
    assert result["accuracy/short"] == 1.0
    table = told(result, seed=0).splitlines()
    assert table[1].split()[:4] == ["mcq", "3", "1", "0.667"]
    assert table[3].split()[:4] == ["overall", "4", "2", "0.750"]
    assert table[-1].startswith("no rows of long, safety, video")


def test_a_response_without_a_reward_makes_its_pairs_wrong(tmp_path: Path) -> None:
    instructions = _instructions(tmp_path)
    answers = [_answer(None if r.text == "b" else 1.0) for i in instructions for r in i.responses]
    result = count_mm_rlhf_reward_bench(bench_rows(instructions, answers))
    assert (result["accuracy"], result.counts["undecided"]) == (0.0, 4)
    assert "4 pairs have equal rewards, or a response without one" in told(result, seed=0)


def test_a_folder_that_writes_no_critiques_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_jsonl(tmp_path / "b.jsonl", compared())
    (tmp_path / "model").mkdir()
    assert main([str(tmp_path / "model"), str(file), str(tmp_path / "out")]) == 2
    assert "is no critique reward model" in capsys.readouterr().err
