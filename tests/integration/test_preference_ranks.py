"""One rank or two, ZeRO-2 or ZeRO-3: preferences teach the same, step after step."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from algorithms.figures import added, values
from algorithms.groups import PairGroup
from algorithms.records import Example
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.store import PreferenceStore
from orchestrator.tasks.digits import DigitsPaths
from orchestrator.tasks.digits_preferences import build_digits_preferences
from tests.integration.pools import make_pool, policy_spec
from tests.unit.algorithms.asks import Answers, learner
from workers.multimodal.prompt_encoder import PromptEncoder

pytestmark = pytest.mark.integration
_STEPS, _BATCH = 10, 12


def _learner(algo: str) -> Any:
    return learner(algo, preference={"beta": 0.5})


def _steps(model: Path, digits: DigitsPaths, algo: str) -> list[list[PairGroup]]:
    store = PreferenceStore(build_digits_preferences(digits.train.parent, seed=0))
    algorithm = _learner(algo)
    encode = ExampleEncoder(
        PromptEncoder(model),
        algorithm.needs,
        media_root=store.media_root,
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=256, tokens_per_microbatch=256, share_prompts=True),
    )
    rows = store.iterate("train", seed=0)
    steps = []
    for _ in range(_STEPS):
        examples = [e for e in (encode(next(rows)) for _ in range(_BATCH)) if isinstance(e, Example)]
        refs = [[np.zeros(len(s.input_ids) - s.prompt_len, np.float32) for s in e.sequences] for e in examples]
        steps.append(algorithm.groups(examples, Answers(examples, reference=refs)))
    steps.append(steps[0][:1])  # not enough for two ranks
    return steps


@pytest.mark.parametrize(
    ("algo", "stages"),
    [
        ("dpo", [2]),  # that stage 3 is stage 2 does not depend on the objective: see test_ranks.py
        pytest.param("dpo", [2, 3], marks=pytest.mark.soak),
        pytest.param("scalar_rm", [2, 3], marks=pytest.mark.soak),
    ],
)
def test_ranks_and_zero_stages_agree(
    algo: str, stages: list[int], cluster: None, random_model: Path, digits: DigitsPaths, tmp_path: Path
) -> None:
    steps = _steps(random_model, digits, algo)
    algorithm = _learner(algo)
    runs = {}
    for ranks, stage in [(1, 2), *((2, stage) for stage in stages)]:
        pool, out = make_pool(num_ranks=ranks), tmp_path / f"{ranks}-{stage}"
        try:
            pool.role("policy").start(
                policy_spec(random_model, zero_stage=stage, objective=algorithm.objective(), head=algorithm.needs.head)
            )
            losses = []
            for groups in steps:
                plan = pool.group_microbatches(groups, num_ranks=ranks)
                assert len(plan[0]) > 1 or len(groups) == 1, "every rank must accumulate"
                per_rank = [[[groups[i] for i in batch] for batch in batches] for batches in plan]
                updates = pool.role("policy").update(per_rank, deadline_s=120.0)
                assert not any(update.nonfinite for update in updates)
                losses.append(values(added(update.figures for update in updates))["policy/loss"])
            pool.role("policy").shared("save", str(out), deadline_s=60.0)
        finally:
            pool.close()
        files = (out / "policy").rglob("*.safetensors")
        runs[ranks, stage] = losses, {f"{f.parent.name}.{n}": t for f in files for n, t in load_file(f).items()}
    wanted, weights = runs[1, 2]
    start = load_file(random_model / "model.safetensors")
    assert any(float((weights[f"policy.{name}"] - tensor).abs().max()) > 1e-3 for name, tensor in start.items())
    for losses, other in runs.values():
        assert losses == pytest.approx(wanted, rel=1e-5)
        assert other.keys() == weights.keys()
        # Over all weights: a bias of keys has no effect, so its gradient is rounding alone, which Adam blows up.
        gap = math.sqrt(sum(float((other[name] - tensor).square().sum()) for name, tensor in weights.items()))
        assert gap < 1e-5 * math.sqrt(sum(float(tensor.square().sum()) for tensor in weights.values()))
