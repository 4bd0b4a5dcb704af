"""A judge by a rubric: what it is asked, which numbers count, and what becomes of verdicts that are none."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from algorithms.figures import added, values
from algorithms.records import MediaRef
from orchestrator.config import load_config
from orchestrator.config.judges import Criterion, criteria_of
from orchestrator.data.verdicts import parse_scores
from orchestrator.errors import RefusedInput
from orchestrator.pipeline.run import describe_batches
from orchestrator.rewards.asking import Answer, Pictures, Question, filled, question_of
from orchestrator.rewards.remembered import RememberedWriter
from orchestrator.rewards.reward import Reward, failed_reward, reward_metrics
from orchestrator.rewards.rubric import RubricJudge, RubricSettings, rubric_text
from workers.types import Prompt

_CRITERIA = (Criterion("right", 2.0, "Is it right?"), Criterion("short", 0.5, ""))


class _Writer:
    def __init__(self, says: Callable[[Question], Answer | str]) -> None:
        self.says, self.asked = says, list[Question]()

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += questions
        said = [self.says(question) for question in questions]
        return [Answer(one) if isinstance(one, str) else one for one in said]


def _settings(**changed: Any) -> RubricSettings:
    given: dict[str, Any] = {
        "weight": 0.5, "rubric": "Q {question} L {label} R {response} <answer>", "criteria": (),
        "low": 1.0, "high": 5.0,
    }  # fmt: skip
    return RubricSettings(**{**given, **changed})


def _prompt(uid: str, *, label: str | None = "7") -> Prompt:
    media = (MediaRef(sha256=uid * 64, path=f"/{uid}", width=1, height=1),)
    return Prompt(uid=uid, messages=(), media=media, label=label, meta={"question": "how many ?"})


def _scored() -> Reward:
    return Reward(value=1.0, parts={"f": 1.0}, weights={"f": 1.0}, status="scored")


def test_a_number_is_a_share_of_its_range_and_is_added_with_its_weight() -> None:
    said = {"a": "1", "b": "5", "c": "2.0"}
    writer = _Writer(lambda q: f"<think>hm</think> <answer> {said[q.text[-10]]} </answer>")
    judge = RubricJudge(writer, Pictures("own"), _settings())
    found, shares = judge.added(
        [_scored()] * 4, [_prompt("p"), _prompt("p"), _prompt("q"), _prompt("q")], ["a", "b", "c", "c"]
    )
    assert [reward.parts["judge"] for reward in found] == [0.0, 1.0, 0.25, 0.25]
    assert [reward.value for reward in found] == [1.0, 1.5, 1.125, 1.125]
    assert found[0].weights == {"f": 1.0, "judge": 0.5}
    assert [q.text for q in writer.asked] == [f"Q how many ? L 7 R {word} <answer>" for word in "abc"], (
        "equal ones once"
    )
    assert writer.asked[0].media == _prompt("p").media
    assert values(shares) == {
        "judge/ratings": 3.0, "judge/unreadable_frac": 0.0, "judge/unanswered_frac": 0.0,
        "judge/score_mean": 2.5, "judge/score_spread": 1.0,
    }  # fmt: skip


def test_criteria_are_parts_with_weights_of_their_own() -> None:
    writer = _Writer(lambda _: "<answer>short: 5\nright: 3</answer>")
    judge = RubricJudge(writer, Pictures("none"), _settings(criteria=_CRITERIA))
    (found,), _ = judge.added([Reward(value=0.0, status="scored")], [_prompt("p")], ["a"])
    assert found.parts == {"judge_right": 0.5, "judge_short": 1.0}
    assert found.weights == {"judge_right": 1.0, "judge_short": 0.25}
    assert found.value == 0.5 * (2.0 * 0.5 + 0.5 * 1.0)
    assert reward_metrics([found])["reward/judge_right"] == 0.5
    assert writer.asked[0].media == ()


def test_what_cannot_be_read_or_had_is_a_failed_reward_with_its_reason_and_counted() -> None:
    says: dict[str, Answer | str] = {
        "a": "<answer>6</answer>",
        "b": Answer(None, "m is away"),
        "c": "<answer>3</answer>",
    }
    judge = RubricJudge(_Writer(lambda q: says[q.text[-10]]), Pictures("own"), _settings())
    rewards = [*[_scored()] * 3, failed_reward("gone")]
    found, shares = judge.added(rewards, [_prompt("p")] * 4, ["a", "b", "c", "d"])
    assert [reward.value for reward in found] == [None, None, 1.25, None]
    assert [reward.status for reward in found] == ["failed", "failed", "scored", "failed"]
    assert found[0].detail == "judge: no verdict can be read in '<answer>6</answer>'"
    assert (found[1].detail, found[1].parts, found[3].detail) == ("judge: m is away", {"f": 1.0}, "gone")
    told = values(shares)
    assert told["judge/ratings"] == 3.0, "what has no reward is not asked about"
    assert (told["judge/unreadable_frac"], told["judge/unanswered_frac"]) == (2 / 3, 1 / 3)
    assert (told["judge/score_mean"], "judge/score_spread" in told) == (3.0, False)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("<answer>7</answer>", 7.0),
        ("so <answer> 7.50\n</answer> it is", 7.5),
        ("<think>maybe <answer>3</answer></think><answer>.5</answer>", 0.5),
        ("<answer>+10</answer>", 10.0),
        ("<answer>-0</answer>", 0.0),
        ("7", None),
        ("Score: 7", None),
        ("<answer>7/10</answer>", None),
        ("<answer>7 8</answer>", None),
        ("<answer>nan</answer>", None),
        ("<answer>inf</answer>", None),
        ("<answer>1e1</answer>", None),
        ("<answer>" + "9" * 400 + "</answer>", None),
        ("<answer>10.01</answer>", None),
        ("<answer>-1</answer>", None),
        ("<answer>７</answer>", None),
        ("<answer></answer>", None),
        ("<answer>7</answer> no, <answer>8</answer>", None),
        ("<answer>7</answer> and </answer>", None),
        ("it says <answer>10 and I <answer>3</answer>", None),
        ("", None),
    ],
)
def test_a_number_is_read_where_it_stands_alone_and_in_its_range(text: str, number: float | None) -> None:
    found = parse_scores(text, (), low=0.0, high=10.0)
    assert found == (None if number is None else {"": number})


@pytest.mark.parametrize(
    ("text", "is_read"),
    [
        ("<answer>a: 1\nb: 2</answer>", True),
        ("<answer> b : 2 , a : 1 </answer>", True),
        ("<answer>b: 2; a: 1</answer>", True),
        ("<answer>a: 1</answer>", False),
        ("<answer>a: 1 b: 2 a: 1</answer>", False),
        ("<answer>a: 1 b: 2 c: 3</answer>", False),
        ("<answer>a: 1 b: 11</answer>", False),
        ("<answer>a: 1b: 2</answer>", False),
        ("<answer>a: 1 as b: 2</answer>", False),
        ("<answer>1 2</answer>", False),
    ],
)
def test_every_criterion_is_there_once_or_none_is(text: str, is_read: bool) -> None:
    assert parse_scores(text, ("a", "b"), low=0.0, high=10.0) == ({"a": 1.0, "b": 2.0} if is_read else None)


_PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "a",
    ":",
    "b: 2",
    "1",
    "-",
    ".",
    "e9",
    " ",
    "\n",
    ",",
    "nan",
    "10",
]


@given(st.lists(st.sampled_from(_PIECES) | st.text(max_size=3), max_size=20).map("".join), st.booleans())
def test_whatever_a_judge_writes_a_number_is_in_its_range_or_none(text: str, named: bool) -> None:
    names = ("a", "b") if named else ()
    found = parse_scores(text, names, low=-2.0, high=3.0)
    assert found is None or (set(found) == set(names or ("",)) and all(-2.0 <= n <= 3.0 for n in found.values()))


@given(number=st.floats(-1000, 1000), low=st.floats(-1000, 0), high=st.floats(1, 1000))
def test_a_number_that_is_written_is_read_exactly_where_it_counts(number: float, low: float, high: float) -> None:
    found = parse_scores(f"<answer>{number:.3f}</answer>", (), low=low, high=high)
    written = float(f"{number:.3f}")
    assert found == ({"": written} if low <= written <= high else None)
    assert found is None or math.isfinite(found[""])


def test_the_form_of_a_verdict_is_told_unless_the_rubric_says_one() -> None:
    own = rubric_text(_settings(rubric="Polite? {response}"))
    assert own.startswith("Polite? {response}\n\n") and own.endswith(
        "write within <answer> and </answer> one number from 1 (worst) to 5 (best) and nothing else."
    )
    told = rubric_text(_settings(rubric="{criteria}\n{response}", criteria=_CRITERIA))
    assert told.startswith("right: Is it right?\nshort\n{response}\n\n") and told.endswith(
        ":\nright: NUMBER\nshort: NUMBER"
    )
    assert rubric_text(_settings(rubric="<answer> ? {response}")) == "<answer> ? {response}"


@given(
    st.lists(st.sampled_from(["{response}", "{question}", "{label}", "{criteria}", "{", "}", "x"]), max_size=8).map(
        "".join
    )
)
def test_words_of_a_response_are_never_filled_in(response: str) -> None:
    writer = _Writer(lambda _: "")
    RubricJudge(writer, Pictures("own"), _settings()).added([_scored()], [_prompt("p")], [response])
    assert writer.asked[0].text == f"Q how many ? L 7 R {response} <answer>"


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("<image> which ?", "which ?"),
        ("<image>\n<video> which ?\n<image>", "which ?"),
        ("this <image> or <image>, that ?", "this [image] or [image], that ?"),
        ("  a < b ?", "  a < b ?"),
    ],
)
def test_placeholders_of_images_are_no_words(question: str, words: str) -> None:
    assert question_of(Prompt(uid="p", messages=(), media=(), meta={"question": question})) == words


def test_a_row_without_a_question_of_its_own_asks_what_its_last_turn_says() -> None:
    content = [{"type": "image"}, {"type": "text", "text": "which"}, {"type": "text", "text": "one ?"}]
    turns = ({"role": "system", "content": "judge"}, {"role": "user", "content": content})
    assert question_of(Prompt(uid="p", messages=turns, media=(), meta={"question": ""})) == "which one ?"


def test_in_one_pass() -> None:
    assert filled("{a}{b}{c}", {"a": "{b}", "b": "{a}"}) == "{b}{a}{c}"


def test_shares_of_several_rounds_count_by_what_they_are_of() -> None:
    def shares(numbers: Sequence[str]) -> Any:
        writer = _Writer(lambda q: f"<answer>{q.text[-10]}</answer>")
        judge = RubricJudge(writer, Pictures("own"), _settings())
        return judge.added([_scored()] * len(numbers), [_prompt("p")] * len(numbers), numbers)[1]

    whole = values(added([shares("12345"), shares("9")]))
    assert (whole["judge/ratings"], whole["judge/unreadable_frac"], whole["judge/score_mean"]) == (6.0, 1 / 6, 3.0)


def test_answers_are_kept_and_failures_are_asked_again(tmp_path: Path) -> None:
    writer = _Writer(lambda q: Answer(None, "away") if q.text == "b" else f"{q.text}!")
    questions = [Question("p", (), "a"), Question("q", (), "a"), Question("p", (), "b")]
    for asked in (["a", "b"], ["b"]):
        writer.asked.clear()
        with RememberedWriter(writer, tmp_path / "answers.sqlite", judge="m") as kept:
            assert kept.write(questions) == [Answer("a!"), Answer("a!"), Answer(None, "away")]
        assert [question.text for question in writer.asked] == asked
    with RememberedWriter(writer, tmp_path / "answers.sqlite", judge="another") as kept:
        kept.write(questions)
    assert [question.text for question in writer.asked] == ["b", "a", "b"]


def test_samples_and_places_of_images_make_other_questions(tmp_path: Path) -> None:
    ref = MediaRef(sha256="a" * 64, path="/a", width=1, height=1)
    image, words = {"type": "image"}, {"type": "text", "text": "a"}
    plain = Question("p", (ref,), "a")
    assert (plain.content, Question("p", (), "").content) == ([image, words], [{"type": "text", "text": ""}])
    between = replace(plain, before=("look",), text="")
    assert between.content == [{"type": "text", "text": "look"}, image]
    asked = [plain, replace(plain, before=("b",)), replace(plain, temperature=0.5), replace(plain, seed=3)]
    writer = _Writer(lambda q: f"{q}!")
    with RememberedWriter(writer, tmp_path / "answers.sqlite", judge="m") as kept:
        assert [answer.text for answer in kept.write(asked)] == [f"{q}!" for q in asked]
        assert [answer.text for answer in kept.write(asked)] == [f"{q}!" for q in asked]
    assert writer.asked == asked


def test_criteria_as_they_are_written() -> None:
    assert criteria_of(["right?weight=2: Is it: right?", "short"]) == (
        Criterion("right", 2.0, "Is it: right?"),
        Criterion("short", 1.0, ""),
    )


_ASKED = ("--reward.functions", "judge", "--reward.judge_url", "http://h/v1", "--reward.judge_model", "m")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--reward.functions", "judge"], 'has "judge", which needs reward.judge_path or reward.judge_url'),
        (
            [*_ASKED, "--reward.judge_path", "m"],
            'reward.judge_path and reward.judge_url both say who is asked for "judge"',
        ),
        ([*_ASKED[:4]], 'reward.judge_model is not set, but reward.judge_url is asked for "judge"'),
        ([*_ASKED, "--reward.judge", "openai"], "reward.judge = 'openai' is a judge of consistency"),
        (["--reward.functions", "judge,judge?weight=2", *_ASKED[2:]], 'reward.functions has "judge" twice'),
        (
            ["--reward.functions", "judge?name=x", *_ASKED[2:]],
            "reward.functions: judge?name=x should say a weight alone",
        ),
        (["--reward.functions", "judge?x", *_ASKED[2:]], "should say a weight alone"),
        (["--reward.functions", "judge,my.py:judge", *_ASKED[2:]], "both make the part 'judge'; give it a ?name="),
        ([*_ASKED, "--reward.judge_rubric", "good ?"], "reward.judge_rubric holds no {response}"),
        ([*_ASKED, "--reward.judge_scale", "5", "5"], "reward.judge_scale = 5, 5: the second should be the larger"),
        ([*_ASKED, "--reward.judge_criteria", "Good"], "expected a name of lower-case letters, digits and _"),
        ([*_ASKED, "--reward.judge_criteria", "good: is it"], "no words behind the colon; the command line splits"),
        ([*_ASKED, "--reward.judge_criteria", "good,good"], "reward.judge_criteria has 'good' twice"),
        ([*_ASKED, "--reward.judge_criteria", "good?weight=inf"], "reward.judge_criteria: good?weight=inf should say"),
        (
            [*_ASKED, "--reward.judge_criteria", "good", "--reward.judge_rubric", "{response}"],
            "reward.judge_rubric holds neither {criteria} nor 'good' of reward.judge_criteria",
        ),
        (["--reward.judge_scale", "0", "1"], 'reward.judge_scale is set, but reward.functions has no "judge"'),
        (
            ["--reward.functions", "pairwise", *_ASKED[2:], "--reward.judge_criteria", "a"],
            'reward.judge_criteria is set, but reward.functions has no "judge"',
        ),
    ],
)
def test_what_nobody_could_judge_is_refused(flags: list[str], told: str) -> None:
    with pytest.raises(RefusedInput) as refusal:
        load_config(["--algo", "grpo", *flags])
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def test_both_judges_may_be_asked_and_the_service_runs_neither() -> None:
    config, _ = load_config(
        ["--algo", "grpo", "--reward.functions", "judge?weight=2", "pairwise", "count", *_ASKED[2:]]
    )
    assert (config.reward.rubric_weight, config.reward.pairwise_weight, config.reward.served) == (2.0, 1.0, ("count",))


def test_a_dry_run_says_who_is_asked_how_often() -> None:
    flags = ["--reward.functions", "judge", "pairwise", *_ASKED[2:], "--rollout.samples_per_prompt", "4"]
    config, _ = load_config(["--algo", "grpo", *flags, "--rollout.prompts_per_step", "32", "--reward.max_pairs", "5"])
    assert describe_batches(config)[-1] == (
        "judge: m at http://h/v1, at most so many questions a step: 128 for judge, 32 x 4 pairs x 2 orders for pairwise"
    )
    assert not [line for line in describe_batches(load_config(["--algo", "grpo"])[0]) if line.startswith("judge")]
