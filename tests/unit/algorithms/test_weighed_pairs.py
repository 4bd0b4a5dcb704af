"""What each pair counts in MM-DPO, by the margins of a reward model or by factors; and the one β of a whole step."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from algorithms.mm_dpo import MmDpo, beta_figures
from algorithms.records import Example, WeighedPairs
from orchestrator.data.examples import ExampleEncoder, Limits
from orchestrator.data.records import Instruction, Response
from orchestrator.data.side_tables import Fingerprint, SideTable
from orchestrator.data.store import PreferenceStore
from orchestrator.data.stream import ExampleStream
from orchestrator.rewards.critique_judge import checked
from orchestrator.run.cursor import PromptCursor, sample_seed
from orchestrator.tasks.digits_model import build_digits_model
from tests.unit.algorithms.asks import learner as algorithm
from tests.unit.algorithms.examples import example
from tests.unit.data.store_rows import written
from workers.multimodal.prompt_encoder import PromptEncoder

_BETA, _W, _K = 0.1, 0.5, 0.5
_PAIRS = ((0, 1), (0, 2), (1, 2))


def _with(**fields: object) -> MmDpo:
    section = {"margin_weight": _W, "margin_steepness": _K, **fields}
    return algorithm("mm_dpo", preference={"beta": _BETA}, mm_dpo=section)


def _rewards(*values: float | None) -> tuple[np.ndarray, ...]:
    return tuple(np.array([] if v is None else [v], np.float32) for v in values)


def _weigh(
    learner: MmDpo,
    *,
    pairs: tuple[tuple[int, int], ...] = _PAIRS,
    rewards: tuple[np.ndarray, ...] | None = None,
    factors: Mapping[tuple[int, int], float] | None = None,
) -> WeighedPairs:
    made = learner.weigh("a-1", pairs, rewards=rewards, factors=factors or {})
    assert isinstance(made, WeighedPairs), made
    return made


def _beta_of(margin: float) -> float:
    return _BETA * (1 + _W * (1 - math.exp(-_K * max(margin, 0.0))))


def test_the_margins_of_the_acceptance_list() -> None:
    """MM-RLHF T2."""
    rewards = _rewards(0.0, -1.0, 1.0, np.inf)
    made = _weigh(_with(), pairs=((1, 0), (1, 1), (2, 0), (3, 0)), rewards=rewards)
    b = _BETA
    assert made.betas == pytest.approx((b, b, b * (1 + _W * (1 - math.exp(-_K))), b * (1 + _W)), rel=1e-12)
    assert made.margins == (-1.0, 0.0, 1.0, np.inf)
    assert made.num_dropped == 0


@pytest.mark.parametrize("policy", ["clamp", "flag", "drop"])
def test_a_pair_whose_rejected_response_has_the_greater_reward(policy: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made = _weigh(_with(negative_margin=policy), rewards=_rewards(1.0, 3.0, 0.5))
    kept = _PAIRS[1:] if policy == "drop" else _PAIRS
    assert made.pairs == kept
    assert made.betas == pytest.approx([_beta_of({(0, 1): -2.0, (0, 2): 0.5, (1, 2): 2.5}[p]) for p in kept])
    assert made.margins == (-2.0, 0.5, 2.5), "of every pair, also of the one that is dropped"
    assert made.num_dropped == (policy == "drop")
    told = "instruction a-1: response 1 over 2 has the margin -2.000"
    assert (told in caplog.text) == (policy == "flag") and len(caplog.records) == (policy == "flag")


def test_a_pair_without_a_reward_on_either_side_is_dropped_and_counted() -> None:
    made = _weigh(_with(), rewards=_rewards(2.0, None, 1.0))
    assert (made.pairs, made.margins, made.num_dropped) == (((0, 2),), (1.0,), 2)
    assert made.betas == pytest.approx((_beta_of(1.0),))


@pytest.mark.parametrize(
    ("learner", "given", "told"),
    [
        (_with(), {"rewards": _rewards(1.0, None, None)}, "no pair of it has a reward on both sides"),
        (
            _with(negative_margin="drop"),
            {"rewards": _rewards(1.0, 2.0, 3.0)},
            "every pair of it has a negative margin",
        ),
        (
            _with(beta_mode="precomputed_factor"),
            {"factors": {(7, 8): 1.0}},
            "no pair of it has 'ls_factor', which mm_dpo.beta_mode = 'precomputed_factor' reads",
        ),
    ],
)
def test_an_instruction_left_without_a_pair_says_why(learner: MmDpo, given: dict[str, Any], told: str) -> None:
    options = {"rewards": None, "factors": {}, **given}
    assert learner.weigh("a-1", _PAIRS, **options) == told


def test_factors_make_the_beta_of_their_pairs_and_the_others_are_dropped() -> None:
    made = _weigh(_with(beta_mode="precomputed_factor"), factors={(0, 1): 0.25, (1, 2): -1.0, (2, 1): 9.0})
    assert made.pairs == ((0, 1), (1, 2))
    assert made.betas == pytest.approx((_BETA * (1 + _W * 0.25), _BETA * (1 - _W)), rel=1e-12)
    assert (made.num_dropped, made.margins) == (1, ())


@pytest.mark.parametrize("mode", ["fixed", "batch_implicit"])
def test_without_margins_every_pair_begins_with_the_same_beta(mode: str) -> None:
    made = _weigh(_with(beta_mode=mode))
    assert (made.pairs, made.betas, made.margins, made.num_dropped) == (_PAIRS, (_BETA,) * 3, (), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_never_becomes_a_reward(value: float) -> None:
    reward, status = checked(value)
    assert (reward, status) == (None, "not_finite")
    made = _weigh(_with(), rewards=_rewards(2.0, reward, 1.0))
    assert made.pairs == ((0, 2),)


def test_a_table_that_holds_nan_all_the_same_stops_the_run() -> None:
    with pytest.raises(ValueError, match=r"margins\[0\] = nan must be a number"):
        _weigh(_with(), rewards=_rewards(math.nan, 1.0, 2.0))


# An instruction on its way to an example.


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder(build_digits_model(tmp_path_factory.mktemp("model"), seed=0))


def _encode(encoder: PromptEncoder, learner: MmDpo) -> ExampleEncoder:
    return ExampleEncoder(
        encoder,
        learner.needs,
        media_root=Path("/"),
        score_margin=0.0,
        limits=Limits(max_prompt_tokens=99, tokens_per_microbatch=999, share_prompts=True),
        weigh=learner.weigh,
    )


def _instruction(uid: str, **fields: Any) -> Instruction:
    """The second response has no rank, so that places among those that take part are not those in the store."""
    texts, ranks = ("one", "so", "two", "three"), (1, None, 2, 3)
    return Instruction(
        uid=uid,
        split="train",
        messages=({"role": "user", "content": [{"type": "text", "text": f"which {uid} ?"}]},),
        media=(),
        responses=tuple(Response(text=t, rank=r) for t, r in zip(texts, ranks, strict=True)),
        **fields,
    )


def test_rewards_and_log_speak_of_places_in_the_store(encoder: PromptEncoder, caplog: pytest.LogCaptureFixture) -> None:
    row = _instruction("a", side={"reward": _rewards(1.0, 99.0, 0.0, 3.0)})
    made = _encode(encoder, _with(negative_margin="flag"))(row)
    assert isinstance(made, Example)
    assert [s.sample_index for s in made.sequences] == [0, 2, 3]
    assert made.pairs == ((0, 1), (0, 2), (1, 2))
    assert made.margins == (1.0, -2.0, -3.0)
    assert made.betas == pytest.approx((_beta_of(1.0), _BETA, _BETA))
    assert [r.getMessage() for r in caplog.records] == [
        "instruction a: response 1 over 4 has the margin -2.000",
        "instruction a: response 3 over 4 has the margin -3.000",
    ]


def test_factors_speak_of_places_in_the_store(encoder: PromptEncoder) -> None:
    row = _instruction("a", meta={"ls_factor": [[0, 3, 0.5], [0, 1, 7.0], [2, 3, 0.25]]})
    made = _encode(encoder, _with(beta_mode="precomputed_factor"))(row)
    assert isinstance(made, Example)
    assert (made.pairs, made.num_dropped) == (((0, 2), (1, 2)), 1)
    assert made.betas == pytest.approx((_BETA * (1 + _W * 0.5), _BETA * (1 + _W * 0.25)), rel=1e-12)


def test_an_instruction_without_a_pair_is_passed_over_and_named(
    encoder: PromptEncoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = written(tmp_path / "store", [_instruction(uid) for uid in "abc"], group_rows=2)
    table = _reward_table(tmp_path / "rewards", store, {"b": _rewards(1.0, 1.0, 2.0, 3.0)})
    stream = ExampleStream(store, _encode(encoder, _with(negative_margin="drop")), side_tables={"reward": table})
    examples, _, passed_over = stream.take(PromptCursor(num_prompts=3, seed=0), 2)
    assert sorted(e.uid for e in examples) == ["a", "c"]
    told = "instruction b is passed over: every pair of it has a negative margin"
    assert (told in caplog.text) == (passed_over == ["b"])
    _, _, passed_over = stream.take(PromptCursor(num_prompts=3, seed=0), 3)
    assert "b" in passed_over and told in caplog.text


def _reward_table(folder: Path, store: PreferenceStore, rewards: dict[str, tuple[np.ndarray, ...]]) -> SideTable:
    fingerprint = Fingerprint(store="store", model={}, settings={}, limits={})
    table = SideTable(folder, fingerprint=fingerprint, num_shards=len(store.groups))
    for shard in table.missing_shards():
        with table.begin(shard) as writer:
            for row in store.read_group(shard):
                for index, values in enumerate(rewards.get(row.uid, _rewards(4.0, 3.0, 2.0, 1.0))):
                    writer.add(row.uid, index, values)
    return table


# The figures of a step.


def _weighed_example(uid: str, made: WeighedPairs) -> Example:
    plain = example(uid, [[1], [2], [3]], pairs=made.pairs)
    return replace(plain, betas=made.betas, margins=made.margins, num_dropped=made.num_dropped)


def test_the_figures_of_a_step() -> None:
    dropping = _with(negative_margin="drop")
    weighed = [
        _weigh(dropping, rewards=_rewards(1.0, 3.0, 0.5)),
        _weigh(dropping, rewards=_rewards(2.0, None, 1.0)),
    ]
    metrics = beta_figures([_weighed_example(str(i), w) for i, w in enumerate(weighed)])
    betas = [_beta_of(m) for m in (0.5, 2.5, 1.0)]
    assert metrics == pytest.approx(
        {
            "beta/mean": sum(betas) / 3,
            "beta/max": max(betas),
            "data/dropped_pairs": 1.0 + 2.0,
            "margin/mean": (-2.0 + 0.5 + 2.5 + 1.0) / 4,
            "margin/negative_frac": 1 / 4,
        }
    )


def test_figures_that_a_mode_does_not_have_are_left_out() -> None:
    made = _weigh(_with(beta_mode="precomputed_factor"), factors=dict.fromkeys(_PAIRS, 1.0))
    metrics = beta_figures([_weighed_example("a", made)])
    assert metrics.keys() == {"beta/mean", "beta/max", "data/dropped_pairs"}
    assert beta_figures([example("a", [[1], [2]], pairs=((0, 1),))]) == {}


# One β for a step.


def _step_beta(margins: np.ndarray, *, weight: float = 0.1, seed: int = 7, step: int = 3) -> float:
    return _with(margin_weight=weight).step_beta(margins, seed=sample_seed(seed, "implicit beta", 0, step))


def test_the_beta_of_a_step_comes_from_seed_and_step_alone() -> None:
    margins = np.random.default_rng(0).normal(0, 10, 30)
    again = {_step_beta(margins) for _ in range(3)}
    assert len(again) == 1
    others = {_step_beta(margins, step=step) for step in range(20)} | {_step_beta(margins, seed=8)}
    assert len(others) == 21
    assert np.mean(list(others)) == pytest.approx(_BETA, abs=0.02) and min(others) >= 1e-3


def test_a_step_of_one_pair_has_the_base_beta() -> None:
    """MM-RLHF T3: there the standard deviation of one pair is NaN."""
    assert _step_beta(np.array([12.5])) == _BETA
