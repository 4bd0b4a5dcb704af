"""Judgements of pairs: rows in the form of R1-Reward-RL, made of whatever says which of two responses is better.

A row is ``{"question", "message", "answer", "image"}`` as in the released file, and beside them ``id`` and
``evaluator_prompt``. ``message`` is a user turn, the question's images before the words. Invariants: a row is known by
an id of its own, made of its pair, of what it says and of its answer, for ids of files repeat; and our reader takes
every row that is made.

Source: R1-Reward, https://arxiv.org/abs/2505.02835, sections 3 and 4, and its released file.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from orchestrator.config.requests import Request
from orchestrator.data.pairs import Pair, preference_pairs, tied_pairs
from orchestrator.data.readers.r1_reward import read_r1_reward
from orchestrator.data.records import Instruction, Response
from orchestrator.data.rows import RowError
from orchestrator.data.turns import check_prompt, refuse_told_verdict

Label = Literal["1", "2"]
LABELS: tuple[Label, Label] = ("1", "2")
"""Which of the responses is the better one, as they are shown."""
_DIGEST_CHARS = 12
_IMAGE = "[image]"
"""Names an image that stood between words: all of them stand before the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPair:
    """Two responses to a question, one of which somebody prefers."""

    uid: str
    """Its instruction's uid, the numbers of better and worse response, and a digest of what the pair says."""
    question: str
    images: tuple[str, ...]
    """Names that a row gives them."""
    better: str
    worse: str

    def id(self, label: Label) -> str:
        """Of the row that shows the better response as the first or as the second."""
        return f"{self.uid}:{label}"


def pair_of(row_id: str) -> tuple[str, str]:
    """Uid of the pair and label of a row, by its id; the label of another text is empty."""
    uid, _, label = row_id.rpartition(":")
    return (uid, label) if label in LABELS else (row_id, "")


def judged_pairs(
    instruction: Instruction, *, names: Sequence[str], request: Request
) -> tuple[list[JudgedPair], list[str]]:
    """The pairs of an instruction, and of every two responses that make none the reason.

    Args:
        names: Of its images.
    """
    reasons = list(_unpaired(instruction.responses))
    question, made = question_of(instruction), list[JudgedPair]()
    once: dict[tuple[str, str], Pair] = {}
    for pair in preference_pairs(instruction.responses, score_margin=0.0):
        texts = instruction.responses[pair.chosen].text, instruction.responses[pair.rejected].text
        if once.setdefault(texts, pair) is not pair:
            reasons.append(f"responses {_both(pair)} say the same as responses {_both(once[texts])}")
    for (better, worse), pair in once.items():
        if (other := once.get((worse, better))) is not None:
            reasons.append(
                f"responses {_both(pair)} say the same as responses {_both(other)}, and are preferred the other way"
            )
            continue
        says = json.dumps([question, [media.sha256 for media in instruction.media], better, worse])
        digest = hashlib.sha256(says.encode()).hexdigest()[:_DIGEST_CHARS]
        one = JudgedPair(
            uid=f"{instruction.uid}:{pair.chosen + 1}>{pair.rejected + 1}:{digest}",
            question=question,
            images=tuple(names),
            better=better,
            worse=worse,
        )
        if (reason := _unreadable(one, request)) is None:
            made.append(one)
        else:
            reasons.append(reason)
    return made, reasons


def judgement_row(pair: JudgedPair, label: Label, request: Request) -> dict[str, Any]:
    """The row less its pictures, for a judge that should say ``label``."""
    first, second = (pair.better, pair.worse) if label == "1" else (pair.worse, pair.better)
    text = request.filled({"question": pair.question, "first": first, "second": second})
    content = [*({"type": "image", "image": name} for name in pair.images), {"type": "text", "text": text}]
    return {
        "question": pair.question,
        "message": json.dumps([{"role": "user", "content": content}], ensure_ascii=False),
        "answer": [f"<answer>{label}</answer>"],
        "image": None,
        "id": pair.id(label),
        "evaluator_prompt": str(request),
    }


def question_of(instruction: Instruction) -> str:
    """What was asked, in words; of several turns each with its role."""
    turns = instruction.messages
    if len(turns) == 1:
        return _words(turns[0]["content"], all_images=False)
    first = next((i for i, turn in enumerate(turns) if turn["role"] == "user"), 0)
    return "\n\n".join(
        f"{turn['role'].capitalize()}: {_words(turn['content'], all_images=i > first)}" for i, turn in enumerate(turns)
    )


def _words(content: Sequence[Mapping[str, Any]], *, all_images: bool) -> str:
    """Texts of a turn, and where its images stood, at its ends only if they are all to be named."""
    texts = [i for i, part in enumerate(content) if part["type"] == "text"]
    between = range(texts[0], texts[-1]) if texts else range(0)
    said = ""
    for i, part in enumerate(content):
        if part["type"] != "text" and not (all_images or i in between):
            continue
        piece = part["text"] if part["type"] == "text" else _IMAGE
        apart = said and not said[-1].isspace() and not piece[:1].isspace() and _IMAGE in (piece, said[-len(_IMAGE) :])
        said += (" " if apart else "") + piece
    return said


def _unpaired(responses: Sequence[Response]) -> Iterator[str]:
    """Why any two of the responses are no pair."""
    if len(responses) < 2:
        yield f"it has {len(responses)} responses, a pair needs 2"
        return
    paired = {frozenset((pair.chosen, pair.rejected)) for pair in preference_pairs(responses, score_margin=0.0)}
    tied = set(map(frozenset, tied_pairs(responses)))
    for i, j in combinations(range(len(responses)), 2):
        if frozenset((i, j)) in paired:
            continue
        both = f"responses {i + 1} and {j + 1}"
        if responses[i].text == responses[j].text:
            yield f"{both} are the same text"
        else:
            yield f"{both} tie" if frozenset((i, j)) in tied else f"nobody said which of {both} is better"


def _unreadable(pair: JudgedPair, request: Request) -> str | None:
    """Why our own reader would not take a row of the pair; None where it would."""
    for label in LABELS:
        try:
            draft = read_r1_reward(judgement_row(pair, label, request))
            check_prompt(draft.turns)
            refuse_told_verdict(draft.turns, label)
        except RowError as error:
            return f"its judgement would be a bad row: {error}"
    return None


def _both(pair: Pair) -> str:
    return f"{pair.chosen + 1} and {pair.rejected + 1}"
