"""What a held-out evaluation says of how much it was measured on."""

from typing import cast

import numpy as np
import pytest

from algorithms.preference import PreferenceSection
from algorithms.records import Sequence
from orchestrator.cluster.pool import WorkerPool
from orchestrator.config.options import config_type
from orchestrator.training.groups import GroupMaker
from orchestrator.training.held_out import HeldOut
from orchestrator.training.reference import Reference
from tests.unit.offline.examples import example


class _Longer:
    """A policy that gives every token of a response +1 nat, and a reference that gives it 0."""

    def policy_score(self, sequences: list[Sequence], *, deadline_s: float) -> list[np.ndarray]:
        return [s.action_mask.astype(np.float32) for s in sequences]

    def reference_score(self, sequences: list[Sequence], *, deadline_s: float) -> list[np.ndarray]:
        return [np.zeros(len(s.input_ids), np.float32) for s in sequences]

    def policy_greedy_hits(self, sequences: list[Sequence], *, deadline_s: float) -> list[int]:
        return [1 for _ in sequences]


def _held_out(algo: str, *, share: bool) -> HeldOut:
    # The longer response is chosen twice and rejected once: margins of +1, -1 and +2 tokens.
    examples = [
        example("a", [[5, 6], [5], [5, 6, 7]], pairs=((0, 1), (0, 2))),
        example("b", [[5, 6, 7], [5]], pairs=((0, 1),)),
    ]
    if algo == "kto":
        examples.append(example("alone", [[5]], desirable=(True,)))
    if algo == "sft":
        examples = [example("a", [[5, 6]]), example("b", [[5, 6, 7]])]
    config = config_type().model_validate(
        {"algo": algo, "data": {"path": ".", "format": "plain_dpo"}, "model": {"path": "m"}}
    )
    assert config.offline is not None
    pool = cast(WorkerPool, _Longer())
    groups = GroupMaker(config.offline, config.section(PreferenceSection), share_prompts=share)
    return HeldOut(examples, config, pool, groups=groups, reference=Reference(config, pool))


@pytest.mark.parametrize("algo", ["dpo", "kto"])
@pytest.mark.parametrize("share", [True, False])
def test_pairs_and_the_instructions_they_belong_to_are_counted(algo: str, share: bool) -> None:
    # Mean margin (1 - 1 + 2) / 3 times beta 0.1. Who has no rival is in no pair; nor are pairs instructions.
    assert _held_out(algo, share=share).evaluate() == pytest.approx(
        {"eval/pair_accuracy": 2 / 3, "eval/margin": 0.2 / 3, "eval/num_pairs": 3.0, "eval/num_instructions": 2.0}
    )


def test_tokens_and_the_instructions_they_belong_to_are_counted() -> None:
    # One likeliest token in each response, of 2 and of 3 tokens.
    assert _held_out("sft", share=True).evaluate() == pytest.approx(
        {"eval/token_accuracy": 2 / 5, "eval/token_logprob": 1.0, "eval/num_tokens": 5.0, "eval/num_instructions": 2.0}
    )
