"""Alarms: what a collapsed run's figures say is told, with the figure and what to try; healthy runs raise none."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.errors import GuardStop
from orchestrator.run.alarm_rules import ONE_STEP, RULES, Watched
from orchestrator.run.alarms import Alarms, replayed, rows_in, told_at_the_end

Row = dict[str, Any]


def _healthy(step: int, chance: random.Random) -> Row:
    """A step of a run that learns, in the shape of the embedded task's: noisy, and better towards its end."""
    learned = min(1.0, step / 40)
    right = 0.5 + 0.45 * learned + chance.uniform(-0.05, 0.05)
    row: Row = {
        "step": step,
        "reward/mean": 1.0 + right,
        "reward/accuracy": right,
        "rollout/reward_spread": 0.5 - 0.3 * learned + chance.uniform(0, 0.05),
        "rollout/equal_frac": 0.3 + 0.6 * learned,
        "rollout/right_frac": right,
        "rollout/top_answer_frac": chance.uniform(0.5, 0.7),
        "rollout/top_label_frac": chance.uniform(0.5, 0.6),
        "policy/entropy": 0.2 - 0.15 * learned + chance.uniform(0, 0.01),
        "mismatch/logprob_abs_mean": chance.uniform(1e-7, 5e-7),
        "judge/coverage": 1.0,
        "judge/unknown_frac": chance.uniform(0.0, 0.1),
    }
    if step % 5 == 0:
        row |= {"eval/accuracy": right, "eval/first_position_rate": 0.5, "eval/unreadable_frac": 0.0}
    return row


def _run(steps: int, change: Callable[[Row], Mapping[str, Any]] = lambda row: {}, *, since: int = 20) -> list[Row]:
    """A healthy run of so many steps that something befalls ``since`` a step."""
    chance = random.Random(0)
    rows = [_healthy(step, chance) for step in range(1, steps + 1)]
    return [{**row, **(change(row) if row["step"] >= since else {})} for row in rows]


def _evaluated(**figures: float) -> Callable[[Row], Mapping[str, Any]]:
    return lambda row: figures if "eval/accuracy" in row else {}


_WEAK = {"rollout/right_frac": 0.5}
BEFALLS: dict[str, tuple[str, Callable[[Row], Mapping[str, Any]], tuple[str, ...]]] = {
    "always the same response": ("one_answer", lambda _: {"rollout/top_answer_frac": 1.0}, ("100%", "does not look")),
    "held-out verdicts of one side": (
        "one_answer",
        _evaluated(**{"eval/first_position_rate": 0.0}),
        ("100% of the held-out verdicts", "shown second", "2 evaluations"),
    ),
    "every group equal": (
        "equal_rewards",
        lambda _: {"rollout/equal_frac": 1.0, **_WEAK},
        ("100% or more of the prompts", "nothing is learned"),
    ),
    "zero spread of rewards": (
        "equal_rewards",
        lambda _: {"rollout/equal_frac": None, "rollout/reward_spread": 0.0, "reward/mean": 0.25, **_WEAK},
        ("every rollout of the last 10 steps earned the same 0.250",),
    ),
    "entropy near 0": ("low_entropy", lambda _: {"policy/entropy": 0.001, **_WEAK}, ("0.001 nats", "began at 0.1")),
    "rising mismatch": (
        "rising_mismatch",
        lambda row: {"mismatch/logprob_abs_mean": 1e-3 * row["step"]},
        ("nats a token over the last 10 steps", "rounding explains 0.0001"),
    ),
    "a silent part of the reward": (
        "silent_source",
        lambda _: {"reward/consistency": None},
        ("reward/consistency was looked at in no rollout",),
    ),
    "all verdicts unknown": ("unread_verdicts", lambda _: {"judge/unknown_frac": 1.0}, ("could not tell about 100%",)),
    "a judge that cannot be read": (
        "unread_verdicts",
        lambda _: {"judge/unreadable_frac": 0.75},
        ("75% or more of what the judge was asked", "cannot be read"),
    ),
    "answers that cannot be read": (
        "unread_verdicts",
        _evaluated(**{"eval/unreadable_frac": 0.9}),
        ("90% of the policy's held-out answers",),
    ),
}


@pytest.mark.parametrize("what", BEFALLS)
def test_what_befalls_a_run_is_told_once_with_the_figure_and_what_to_try(what: str) -> None:
    name, change, words = BEFALLS[what]
    alarms = Alarms(Watched())
    begun = [alarm for row in _run(60, change) for alarm in alarms.after(row["step"], row)]
    assert [alarm.name for alarm in begun] == [name]
    assert all(part in begun[0].told for part in words), begun[0].told
    assert 20 <= begun[0].begun <= 20 + max(ONE_STEP, 10)
    assert any(verb in begun[0].told for verb in ("lower", "see what", "try ", "look at", "train with"))
    (line,) = alarms.lines()
    assert line.startswith(f"Alarm since step {begun[0].begun}: ")


def test_every_rule_is_among_what_befalls_a_run() -> None:
    assert {name for name, *_ in BEFALLS.values()} == set(RULES)


def test_a_run_that_learns_raises_none() -> None:
    assert replayed(_run(300), Watched()).lines() == []


def test_one_that_has_nothing_left_to_learn_raises_none() -> None:
    perfect = {
        "rollout/equal_frac": 1.0,
        "rollout/reward_spread": 0.0,
        "rollout/right_frac": 1.0,
        "policy/entropy": 0.0,
    }
    assert replayed(_run(60, lambda _: perfect), Watched()).lines() == []


def test_answers_that_are_all_the_same_are_no_wonder_where_the_labels_are() -> None:
    same = {"rollout/top_answer_frac": 1.0, "rollout/top_label_frac": 0.95}
    assert replayed(_run(60, lambda _: same), Watched()).lines() == []


def test_fewer_steps_than_chance_needs_say_nothing() -> None:
    rows = _run(20 + ONE_STEP - 2, lambda _: {"rollout/top_answer_frac": 1.0})
    assert replayed(rows, Watched()).lines() == []


def test_an_alarm_that_is_over_is_told_as_such_and_begins_anew() -> None:
    rows = _run(60, lambda row: {"rollout/top_answer_frac": 1.0} if row["step"] < 35 or row["step"] > 44 else {})
    alarms = replayed(rows, Watched())
    (stands, over) = alarms.lines()
    assert stands.startswith("Alarm since step 54: ") and over.startswith("Alarm of step 29, over since: ")


def test_a_source_of_which_nothing_comes_is_named_once_it_should_have_come() -> None:
    config = {"data": {"source": [{"name": n, "weight": w} for n, w in (("web", 3), ("docs", 1))]}}
    watched = Watched.of({**config, "rollout": {"prompts_per_step": 4}})
    assert watched.sources == {"web": 3.0, "docs": 1.0}
    rows = _run(60, lambda _: {"source/docs/reward": 1.0, "source/web/reward": 1.0}, since=1)
    assert replayed(rows, watched).lines() == []
    for row in rows[30:]:
        del row["source/docs/reward"]
    (told,) = replayed(rows, watched).lines()
    assert "since step 50" in told and "no rollout of data.source 'docs' had a reward in the last 20 steps" in told


def test_a_resumed_run_knows_its_alarms_and_does_not_stop_on_them_again() -> None:
    rows = _run(60, lambda _: {"rollout/top_answer_frac": 1.0})
    alarms = Alarms(Watched())
    stops = []
    for row in rows[:40]:
        alarms.after(row["step"], row)
        try:
            alarms.stop()
        except GuardStop as stop:
            stops.append((row["step"], str(stop)))
    ((step, said),) = stops
    assert step == 29 and said.startswith("98%") is False and "run.alarms = 'stop'" in said
    again = replayed(rows[:29], Watched())
    assert again.after(30, rows[29]) == [] and list(again.standing) == ["one_answer"]
    again.stop()


def test_rows_of_somebody_else_are_figures_or_nothing() -> None:
    odd: list[Any] = ["1", 10**400, True, float("nan"), [], None]
    rows = [{**row, **dict.fromkeys(row.keys() - {"step"}, odd[row["step"] % len(odd)])} for row in _run(40)]
    text = "\n".join(json.dumps(row) for row in rows) + '\n{"step": 3\n[]\n{"step": "x"}\n'
    assert len(rows_in(text)) == 40
    for config in ({}, {"data": {"source": 3}}, {"data": {"source": [{"name": 1}]}, "sync": [], "rollout": 3}):
        assert told_at_the_end(text, config) is not None
