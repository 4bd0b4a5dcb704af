"""Answers before and after learning, compared by hand and told in one sentence."""

import json
from pathlib import Path

import pytest

from orchestrator.offline.answers import ANSWERS_FILE, AnswerRewards, compare, told_answers
from orchestrator.run.folder import RunFolder


def test_means_and_the_share_preferred_counted_by_hand() -> None:
    found = compare([(1.0, 3.0), (2.0, 1.0), (0.5, 0.5), (-1.0, 2.0)])
    # Better, worse, a tie that counts half, better: 2.5 of 4.
    assert found == AnswerRewards(before=2.5 / 4, after=6.5 / 4, preferred=2.5 / 4, count=4)


def test_a_prompt_counts_only_where_both_answers_have_a_reward() -> None:
    found = compare([(None, 9.0), (1.0, 2.0), (9.0, None), (None, None)])
    assert found == AnswerRewards(before=1.0, after=2.0, preferred=1.0, count=1)


@pytest.mark.parametrize("rewards", [[], [(None, 1.0), (1.0, None)]])
def test_nothing_to_compare_is_nothing(rewards: list[tuple[float | None, float | None]]) -> None:
    assert compare(rewards) is None


def _told(folder: RunFolder, *rewards: tuple[float | None, float | None]) -> str:
    folder.evaluations.mkdir(parents=True, exist_ok=True)
    rows = [{"uid": str(n), "before": {"reward": x}, "after": {"reward": y}} for n, (x, y) in enumerate(rewards)]
    (folder.evaluations / ANSWERS_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return told_answers(folder)


def test_the_sentence_says_of_how_many(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert _told(folder, (1.0, 3.0), (2.0, 1.0), (None, 1.0)) == (
        "Held-out answers, 2 prompts: mean reward 1.500 before, 2.000 after; preferred after learning 0.500"
    )
    assert _told(folder, (None, 1.0)) == "No held-out answer could be judged."
    assert _told(folder) == "No held-out prompts, so the policy is not asked."
