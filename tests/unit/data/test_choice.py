"""Which responses an algorithm learns from."""

import pytest

from orchestrator.data.choice import Choice, choose
from orchestrator.data.records import Response
from tests.unit.algorithms.asks import learner


def _choose(algo: str, *responses: Response, score_margin: float = 0.0) -> Choice | str:
    return choose(responses, learner(algo).needs, score_margin=score_margin)


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
    for responses, best in ((ranked, 1), (_scored(1.0, 3.0, 3.0), 1), (_scored(None), 0), (_scored(None, 5), 1)):
        choice = _choose("sft", *responses)
        assert isinstance(choice, Choice) and choice.responses == (best,)


def _compared(*preferred_to: tuple[int, ...]) -> list[Response]:
    return [Response(text=f"{k}", preferred_to=worse, tied_with=()) for k, worse in enumerate(preferred_to)]


def test_a_low_rating_of_all_is_no_dislike() -> None:
    """1 of 5 is low; only the sign of a score is a verdict."""
    assert _choose("sft", *_scored(1.0, 1.0)) == Choice(responses=(0,), pairs=(), desirable=())


def test_of_comparisons_the_best_is_one_that_none_is_preferred_to() -> None:
    for responses, best in ((_compared((), (), (1,)), 2), (_compared((), (0,), (), (4,), ()), 1), (_compared(()), 0)):
        choice = _choose("sft", *responses)
        assert isinstance(choice, Choice) and choice.responses == (best,)


def test_what_kto_pushes_down_is_never_imitated() -> None:
    for score in (-1.0, 0.0, 0.5, 1.0):
        labelled = _choose("kto", *_scored(score))
        assert isinstance(labelled, Choice)
        assert isinstance(_choose("sft", *_scored(score)), Choice) == labelled.desirable[0]


def test_pairs_of_a_part_of_an_order_are_those_that_were_told() -> None:
    # 0 > 1; 2 > 3 > 4 and 2 > 4
    choice = _choose("dpo", *_compared((1,), (), (3, 4), (4,), ()))
    assert isinstance(choice, Choice)
    assert choice.pairs == ((0, 1), (2, 3), (2, 4), (3, 4))
    labels = _choose("kto", *_compared((1,), (), (3, 4), (4,), ()))
    assert isinstance(labels, Choice)
    assert (labels.responses, labels.desirable) == ((0, 1, 2, 4), (True, False, True, False))


@pytest.mark.parametrize(
    ("algo", "responses", "reason"),
    [
        ("dpo", _scored(2.0, 2.0), "all its responses tie"),
        ("dpo", _scored(2.0), "it has 1 responses, a pair needs 2"),
        ("dpo", [Response(text="same", rank=1), Response(text="same", rank=2)], ""),
        ("ipo", [Response(text=" ", rank=1), Response(text="b", rank=2)], "response 1 of 2 has no text"),
        ("kto", _scored(None, None), "0 of its 2 responses have a rank or a score, a pair needs 2"),
        ("sft", [], "it has no response"),
        ("sft", _scored(-1.0), "its only response is disliked (score -1)"),
        ("sft", _scored(0.0), "its only response is disliked (score 0)"),
        ("sft", _scored(-2.0, -0.5, None), "its best response is disliked (score -0.5)"),
        (
            "sft",
            [Response(text="b", rank=2)],
            "its only response is disliked (rank 2, and the better one is not there)",
        ),
        ("sft", [Response(text="b", rank=2), Response(text="c", rank=3)], "its best response is disliked (rank 2"),
        ("sft", _scored(None, None), "nobody judged which of its 2 responses is the best"),
        ("sft", [Response(text="a", rank=1), Response(text="b", rank=1)], "all its responses tie"),
        ("sft", _compared((), ()), "all its responses tie"),
        ("sft", [Response(text="", rank=1)], "response 1 of 1 has no text"),
    ],
)
def test_what_cannot_be_learnt_from_is_told(algo: str, responses: list[Response], reason: str) -> None:
    told = _choose(algo, *responses)
    assert isinstance(told, str)
    assert reason in told


def _judged(*ranks: int | None, critique: str | None = "it is so") -> list[Response]:
    return [Response(text=f"answer {k}", rank=rank, critique=critique) for k, rank in enumerate(ranks)]


def test_a_critique_reward_model_learns_from_ties_as_well() -> None:
    choice = _choose("critique_rm", *_judged(2, 1, None, 2, 3))
    assert isinstance(choice, Choice)
    assert choice.responses == (0, 1, 3, 4)
    assert choice.pairs == ((1, 0), (0, 3), (1, 2), (1, 3), (2, 3))
    assert choice.ties == ((0, 2),)
    for algo in ("dpo", "mm_dpo", "scalar_rm"):
        plain = _choose(algo, *_judged(2, 1, None, 2, 3))
        assert isinstance(plain, Choice) and plain.ties == ()


def test_a_response_that_only_ties_takes_part_in_no_pair_of_its_own() -> None:
    # By score, at the largest gap only: the middle two are in no pair, but tie.
    scored = [Response(text=f"{k}", score=s, critique="so") for k, s in enumerate((5.0, 3.0, 3.0, 1.0))]
    choice = _choose("critique_rm", *scored, score_margin=-1.0)
    assert choice == Choice(responses=(0, 1, 2, 3), pairs=((0, 3),), ties=((1, 2),), desirable=())


@pytest.mark.parametrize("critique", [None, "", " "])
def test_every_response_that_takes_part_needs_a_critique(critique: str | None) -> None:
    first, second = _judged(1, 2)
    told = _choose("critique_rm", first, Response(text="b", rank=2, critique=critique))
    assert told == "response 2 of 2 has no critique"
    without = Response(text="c", critique=critique)
    assert isinstance(_choose("critique_rm", first, second, without), Choice), "it does not take part"
    assert isinstance(_choose("mm_dpo", first, Response(text="b", rank=2, critique=critique)), Choice)


def test_ties_alone_are_no_preference() -> None:
    assert _choose("critique_rm", *_judged(1, 1)) == "all its responses tie"
