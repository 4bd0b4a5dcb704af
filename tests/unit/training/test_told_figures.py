"""Whatever an algorithm of preferences tells of a step, its samples or its objective, it has declared."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from algorithms.algorithm import Scores
from algorithms.figures import values
from tests.unit.algorithms.asks import Answers, learner
from tests.unit.algorithms.examples import PROMPT, example, logprobs

_SCALAR = ("scalar_rm", "critique_rm")


@pytest.mark.parametrize(
    ("algo", "settings"),
    [
        *((algo, {}) for algo in ("dpo", "hinge", "ipo", "ddpo", "kto", "kto_pair", "scalar_rm", "critique_rm")),
        ("mm_dpo", {"mm_dpo": {"beta_mode": "fixed"}}),
        ("mm_dpo", {"mm_dpo": {"beta_mode": "batch_implicit"}}),
    ],
)
def test_every_figure_of_a_step_is_declared(algo: str, settings: dict[str, Any]) -> None:
    examples = [
        replace(
            example(uid, [[5, 6, 7], [8, 9]], pairs=((0, 1),), desirable=(True, False)),
            critique_starts=(PROMPT + 1, PROMPT + 1),
            betas=(0.1,) if algo == "mm_dpo" else (),
            margins=(0.5,) if algo == "mm_dpo" else (),
        )
        for uid in "ab"
    ]
    algorithm = learner(algo, **settings)
    mixed = [[np.ones(3, np.float32), np.ones(2, np.float32)] for _ in examples]
    rows = mixed if algo == "kto" else logprobs(examples, seed=1)
    learned = algorithm.samples(examples, Answers(examples, policy=rows, reference=rows))
    (groups,) = learned.updates
    sequences = [s for g in groups for s in g.sequences]
    pieces = tuple(-torch.ones(len(s.input_ids) - PROMPT) for s in sequences)
    scores = Scores(
        logprobs=() if algo == "scalar_rm" else pieces,
        entropy=None if algo == "scalar_rm" else torch.ones(sum(map(len, pieces))),
        greedy=None if algo == "scalar_rm" else torch.ones(sum(map(len, pieces)), dtype=torch.bool),
        rewards=tuple(torch.ones(1) for _ in sequences) if algo in _SCALAR else (),
    )
    told = learned.figures | values(algorithm.objective()(scores, groups).figures)
    assert told.keys() <= {figure.name for figure in algorithm.figures}
    assert "preference/num_pairs" in told, "throughput is told of every run"
