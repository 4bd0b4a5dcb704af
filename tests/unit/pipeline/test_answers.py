"""Answers before and after learning, compared by hand and told in one sentence."""

import json
from pathlib import Path

import pytest

from orchestrator.config import load_config
from orchestrator.data.stores import open_data
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.answers import ANSWERS_FILE, AnswerRewards, check_answers, compare, told_answers
from orchestrator.run.folder import RunFolder
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.data.rows import picture
from tests.unit.data.store_rows import imported, ranked


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


def test_an_answer_must_fit_behind_every_held_out_prompt(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    said = [{"response": text, "reason": "right ."} for text in ("one", "two")]
    rows = [ranked("1>2", *said, id=f"m-{n}", prompt=f"which digit ? {word}") for n, word in enumerate("abcdefgh")]
    store, model = imported(tmp_path, "mm_rlhf", *rows, held_out_frac=0.4), build_digits_model(tmp_path / "m", seed=0)

    def check(max_new_tokens: int) -> None:
        flags = ["--algo", "mm_dpo", "--model.path", str(model), "--data.path", str(store.folder)]
        config = load_config([*flags, "--rollout.max_new_tokens", str(max_new_tokens)])[0]
        check_answers(config, open_data(config, RunFolder(tmp_path / "run")))

    check(480)
    with pytest.raises(RefusedInput, match=r"\+ rollout\.max_new_tokens = 512 is more than .* = 512$"):
        check(512)
