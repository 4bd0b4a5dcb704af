"""What a held-out evaluation says of how much it was measured on, and what it asks for again."""

import numpy as np
import pytest

from tests.unit.algorithms.asks import Answers, learner
from tests.unit.algorithms.examples import example


def _held_out(algo: str, *, share: bool) -> tuple[dict[str, float], Answers]:
    # The longer response is chosen twice and rejected once: margins of +1, -1 and +2 tokens.
    examples = [
        example("a", [[5, 6], [5], [5, 6, 7]], pairs=((0, 1), (0, 2))),
        example("b", [[5, 6, 7], [5]], pairs=((0, 1),)),
    ]
    if algo == "kto":
        examples.append(example("alone", [[5]], desirable=(True,)))
    if algo == "sft":
        examples = [example("a", [[5, 6]]), example("b", [[5, 6, 7]])]
    # A policy that gives every token of a response +1 nat, and a reference that gives it 0.
    policy, reference = (
        [[np.full(len(s.input_ids) - s.prompt_len, nats, np.float32) for s in e.sequences] for e in examples]
        for nats in (1.0, 0.0)
    )
    ask, algorithm = Answers(examples, policy=policy, reference=reference, share_prompts=share), learner(algo)
    return algorithm.evaluate(algorithm.prepared(examples, ask), ask), ask


@pytest.mark.parametrize("algo", ["dpo", "kto"])
@pytest.mark.parametrize("share", [True, False])
def test_pairs_and_the_instructions_they_belong_to_are_counted(algo: str, share: bool) -> None:
    # Mean margin (1 - 1 + 2) / 3 times beta 0.1. Who has no rival is in no pair; nor are pairs instructions.
    assert _held_out(algo, share=share)[0] == pytest.approx(
        {"eval/pair_accuracy": 2 / 3, "eval/margin": 0.2 / 3, "eval/num_pairs": 3.0, "eval/num_instructions": 2.0}
    )


def test_rewards_are_compared_as_they_are() -> None:
    found, _ = _held_out("scalar_rm", share=True)
    # Every response has the same reward, 1: three ties, each half right.
    assert (found["eval/pair_accuracy"], found["eval/margin"]) == (0.5, 0.0)


def test_tokens_and_the_instructions_they_belong_to_are_counted() -> None:
    # One likeliest token in each response, of 2 and of 3 tokens.
    assert _held_out("sft", share=True)[0] == pytest.approx(
        {"eval/token_accuracy": 2 / 5, "eval/token_logprob": 1.0, "eval/num_tokens": 5.0, "eval/num_instructions": 2.0}
    )


def test_what_the_reference_thinks_is_asked_once_for_all_evaluations() -> None:
    examples = [example("a", [[5], [6]], pairs=((0, 1),))]
    rows = [[np.zeros(1, np.float32), np.zeros(1, np.float32)]]
    algorithm, ask = learner("dpo"), Answers(examples, policy=rows, reference=rows)
    prepared = algorithm.prepared(examples, ask)
    again = Answers(examples, policy=rows)  # who has no reference
    assert algorithm.evaluate(prepared, again) == algorithm.evaluate(prepared, ask)


@pytest.mark.parametrize("algo", ["dpo", "kto", "kto_pair", "scalar_rm", "mm_dpo", "sft"])
def test_every_figure_of_an_evaluation_is_declared(algo: str) -> None:
    found, _ = _held_out(algo, share=True)
    assert found.keys() <= {figure.name for figure in learner(algo).figures}
