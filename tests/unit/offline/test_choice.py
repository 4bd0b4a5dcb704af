"""Which responses an algorithm learns from."""

import pytest

from algorithms.preference_registry import PREFERENCE_ALGORITHMS
from orchestrator.offline.choice import Choice, choose
from orchestrator.preference_store.records import Response


def _choose(algo: str, *responses: Response, score_margin: float = 0.0) -> Choice | str:
    return choose(responses, PREFERENCE_ALGORITHMS[algo], score_margin=score_margin)


def _scored(*scores: float | None) -> list[Response]:
    return [Response(text=f"answer {k}", score=score) for k, score in enumerate(scores)]


def test_pairs_speak_of_the_responses_that_take_part() -> None:
    choice = _choose("dpo", *_scored(1.0, None, 3.0, 3.0))
    assert choice == Choice(responses=(0, 2, 3), pairs=((1, 0), (2, 0)), desirable=())


def test_labels_are_what_wins_more_than_it_loses() -> None:
    choice = _choose("kto", *_scored(1.0, 2.0, 3.0))
    # The middle one wins as often as it loses: it is neither, and the pairs that are left speak of the others.
    assert choice == Choice(responses=(0, 2), pairs=((1, 0),), desirable=(False, True))


@pytest.mark.parametrize(("score", "desirable"), [(1.0, True), (0.0, False), (-1.0, False)])
def test_a_response_alone_is_labelled_by_its_own_score(score: float, desirable: bool) -> None:
    assert _choose("kto", *_scored(score)) == Choice(responses=(0,), pairs=(), desirable=(desirable,))


def test_supervised_learning_takes_the_best_by_rank_then_score_then_place() -> None:
    ranked = [Response(text="a", rank=2), Response(text="b", rank=1), Response(text="c", rank=1)]
    for responses, best in ((ranked, 1), (_scored(1.0, 3.0, 3.0), 1), (_scored(None, None), 0), (_scored(None, -5), 1)):
        choice = _choose("sft", *responses)
        assert isinstance(choice, Choice) and choice.responses == (best,)


@pytest.mark.parametrize(
    ("algo", "responses", "reason"),
    [
        ("dpo", _scored(2.0, 2.0), "all its responses tie"),
        ("dpo", _scored(2.0), "it has 1 responses, a pair needs 2"),
        ("dpo", [Response(text="same", rank=1), Response(text="same", rank=2)], ""),
        ("ipo", [Response(text=" ", rank=1), Response(text="b", rank=2)], "response 1 of 2 has no text"),
        ("kto", _scored(None, None), "0 of its 2 responses have a rank or a score, a pair needs 2"),
        ("sft", [], "it has no response"),
        ("sft", [Response(text="", rank=1)], "response 1 of 1 has no text"),
    ],
)
def test_what_cannot_be_learnt_from_is_told(algo: str, responses: list[Response], reason: str) -> None:
    told = _choose(algo, *responses)
    assert isinstance(told, str)
    assert reason in told
