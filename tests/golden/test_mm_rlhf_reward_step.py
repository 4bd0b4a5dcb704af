"""A step of critique_rm, from examples to the scalar, against MM-RLHF's own code: two responses an instruction.

There a critique's cross-entropy is one number a side of a micro-batch, and the means over both sides are added; here it
is one mean over responses, so that a weight of 1 there is 2 here.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from algorithms.algorithm import Scores
from algorithms.critique_rm import CritiqueRmSection, RewardObjective, reward_groups
from algorithms.records import Example
from orchestrator.config import load_config
from tests.golden.test_mm_rlhf_reward_model import FILE, LOSS, RAISES
from tests.golden.vectors import Case, assert_close, floats, one, select
from tests.unit.algorithms.examples import PROMPT, example

# Every response has a critique here, and no margin is asked for: nothing makes one.
_APPLICABLE = [
    case
    for case in select(FILE, LOSS, without=RAISES)
    if not any(case.inputs["no_critic"]) and case.inputs["margin"] is None
]
_ASKED = 2
"""Tokens between prompt and critique."""


def _examples(case: Case) -> list[Example]:
    rows = len(case.inputs["rewards_chosen"])
    ties, made = case.inputs["is_tie"] or [False] * rows, []
    for row, is_tie in enumerate(ties):
        # Critiques of different lengths: a response counts the same whatever its critique's.
        plain = example(str(row), [range(_ASKED + 1 + row), range(_ASKED + 3)])
        kind = {"ties": ((0, 1),)} if is_tie else {"pairs": ((0, 1),)}
        made.append(replace(plain, critique_starts=(PROMPT + _ASKED,) * 2, **kind))
    return made


def _settings(case: Case) -> CritiqueRmSection:
    weight = case.params["float_rewards_weight"]
    return CritiqueRmSection(
        score_weight=1.0 if weight is None else weight,
        tie_weight=case.params["tie_weight"] or 0.0,
        centering=case.params["center_rewards_coefficient"] or 0.0,
        critique_weight=2.0 * case.params["critic_rewards_weight"],
    )


def _objective(case: Case, sides: list[Tensor], critiques: list[Tensor], *, share: bool) -> Tensor:
    settings = _settings(case)
    groups = reward_groups(_examples(case), settings, together=share)
    sequences = [s for g in groups for s in g.sequences]
    rewards = tuple(sides[s.sample_index].flatten()[int(s.uid)][None] for s in sequences)
    logprobs = tuple(-critiques[s.sample_index].expand(len(s.input_ids) - PROMPT) for s in sequences)
    return RewardObjective(settings.centering)(Scores(logprobs=logprobs, rewards=rewards), groups).losses.sum()


def _name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("share", [True, False], ids=["shared", "apart"])
@pytest.mark.parametrize("case", _APPLICABLE, ids=_name)
def test_loss_and_gradient_of_a_step(case: Case, share: bool) -> None:
    sides = floats(case, "rewards_chosen", "rewards_rejected", grad=True)
    critiques = floats(case, "critic_ce_chosen", "critic_ce_rejected", grad=True)
    loss = _objective(case, sides, critiques, share=share)
    gradients = torch.autograd.grad(loss, (*sides, *critiques))
    # Ours adds up in float64; the original in the precision of the case, and without any preference in float32.
    in_float32 = case.dtype == torch.float32 or all(case.inputs["is_tie"] or [False])
    assert_close(loss.float() if in_float32 else loss, case.outputs["loss"])
    for name, gradient in zip(
        ("rewards_chosen", "rewards_rejected", "critic_ce_chosen", "critic_ce_rejected"), gradients, strict=True
    ):
        assert_close(gradient, case.outputs[f"grad_{name}"])


def test_enough_of_the_cases_apply() -> None:
    assert len(_APPLICABLE) == 12


def test_the_released_profile_has_the_weights_of_the_released_script() -> None:
    config, _ = load_config(
        ["--algo", "critique_rm", "--profile", "mmrlhf_released", "--model.path", "m", "--data.path", "d"]
    )
    case = one(FILE, LOSS, "released_settings_batch4")
    settings = _settings(case)
    for name in ("score_weight", "centering", "critique_weight"):
        assert getattr(config.section(CritiqueRmSection), name) == getattr(settings, name)
