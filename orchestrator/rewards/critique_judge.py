"""Responses in, critiques and rewards out: from the cache where they are known, else from the critique reward workers.

One question a response, whatever number of pairs it is in. The responses to one prompt go to one worker, so that prompt
and images are computed once.

Many questions are asked in pieces, and the cache has the answers to one before the next is begun: a kill loses one
piece. Pieces depend on the questions alone, not on what is known, so that whoever goes on asks what would have been
asked, in the same company, and gets the same bits.
"""

import hashlib
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, Protocol, Self

from orchestrator.cluster.microbatches import Deal, deal_prompts
from orchestrator.rewards.reward import Reward
from workers.multimodal.critique_format import CritiqueFormat, CritiqueQuestion
from workers.multimodal.processor import UnfitImageError
from workers.multimodal.prompt_encoder import PromptEncoder
from workers.types import Completion, GenerationRequest, Prompt, UnusablePrompt

Status = Literal["ok", "cut", "too_long", "unfit", "not_finite"]
"""``cut``: the critique met the limit of tokens. ``too_long``: prompt and response leave no room for one. ``unfit``:
the model's processor cannot take an image."""
_QUESTIONS_AT_ONCE = 512
"""At least so many, where there are, to keep engines busy; the responses to one prompt stay together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueReward:
    """What a critique reward model says of one response."""

    reward: float | None
    """None unless ``status`` is ``ok``: nothing is made up."""
    critique: str
    num_tokens: int
    """Of the critique."""
    status: Status


def content_key(model: str, messages: object, media: Iterable[str], response: str) -> str:
    """SHA-256 of all that a reward depends on.

    Args:
        model: Fingerprint of weights, template, preprocessing, number format and the settings critiques are made with.
        media: Digests, in order.
    """
    content = json.dumps([model, messages, list(media), response], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


class CritiqueCache:
    """Rewards by content key; several processes may use one file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Whoever opens it need not be the thread that asks; two never ask at a time.
        self._db = sqlite3.connect(path, timeout=30.0, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS rewards"
            " (key TEXT PRIMARY KEY, reward REAL, critique TEXT, num_tokens INTEGER, status TEXT)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def get(self, keys: Iterable[str]) -> dict[str, CritiqueReward]:
        """Those that are known."""
        found: dict[str, CritiqueReward] = {}
        for key in keys:
            row = self._db.execute(
                "SELECT reward, critique, num_tokens, status FROM rewards WHERE key = ?", (key,)
            ).fetchone()
            if row is not None:
                found[key] = _reward(*row)
        return found

    def put(self, rewards: Mapping[str, CritiqueReward]) -> None:
        """Keep rewards; what is there already stays."""
        with self._db:
            self._db.executemany(
                "INSERT OR IGNORE INTO rewards VALUES (?, ?, ?, ?, ?)",
                [(key, r.reward, r.critique, r.num_tokens, r.status) for key, r in rewards.items()],
            )


def checked(reward: float) -> tuple[float | None, Status]:
    """A model's reward, or that it is none."""
    # SQLite knows no -0.0: adding 0.0 makes it what the cache would give back.
    return (reward + 0.0, "ok") if math.isfinite(reward) else (None, "not_finite")


def _reward(reward: float | None, critique: str, num_tokens: int, status: Any) -> CritiqueReward:
    return CritiqueReward(reward=reward, critique=critique, num_tokens=num_tokens, status=status)


@dataclass(frozen=True, slots=True)
class Question:
    """One response to be judged."""

    prompt: Prompt
    response: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CritiqueLimits:
    """What bounds a critique, tokens."""

    max_new_tokens: int
    max_model_len: int


class CritiqueWorkers(Protocol):
    """Critique reward workers, wherever they are."""

    def each(self, method: str, items: Sequence[Any], *, deadline_s: float, deal: Deal | None = None) -> list[Any]:
        """To ``write`` a critique for each request; the ``rewards`` of each critique. Both in the order given."""
        ...


class CritiqueJudge:
    """A frozen critique reward model behind one call; greedy, so that equal questions get equal answers."""

    def __init__(
        self,
        workers: CritiqueWorkers,
        encoder: PromptEncoder,
        cache: CritiqueCache,
        *,
        request: str,
        fingerprint: str,
        limits: CritiqueLimits,
        deadline_s: float,
    ) -> None:
        """
        Args:
            request: What the model was asked when it was trained.
            fingerprint: see ``content_key``.
            deadline_s: Longest wait for the answers to a piece, seconds.
        """
        self._workers, self._encoder, self._cache = workers, encoder, cache
        self._format, self._limits, self._deadline_s = CritiqueFormat(encoder, request), limits, deadline_s
        self._fingerprint = fingerprint
        self.counts: Counter[str] = Counter()
        """Answers so far by status, and those that the cache knew under ``cached``."""

    def judge(self, questions: Sequence[Question]) -> list[CritiqueReward]:
        """An answer to each question, in the order given; equal questions are asked once."""
        return [answer for piece in _pieces(questions) for answer in self._judge(piece)]

    def _judge(self, questions: Sequence[Question]) -> list[CritiqueReward]:
        keys = [self._key(q) for q in questions]
        known = self._cache.get(dict.fromkeys(keys))
        self.counts["cached"] += sum(key in known for key in keys)
        unknown = {key: q for key, q in zip(keys, questions, strict=True) if key not in known}
        if unknown:
            fresh = dict(zip(unknown, self._ask(list(unknown.values())), strict=True))
            # What was too long here may fit elsewhere, and is found out for nothing.
            self._cache.put({key: a for key, a in fresh.items() if a.status not in ("too_long", "unfit")})
            # Read back: where another process was first, its answers are everybody's.
            known |= fresh | self._cache.get(unknown)
        answers = [known[key] for key in keys]
        self.counts.update(a.status for a in answers)
        return answers

    def _key(self, question: Question) -> str:
        media = [m.sha256 for m in question.prompt.media]
        return content_key(self._fingerprint, question.prompt.messages, media, question.response)

    def _ask(self, questions: Sequence[Question]) -> list[CritiqueReward]:
        answers: dict[int, CritiqueReward] = {}
        asked: dict[int, CritiqueQuestion] = {}
        for index, question in enumerate(questions):
            try:
                asked[index] = self._format.ask(question.prompt, question.response)
            except (UnfitImageError, UnusablePrompt):
                answers[index] = CritiqueReward(reward=None, critique="", num_tokens=0, status="unfit")
        requests = []
        for index, one in asked.items():
            if one.critique_start + self._limits.max_new_tokens > self._limits.max_model_len:
                answers[index] = CritiqueReward(reward=None, critique="", num_tokens=0, status="too_long")
            else:
                requests.append(_request(index, one, self._limits.max_new_tokens))
        written: list[Completion] = []
        if requests:
            written = self._workers.each("write", requests, deadline_s=self._deadline_s, deal=deal_prompts)
        whole = []
        for request, completion in zip(requests, written, strict=True):
            index = request.sample_index
            if completion.finish_reason == "stop":
                whole.append((index, completion))
            else:
                answers[index] = self._answer(completion, None)
        sequences = [self._format.answered(asked[i], i, tuple(c.completion_ids.tolist())) for i, c in whole]
        rewards = self._workers.each("rewards", sequences, deadline_s=self._deadline_s) if sequences else []
        for (index, completion), reward in zip(whole, rewards, strict=True):
            answers[index] = self._answer(completion, reward)
        return [answers[index] for index in range(len(questions))]

    def _answer(self, completion: Completion, reward: float | None) -> CritiqueReward:
        value, status = (None, "cut") if reward is None else checked(reward)
        critique = self._encoder.decode(completion.completion_ids)
        return CritiqueReward(reward=value, critique=critique, num_tokens=len(completion.completion_ids), status=status)


def with_critiques(rewards: Sequence[Reward], answers: Sequence[CritiqueReward], *, weight: float) -> list[Reward]:
    """Rewards with ``weight`` times those of the critique reward model added; without either there is none."""
    joint = []
    for reward, answer in zip(rewards, answers, strict=True):
        if reward.value is None:
            joint.append(reward)
        elif answer.reward is None:
            joint.append(replace(reward, value=None, status="failed", detail=f"critique: {answer.status}"))
        else:
            parts = {**reward.parts, "critique": answer.reward}
            weights = {**reward.weights, "critique": weight} if reward.weights else {}
            value = reward.value + weight * answer.reward
            joint.append(replace(reward, value=value, parts=parts, weights=weights))
    return joint


def _pieces(questions: Sequence[Question]) -> Iterator[list[Question]]:
    piece: list[Question] = []
    for _, of_one_prompt in groupby(questions, key=lambda q: q.prompt.uid):
        piece += of_one_prompt
        if len(piece) >= _QUESTIONS_AT_ONCE:
            yield piece
            piece = []
    if piece:
        yield piece


def _request(index: int, question: CritiqueQuestion, max_new_tokens: int) -> GenerationRequest:
    prompt = question.prompt
    return GenerationRequest(
        uid=prompt.uid,
        sample_index=index,
        engine_prompt_ids=(*prompt.engine_prompt_ids, *question.asked),
        prompt_ids=(*prompt.prompt_ids, *question.asked),
        media=prompt.media,
        seed=0,
        max_new_tokens=max_new_tokens,
        temperature=0.0,
    )
