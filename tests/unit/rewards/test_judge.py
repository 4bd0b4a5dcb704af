"""The judge without a model: who is asked what, in which order, and what becomes of an answer that is none."""

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from algorithms.records import MediaRef, Sequence
from orchestrator.cluster.microbatches import deal_prompts
from orchestrator.rewards import critique_judge as judging
from orchestrator.rewards.critique_judge import CritiqueCache, Question
from orchestrator.tasks.digits_critiques import REQUEST
from tests.critique_models import judge_of
from tests.unit.rewards.fake_workers import FakeWorkers, text_prompt
from workers.multimodal.critique_format import CritiqueFormat
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Prompt

TEXTS = ("it is one .", "it is two .", "no digit to see .")


def _questions(*uids: str, texts: tuple[str, ...] = TEXTS) -> list[Question]:
    """To every prompt these responses; prompts differ in their words."""
    prompts = [text_prompt(uid, f"which digit ? {uid}") for uid in uids]
    return [Question(prompt=prompt, response=text) for prompt in prompts for text in texts]


def _of_content(sequence: Sequence) -> float:
    """Something that names a question whatever its place."""
    return float(crc32(sequence.input_ids.tobytes()) % 1000)


def test_answers_come_in_the_order_of_the_questions(speller: Path, cache: CritiqueCache, tmp_path: Path) -> None:
    questions = _questions("one", "two", "three")
    answers = judge_of(FakeWorkers(reward=_of_content), speller, cache).judge(questions)
    assert len({a.reward for a in answers}) == len(questions)
    with CritiqueCache(tmp_path / "other.sqlite") as other:
        backwards = judge_of(FakeWorkers(reward=_of_content), speller, other).judge(questions[::-1])
    assert backwards == answers[::-1]


def test_equal_questions_are_asked_once_whoever_asks_them(speller: Path, cache: CritiqueCache) -> None:
    workers = FakeWorkers()
    judge = judge_of(workers, speller, cache)
    again = Question(prompt=text_prompt("other uid", "which digit ? one"), response=TEXTS[0])
    questions = [*_questions("one"), again, *_questions("one")]
    answers = judge.judge(questions)
    assert len(workers.requests) == len(workers.scored) == len(TEXTS)
    assert answers[3] == answers[0] and answers[4:] == answers[:3]


def test_the_second_time_nobody_is_asked(speller: Path, cache: CritiqueCache, tmp_path: Path) -> None:
    questions, workers = _questions("one", "two"), FakeWorkers()
    first = judge_of(workers, speller, cache).judge(questions)
    nobody = FakeWorkers()
    with CritiqueCache(tmp_path / "critiques.sqlite") as reopened:
        judge = judge_of(nobody, speller, reopened)
        assert judge.judge(questions) == first
    assert nobody.batches == [] and nobody.scored == []
    assert judge.counts == {"cached": 6, "ok": 6}


def test_a_critique_that_is_cut_gives_no_reward_and_is_counted(speller: Path, cache: CritiqueCache) -> None:
    workers = FakeWorkers(
        finish=lambda request: "length" if request.sample_index == 1 else "stop", reward=lambda s: 2.0
    )
    judge = judge_of(workers, speller, cache)
    answers = judge.judge(_questions("one"))
    assert [(a.reward, a.status) for a in answers] == [(2.0, "ok"), (None, "cut"), (2.0, "ok")]
    assert [s.sample_index for s in workers.scored] == [0, 2]
    assert judge.counts == {"ok": 2, "cut": 1, "cached": 0}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number_is_none_and_is_counted(speller: Path, cache: CritiqueCache, value: float) -> None:
    judge = judge_of(FakeWorkers(reward=lambda s: value if s.sample_index == 2 else -1.0), speller, cache)
    answers = judge.judge(_questions("one"))
    assert [(a.reward, a.status) for a in answers] == [(-1.0, "ok"), (-1.0, "ok"), (None, "not_finite")]
    assert judge.counts == {"ok": 2, "not_finite": 1, "cached": 0}


def test_what_leaves_no_room_for_a_critique_is_never_sent(speller: Path, cache: CritiqueCache) -> None:
    short, long = _questions("one", texts=("it is one .", " ".join(["one"] * 50)))
    needed = CritiqueFormat(PromptEncoder(speller), REQUEST).ask(long.prompt, long.response).critique_start + 8
    for limit, statuses in ((needed - 1, ["ok", "too_long"]), (needed, ["ok", "ok"])):
        workers = FakeWorkers()
        judge = judge_of(workers, speller, cache, max_new_tokens=8, max_model_len=limit)
        assert [a.status for a in judge.judge([short, long])] == statuses
        assert judge.counts["too_long"] == statuses.count("too_long")
        # The short one is known by the second round; the long one is sent only then.
        assert [len(r.prompt_ids) + 8 == needed for r in workers.requests] == [limit == needed]
        assert len(workers.scored) == len(workers.requests)


def test_a_question_that_was_too_long_is_asked_where_it_fits(speller: Path, cache: CritiqueCache) -> None:
    (question,) = _questions("one", texts=("it is one .",))
    refused = FakeWorkers()
    (answer,) = judge_of(refused, speller, cache, max_model_len=10).judge([question])
    assert (answer.status, answer.reward, refused.batches) == ("too_long", None, [])
    (answer,) = judge_of(FakeWorkers(reward=lambda s: 5.0), speller, cache).judge([question])
    assert (answer.status, answer.reward) == ("ok", 5.0)


def test_a_question_whose_image_the_processor_cannot_take_is_never_sent(speller: Path, cache: CritiqueCache) -> None:
    first, second = _questions("one", "two", texts=("it is one .",))
    content = [{"type": "image"}, {"type": "text", "text": "which digit ?"}]
    thin = MediaRef(sha256="thin", path="thin.png", width=1200, height=4)
    prompt = Prompt(uid="thin", messages=({"role": "user", "content": content},), media=(thin,))
    workers = FakeWorkers(reward=lambda s: 2.0)
    answers = judge_of(workers, speller, cache).judge([first, Question(prompt=prompt, response="it is one ."), second])
    assert [(a.reward, a.status) for a in answers] == [(2.0, "ok"), (None, "unfit"), (2.0, "ok")]
    assert len(workers.requests) == 2


def test_what_another_process_answered_first_is_everybodys_answer(speller: Path, cache: CritiqueCache) -> None:
    questions = _questions("one")

    def while_others_answer(sequence: Sequence) -> float:
        with CritiqueCache(Path(cache_path)) as theirs:
            judge_of(FakeWorkers(reward=lambda s: 7.0), speller, theirs).judge(questions[:1])
        return 1.0

    cache_path = cache._db.execute("PRAGMA database_list").fetchone()[2]
    answers = judge_of(FakeWorkers(reward=while_others_answer), speller, cache).judge(questions)
    assert [a.reward for a in answers] == [7.0, 1.0, 1.0]
    assert judge_of(FakeWorkers(), speller, cache).judge(questions) == answers


def test_a_kill_loses_the_piece_it_was_in(speller: Path, cache: CritiqueCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "_QUESTIONS_AT_ONCE", 4)
    questions = _questions("one", "two", "three", "four", "five")

    class Killed(Exception):
        pass

    def dies_in_the_second_piece(sequence: Sequence) -> float:
        if sequence.uid == "four":
            raise Killed
        return _of_content(sequence)

    with pytest.raises(Killed):
        judge_of(FakeWorkers(reward=dies_in_the_second_piece), speller, cache).judge(questions)
    workers = FakeWorkers(reward=_of_content)
    answers = judge_of(workers, speller, cache).judge(questions)
    # Prompts stay whole, so a piece of at least four is two prompts; the first piece is known.
    assert [[r.uid for r in batch] for batch in workers.batches] == [["three"] * 3 + ["four"] * 3, ["five"] * 3]
    undisturbed = FakeWorkers(reward=_of_content)
    with CritiqueCache(Path(cache._db.execute("PRAGMA database_list").fetchone()[2]).with_name("calm")) as calm:
        assert judge_of(undisturbed, speller, calm).judge(questions) == answers
    assert [[r.uid for r in b] for b in undisturbed.batches][1:] == [[r.uid for r in b] for b in workers.batches]


def test_greedy_and_the_limit_are_in_every_request(speller: Path, cache: CritiqueCache) -> None:
    workers = FakeWorkers()
    judge_of(workers, speller, cache, max_new_tokens=5).judge(_questions("one"))
    assert {(r.temperature, r.max_new_tokens) for r in workers.requests} == {(0.0, 5)}
    assert len({r.prompt_ids for r in workers.requests}) == len(TEXTS)


def test_the_reward_is_read_behind_what_the_engine_read_and_wrote(speller: Path, cache: CritiqueCache) -> None:
    workers = FakeWorkers(end=PromptEncoder(speller).eos_token_ids[0])
    judge_of(workers, speller, cache).judge(_questions("one", "two"))
    for request, sequence in zip(workers.requests, workers.scored, strict=True):
        assert tuple(sequence.input_ids[:-1]) == request.prompt_ids
        assert sequence.input_ids[-1] == PromptEncoder(speller).eos_token_ids[0]
        assert sequence.input_ids.dtype == np.int64
        assert (sequence.uid, sequence.sample_index) == (request.uid, request.sample_index)


@pytest.mark.parametrize("num_parts", [1, 2, 3, 5])
def test_prompts_are_dealt_out_whole_and_evenly(speller: Path, cache: CritiqueCache, num_parts: int) -> None:
    workers = FakeWorkers()
    judge_of(workers, speller, cache).judge(_questions("one", "two", "three", "four"))
    dealt = deal_prompts(workers.requests, num_ranks=num_parts)
    parts = [[workers.requests[i] for batch in batches for i in batch] for batches in dealt]
    assert len(parts) == num_parts
    assert [r for part in parts for r in part] == workers.requests
    of_part = [{r.uid for r in part} for part in parts]
    assert sum(map(len, of_part)) == 4, "the responses to a prompt are together"
    assert max(map(len, of_part)) - min(map(len, of_part)) <= 1


def test_nothing_to_deal_out_leaves_every_part_empty() -> None:
    assert deal_prompts([], num_ranks=3) == [[[]], [[]], [[]]]
