"""What a model is asked about items, and that a cut run asks for the rest alone; engines and judge are stood in for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import GuardStop, RefusedInput
from orchestrator.evaluation.benchmarks.asking import Asked, AskOptions, ask_all, asked_of
from orchestrator.evaluation.benchmarks.items import CountOptions, Item
from orchestrator.evaluation.benchmarks.prompts import REQUESTS, checked_request, pair_prompt
from orchestrator.evaluation.benchmarks.registry import benchmark_of
from orchestrator.evaluation.predictions import Prediction, Predictions
from orchestrator.evaluation.results import answered, score
from orchestrator.evaluation.scorers.engines import lengths, predictions, requests
from orchestrator.evaluation.scorers.scorer import Ask
from orchestrator.evaluation.verdict_readings import READINGS
from orchestrator.rewards.asking import Answer, Question
from tests.unit.evaluation.letters import Letters, letter_sampler
from tests.unit.evaluation.released_files import cell, jsonl, parquet, read, save, whole
from workers.types import Completion, GenerationRequest

_OPTIONS = AskOptions(request="Q {question} 1 {first} 2 {second}", max_new_tokens=8)
Sampler = Callable[[Sequence[GenerationRequest]], list[Completion]]
_ASKED: dict[str, object] = {"model": "m"}


def _ask(sample: Sampler, options: AskOptions = _OPTIONS) -> Ask:
    def ask(asked: Sequence[Asked]) -> list[Prediction]:
        return predictions(asked, sample(requests(asked, options, Letters())), Letters())

    return ask


def _pairs(folder: Path, count: int = 5) -> tuple[Item, ...]:
    """The better response is "good", listed second in odd rows; ids repeat."""
    rows = [
        {
            "id": f"mathverse_{i % 2}",
            "query": f"q{i} ?",
            "response": ["good", "bad"] if i % 2 else ["bad", "good"],
            "human_ranking": [0, 1] if i % 2 else [1, 0],
            "image": cell(i % 3),
        }
        for i in range(count)
    ]
    return read("vl_reward_bench", parquet(folder / "v.parquet", *rows)).items


def _prefers_good(asked: str, request: GenerationRequest) -> str:
    return f"<answer>{1 if asked.index('good') < asked.index('bad') else 2}</answer>"


def test_a_pair_is_shown_in_both_orders_with_its_images_where_they_stand(tmp_path: Path) -> None:
    row = {
        "pair_id": "p",
        "prompt_text": "Draw .",
        "prompt_images": [cell(1)],
        "response_a_text": "see <image_1> !",
        "response_a_images": [cell(2)],
        "response_b_text": "so",
        "response_b_images": [cell(3)],
        "chosen": "A",
    }
    (item,) = read("multimodal_reward_bench_2", parquet(tmp_path / "t2i.parquet", row)).items
    first, second = (pair_prompt(item, request=_OPTIONS.request, order=order) for order in ("12", "21"))
    words = [
        ["[image]" if part["type"] == "image" else part["text"] for part in prompt.messages[0]["content"]]
        for prompt in (first, second)
    ]
    assert words == [
        ["Q Draw .", "[image]", " 1 see ", "[image]", " ! 2 so", "[image]"],
        ["Q Draw .", "[image]", " 1 so", "[image]", " 2 see ", "[image]", " !"],
    ]
    assert second.media == (first.media[0], first.media[2], first.media[1])
    assert first.uid != second.uid


def test_words_of_a_response_fill_no_place_of_the_template(tmp_path: Path) -> None:
    rows = {"id": "x", "query": "{first} ?", "response": ["{second}", "b"], "human_ranking": [0, 1], "image": cell(1)}
    (item,) = read("vl_reward_bench", parquet(tmp_path / "v.parquet", rows)).items
    text = pair_prompt(item, request="{question}|{first}|{second}", order="12").messages[0]["content"][-1]["text"]
    assert text == "{first} ?|{second}|b"


@pytest.mark.parametrize("form", list(REQUESTS))
def test_every_form_has_a_template_and_a_reading(form: str) -> None:
    assert checked_request(REQUESTS[form]) == REQUESTS[form]
    assert form in READINGS


def test_a_template_has_each_place_once() -> None:
    with pytest.raises(RefusedInput, match=r"the template has \{second\} 0 times, expected once"):
        checked_request("{question} {first}")
    with pytest.raises(RefusedInput, match=r"the template has \{first\} 2 times"):
        checked_request("{question} {first} {first} {second}")


def test_one_order_is_chosen_by_the_seed_and_is_balanced(tmp_path: Path) -> None:
    items = _pairs(tmp_path, 60)
    one = replace(_OPTIONS, both_orders=False)
    orders = [[asked.order for asked in asked_of(item, "verdict", one)] for item in items]
    assert {len(own) for own in orders} == {1}
    assert 15 <= sum(own == ["12"] for own in orders) <= 45
    assert orders == [[asked.order for asked in asked_of(item, "verdict", one)] for item in items]
    assert orders != [[a.order for a in asked_of(item, "verdict", replace(one, seed=1))] for item in items]


def test_a_judge_is_right_in_both_orders(tmp_path: Path) -> None:
    benchmark, items = benchmark_of("vl_reward_bench"), _pairs(tmp_path)
    kept = Predictions(tmp_path / "out", asked=_ASKED)
    ask_all(items, benchmark, _OPTIONS, asks="verdict", ask=_ask(letter_sampler(_prefers_good)), kept=kept)
    found, _ = answered(items, kept.current())
    counted = score("vl_reward_bench", benchmark, found, model="m", options=CountOptions(), num_resamples=10).countings
    assert [one["accuracy"] for one in counted] == [1.0] * 4
    assert (counted[0]["first_position"], counted[0]["consistent"]) == (0.5, 1.0)


def test_a_judge_that_always_says_one_is_seen(tmp_path: Path) -> None:
    benchmark, items = benchmark_of("vl_reward_bench"), _pairs(tmp_path)
    kept = Predictions(tmp_path / "out", asked=_ASKED)
    sample = letter_sampler(lambda asked, request: "<answer>1</answer>")
    ask_all(items, benchmark, _OPTIONS, asks="verdict", ask=_ask(sample), kept=kept)
    found, _ = answered(items, kept.current())
    (strict, *_) = score("v", benchmark, found, model="m", options=CountOptions(), num_resamples=10).countings
    assert (strict["accuracy"], strict["first_position"]) == (0.5, 1.0)


class _Cut(Exception):
    """The driver is killed."""


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_cut_run_asks_for_the_rest_alone(after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.evaluation.benchmarks.asking._SHARD_SAMPLES", 16)
    benchmark, items = benchmark_of("vl_reward_bench"), _pairs(tmp_path, 11)
    options = replace(_OPTIONS, samples=3)

    def says(asked: str, request: GenerationRequest) -> str:
        return f"<answer>{1 + request.seed % 2}</answer>"

    def ask(folder: Path, sample: Sampler) -> Predictions:
        kept = Predictions(folder, asked=_ASKED)
        ask_all(items, benchmark, options, asks="verdict", ask=_ask(sample, options), kept=kept)
        kept.finish()
        return kept

    ask(tmp_path / "whole", letter_sampler(says))
    seen: list[GenerationRequest] = []
    shards = iter(range(after))

    def cut(requests: Sequence[GenerationRequest]) -> list[Completion]:
        if next(shards, None) is None:
            raise _Cut
        return letter_sampler(says, seen)(requests)

    with pytest.raises(_Cut):
        ask(tmp_path / "cut", cut)
    ask(tmp_path / "cut", letter_sampler(says, seen))
    named = [(one.uid, one.sample_index) for one in seen]
    assert len(named) == len(set(named)) == 11 * 2 * 4
    files = [(tmp_path / name / "predictions.parquet").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_more_votes_ask_for_more_samples_alone(tmp_path: Path) -> None:
    benchmark, items = benchmark_of("vl_reward_bench"), _pairs(tmp_path, 3)
    counts = []
    for samples in (0, 3, 5, 3):
        seen: list[GenerationRequest] = []
        kept = Predictions(tmp_path / "out", asked=_ASKED)
        options = replace(_OPTIONS, samples=samples)
        ask_all(
            items, benchmark, options, asks="verdict", ask=_ask(letter_sampler(_prefers_good, seen), options), kept=kept
        )
        counts.append(len(seen))
        assert {request.temperature for request in seen} <= {0.0, 1.0}
        assert {request.sample_index == 0 for request in seen if request.temperature == 0.0} <= {True}
    assert counts == [6, 18, 12, 0]


def test_what_prompts_need_of_an_engine(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    asked = {"image": "a.png", "label": "no"}
    texts = ["Is it ?", "unusable ?", "Is there a very long question ?"]
    items = read("pope", jsonl(tmp_path / "p.jsonl", *({**asked, "text": text} for text in texts))).items
    free = lengths(items, _OPTIONS, Letters(), asks="answer", most=None)
    assert (free.longest, free.max_images) == (1 + len(texts[2]), 1)
    assert free.unusable == ((2, "the chat template does not take it"),)
    bounded = lengths(items, _OPTIONS, Letters(), asks="answer", most=20)
    assert (bounded.longest, bounded.unusable[1]) == (8, (3, "32 tokens and an answer of 8 are more than 20"))


class _Judge:
    """Writes what it is told, question after question."""

    def __init__(self, *says: str | None) -> None:
        self.says, self.asked = iter(says), list[Question]()

    def write(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += questions
        said = [next(self.says) for _ in questions]
        return [Answer(text, "" if text is not None else "m is down") for text in said]


def _hal(folder: Path, count: int) -> tuple[Item, ...]:
    save(folder / "a.png")
    row = {"question_type": "other", "image_content": ["a dog"], "question": "What ?", "gt_answer": "A dog ."}
    return read("mmhal", whole(folder / "h.json", [{**row, "image_path": "a.png"}] * count)).items


def test_answers_are_rated_by_a_judge(tmp_path: Path) -> None:
    items, benchmark = _hal(tmp_path, 3), benchmark_of("mmhal")
    kept, judge = Predictions(tmp_path / "out", asked=_ASKED), _Judge("Rating: 5", None, "no rating")
    sample = letter_sampler(lambda asked, request: "a {response} cat")
    ask_all(items, benchmark, _OPTIONS, asks="answer", ask=_ask(sample), kept=kept, judge=judge)
    assert [(p.reply, p.status) for p in kept.current()] == [
        ("Rating: 5", "answered"),
        (None, "failed"),
        ("no rating", "answered"),
    ]
    assert "Image contents: a dog\n" in judge.asked[0].text and "Response: a {response} cat\n" in judge.asked[0].text
    found, _ = answered(items, kept.current())
    # While a rating has failed, no other way is shown: they would take it for a 0.
    (strict,) = score("mmhal", benchmark, found, model="m", options=CountOptions(), num_resamples=10).countings
    assert (strict["score"], strict.counts["unreadable"]) == (5.0, 2)
    # The one that failed is asked about again, and no other.
    again, judge = Predictions(tmp_path / "out", asked=_ASKED), _Judge("Rating: 2")
    ask_all(items, benchmark, _OPTIONS, asks="answer", ask=_ask(sample), kept=again, judge=judge)
    assert [p.reply for p in again.current()] == ["Rating: 5", "Rating: 2", "no rating"]
    found, _ = answered(items, again.current())
    (_, official) = score("mmhal", benchmark, found, model="m", options=CountOptions(), num_resamples=10).countings
    assert official["score"] == 7 / 3


def test_an_answer_that_is_none_is_not_rated(tmp_path: Path) -> None:
    items, kept, judge = _hal(tmp_path, 2), Predictions(tmp_path / "out", asked=_ASKED), _Judge("Rating: 5")

    def ask(asked: Sequence[Asked]) -> list[Prediction]:
        return [asked[0].prediction(0, status="failed"), asked[1].prediction(0, text="a cat")]

    ask_all(items, benchmark_of("mmhal"), _OPTIONS, asks="answer", ask=ask, kept=kept, judge=judge)
    assert [(p.reply, p.status) for p in kept.current()] == [(None, "failed"), ("Rating: 5", "answered")]


def test_a_judge_that_is_down_stops_the_run_with_nothing_half_written(tmp_path: Path) -> None:
    items, benchmark = _hal(tmp_path, 3), benchmark_of("mmhal")
    kept = Predictions(tmp_path / "out", asked=_ASKED)
    with pytest.raises(GuardStop, match="the judge answered none of 3 questions: m is down"):
        ask_all(
            items,
            benchmark,
            _OPTIONS,
            asks="answer",
            ask=_ask(letter_sampler(lambda asked, request: "x")),
            kept=kept,
            judge=_Judge(None, None, None),
        )
    assert list((tmp_path / "out" / "predictions").iterdir()) == []
