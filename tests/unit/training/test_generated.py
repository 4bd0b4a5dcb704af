"""Scheduled sampling: which steps, what engines are asked, and what is read from where."""

from typing import Any

import numpy as np
import pytest

from algorithms.critique_rm import CritiqueRmSection, RewardGroup, reward_groups
from algorithms.records import Example, Sequence
from orchestrator.cluster.microbatches import group_cost
from orchestrator.training.generated import GeneratedCritiques, with_room
from workers.types import Completion, EncodedPrompt, GenerationRequest

_PROMPT, _ASKED = (1, 2, 3), (7, 8)
_ROOM: dict[str, Any] = {"together": True, "token_budget": 10_000}


class _Engines:
    """Writes ``[50 + sample index, 9]`` for every request but those of ``cut``, which end by length."""

    def __init__(self, cut: tuple[int, ...] = ()) -> None:
        self.cut, self.requests, self.log = cut, [], []

    def sync(self, policy_version: int, probe: list[EncodedPrompt]) -> None:
        self.log.append(("sync", policy_version, [p.uid for p in probe]))

    def sample(self, requests: list[GenerationRequest]) -> list[Completion]:
        self.log.append("sample")
        self.requests += requests
        return [
            Completion(
                uid=r.uid,
                sample_index=r.sample_index,
                completion_ids=np.array([50 + r.sample_index, 9], np.int32),
                rollout_logprobs=np.zeros(2, np.float32),
                finish_reason="length" if r.sample_index in self.cut else "stop",
                policy_version=0,
                engine="e",
            )
            for r in requests
        ]

    def sleep(self) -> None:
        self.log.append("sleep")


def _writer(engines: _Engines, *, share: float = 1.0, max_model_len: int = 100) -> GeneratedCritiques:
    return GeneratedCritiques(
        lambda probe: engines,  # type: ignore[arg-type]
        share=share,
        seed=3,
        max_new_tokens=4,
        max_model_len=max_model_len,
        probe_prompts=1,
    )


def _example(uid: str = "a") -> Example:
    """Three responses of 1, 2 and 3 tokens; the prompt's placeholder, 2, stands for two tokens."""
    prompt = (1, 2, 2, 3)
    answers = [tuple(range(20, 21 + k)) for k in range(3)]
    ids = [np.array((*prompt, *answer, *_ASKED, 30 + k, 9), np.int64) for k, answer in enumerate(answers)]
    return Example(
        uid=uid,
        sequences=tuple(
            Sequence(uid=uid, sample_index=k, input_ids=row, prompt_len=len(prompt), media=())
            for k, row in enumerate(ids)
        ),
        pairs=((0, 1), (0, 2)),
        ties=((1, 2),),
        desirable=(),
        ref_logprobs=None,
        critique_starts=tuple(len(row) - 2 for row in ids),
        engine_prompt_ids=_PROMPT,
    )


def test_engines_are_asked_what_a_person_was_asked_with_the_weights_of_the_step() -> None:
    engines = _Engines()
    ((first, *_),) = _writer(engines).write([_example()], policy_version=5, **_ROOM)
    assert engines.log == [("sync", 5, ["a"]), "sample", "sleep"]
    asked = engines.requests[1]
    assert asked.engine_prompt_ids == (*_PROMPT, 20, 21, *_ASKED)
    assert asked.prompt_ids == (1, 2, 2, 3, 20, 21, *_ASKED)
    assert (asked.temperature, asked.max_new_tokens) == (0.0, 4)
    assert first is not None
    assert first.input_ids.tolist() == [1, 2, 2, 3, 20, *_ASKED, 50, 9]


def test_rewards_are_read_from_own_critiques_and_words_learnt_from_peoples() -> None:
    generated = _writer(_Engines(cut=(1,))).write([_example()], policy_version=0, **_ROOM)
    (group,) = reward_groups([_example()], CritiqueRmSection(), together=True, generated=generated)
    assert len(group.sequences) == 5
    # The second critique was cut, so its reward is read where the person's ends.
    assert group.score_of.tolist() == [3, 1, 4]
    assert [group.sequences[i].input_ids[-2] for i in group.score_of] == [50, 31, 52]
    assert [bool(row.any()) for row in group.imitation] == [True, True, True, False, False]


def test_apart_every_comparison_reads_the_same_and_every_critique_counts_once() -> None:
    generated = _writer(_Engines()).write([_example()], policy_version=0, **_ROOM)
    groups = reward_groups([_example()], CritiqueRmSection(), together=False, generated=generated)
    assert len(groups) == 3
    total = sum(float(row.sum()) for group in groups for row in group.imitation)
    assert total == pytest.approx(1.0)
    for group in groups:
        assert {int(group.sequences[i].input_ids[-2]) for i in group.score_of} <= {50, 51, 52}


@pytest.mark.parametrize("share", [True, False])
def test_a_critique_that_a_micro_batch_has_no_room_for_is_not_read(share: bool) -> None:
    examples = [_example()]
    generated = _writer(_Engines()).write(examples, policy_version=0, **_ROOM)
    own = [_cost(g, share=share) for g in reward_groups(examples, CritiqueRmSection(), together=share)]
    left = []
    for budget in range(max(own), 500):
        fitting = with_room(examples, generated, together=share, token_budget=budget)
        groups = reward_groups(examples, CritiqueRmSection(), together=share, generated=fitting)
        assert max(_cost(g, share=share) for g in groups) <= budget
        left.append(sum(s is not None for s in fitting[0]))
    assert (left[0], left[-1]) == (0, 3) and left == sorted(left)


def _cost(group: RewardGroup, *, share: bool) -> int:
    lengths = [len(s.input_ids) - s.prompt_len for s in group.sequences]
    return group_cost(group.sequences[0].prompt_len, lengths, share_prompts=share)


def test_what_leaves_no_room_is_not_asked() -> None:
    engines = _Engines()
    ((short, middle, long),) = _writer(engines, max_model_len=12).write([_example()], policy_version=0, **_ROOM)
    assert short is not None and middle is not None and long is None
    assert [r.sample_index for r in engines.requests] == [0, 1]


def test_the_share_of_the_steps_is_met_and_is_the_same_every_time() -> None:
    writer = _writer(_Engines(), share=0.3)
    due = [writer.is_due(step) for step in range(2000)]
    assert sum(due) / len(due) == pytest.approx(0.3, abs=0.03)
    assert due == [_writer(_Engines(), share=0.3).is_due(step) for step in range(2000)]
    assert not any(_writer(_Engines(), share=0.0).is_due(step) for step in range(100))
    assert all(_writer(_Engines(), share=1.0).is_due(step) for step in range(100))
