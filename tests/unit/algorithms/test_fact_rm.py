"""A reward model that is told the facts: its loss is the paper's however a step is split, and other facts show."""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.algorithm import Needs, ScalarHead, Scores
from algorithms.fact_rm import FactRm, FactRmSection, with_others_facts
from algorithms.preference import PreferenceSection
from algorithms.records import Example, Sequence

_OPENING = (8, 9)


def _algorithm(**own: Any) -> FactRm:
    return FactRm("fact_rm", {"preference": PreferenceSection(), "fact_rm": FactRmSection(**own)})


def _example(uid: str, facts: tuple[int, ...], *, responses: int = 2) -> Example:
    sequences = tuple(
        Sequence(
            uid=uid,
            sample_index=index,
            input_ids=np.array([1, 2, 3, *range(20, 20 + index + 1), *facts, *_OPENING]),
            prompt_len=3,
            media=(),
        )
        for index in range(responses)
    )
    pairs = tuple((0, index) for index in range(1, responses))
    starts = tuple(3 + index + 1 for index in range(responses))
    return Example(uid=uid, sequences=sequences, pairs=pairs, fact_starts=starts)


def _ask(rewards: dict[tuple[str, int], float], *, share_prompts: bool, longest: int = 100) -> Any:
    def asked(sequences: list[Sequence]) -> list[float]:
        return [rewards[s.uid, s.sample_index] for s in sequences]

    return SimpleNamespace(
        rewards=asked, share_prompts=share_prompts, longest_row=longest, phase=lambda name: nullcontext()
    )


_REWARD = st.floats(-3, 3).map(lambda x: round(x, 3))


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.tuples(_REWARD, _REWARD, _REWARD), min_size=1, max_size=4), share=st.booleans())
def test_loss_and_gradient_are_those_of_the_whole_step_however_it_is_split(
    values: list[tuple[float, float, float]], share: bool
) -> None:
    weight = 0.3
    examples = [_example(f"{number}", (5, number), responses=3) for number in range(len(values))]
    told = {(e.uid, i): values[n][i] for n, e in enumerate(examples) for i in range(3)}
    algorithm = _algorithm(centring=weight)
    (groups,) = algorithm.samples(examples, _ask(told, share_prompts=share)).updates
    leaves = {key: torch.tensor([value], dtype=torch.float64, requires_grad=True) for key, value in told.items()}
    objective, total = algorithm.objective(), torch.zeros((), dtype=torch.float64)
    for group in groups:  # each alone, as a micro-batch of its own
        rewards = tuple(leaves[s.uid, s.sample_index] for s in group.sequences)
        total = total + objective(Scores((), rewards=rewards), [group]).losses.sum()
    total.backward()

    own = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    chosen, rejected = own[:, :1].expand(-1, 2).reshape(-1), own[:, 1:].reshape(-1)
    choices = torch.ones_like(chosen)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(chosen - rejected, choices)
    expected = expected + weight * (chosen + rejected).mean().abs()
    expected.backward()
    assert total.item() == pytest.approx(expected.item(), abs=1e-9)
    assert own.grad is not None
    if abs((chosen + rejected).sum().item()) > 1e-9:  # where |x| has a derivative
        for (uid, index), leaf in leaves.items():
            assert leaf.grad is not None
            assert float(leaf.grad) == pytest.approx(float(own.grad[int(uid), index]), abs=1e-9)


def test_without_centring_nobody_is_asked_before() -> None:
    ask = _ask({}, share_prompts=True)
    (groups,) = _algorithm(centring=0.0).samples([_example("a", (5,))], ask).updates
    assert [group.sign for group in groups] == [0.0]


def test_it_needs_facts_and_a_head_that_is_read_behind_its_first_words() -> None:
    needs = _algorithm(request="so ? {facts}", opening="it is").needs
    head = ScalarHead(bias=True, request="so ? {facts}", opening="it is")
    assert needs == Needs(data=("preferences",), responses="pairs", head=head, facts=True)


@pytest.mark.parametrize("request_text", ["so ?", "{facts} {facts}"])
def test_a_request_has_one_place_for_the_facts(request_text: str) -> None:
    with pytest.raises(ValueError, match=r"^fact_rm.request has \d places {facts} for the facts, expected 1$"):
        FactRmSection(request=request_text).check(None)


def test_each_sample_is_told_the_facts_of_another() -> None:
    examples = [_example("a", (5,)), _example("b", (6, 7)), _example("c", (5,))]
    shuffled = with_others_facts(examples, longest=100)
    assert [e.uid for e in shuffled] == ["a", "b", "c"]
    for own, other, facts in zip(examples, shuffled, [(6, 7), (5,), (6, 7)], strict=True):
        for before, after, start in zip(own.sequences, other.sequences, own.fact_starts, strict=True):
            assert tuple(after.input_ids[:start]) == tuple(before.input_ids[:start])
            assert tuple(after.input_ids[start:]) == (*facts, *_OPENING)
            assert after == replace(before, input_ids=after.input_ids)


def test_a_sample_that_cannot_be_told_others_facts_is_left_out() -> None:
    same = [_example("a", (5,)), _example("b", (5,))]
    assert with_others_facts(same, longest=100) == []
    examples = [_example("a", (5,)), _example("b", (6, 7))]
    assert [e.uid for e in with_others_facts(examples, longest=8)] == ["b"]


def test_held_out_accuracy_is_told_with_others_facts_too() -> None:
    examples = [_example("a", (5,)), _example("b", (6,))]
    algorithm = _algorithm()
    ask = _ask({}, share_prompts=True)
    # It likes the first response where it is told 5 behind a, 6 behind b: as it was trained.
    right = {"a": 5, "b": 6}
    ask.rewards = lambda sequences: [
        float((s.sample_index == 0) == (int(s.input_ids[-3]) == right[s.uid])) for s in sequences
    ]
    found = algorithm.evaluate(algorithm.prepared(examples, ask), ask)
    assert (found["eval/pair_accuracy"], found["eval/pair_accuracy_shuffled_facts"]) == (1.0, 0.0)
    alone = algorithm.evaluate(algorithm.prepared(examples[:1], ask), ask)
    assert "eval/pair_accuracy_shuffled_facts" not in alone, "there is nobody else's facts"
