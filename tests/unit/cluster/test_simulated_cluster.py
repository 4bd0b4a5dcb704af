"""The simulated cluster against closed forms, and what must hold whatever is drawn."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.simulated_cluster import Cluster, Outcome, Setting

_PLAIN = Setting(
    num_engines=1,
    slots=4,
    token_seconds=lambda running, context: 0.01,
    prefill_s=0.0,
    prompt=100,
    window=64,
    prompts_per_step=8,
    driver_s=0.0,
    driver_after_s=0.0,
    learn_s=0.0,
    sync_s=0.0,
    colocated=True,
)


def _run(setting: Setting, groups: list[list[int]], *, steps: int = 1, latency: float = 0.0) -> Outcome:
    return Cluster(setting, groups, lambda group, sample: latency, steps=steps).run()


def test_one_engine_with_equal_lengths_runs_in_waves() -> None:
    """8 prompts x 2 samples in 4 slots are 4 waves of 50 tokens."""
    done = _run(_PLAIN, [[50, 50]] * 8)
    assert done.step_s == pytest.approx(4 * 50 * 0.01)
    assert done.engines_busy_s == pytest.approx(done.step_s)


def test_a_token_takes_as_long_as_its_batch_says() -> None:
    """Two sequences of 10 and 30 tokens: 10 steps of two, 20 of one; context grows from the prompt on."""
    paced = replace(_PLAIN, prompts_per_step=1, token_seconds=lambda running, context: running + context / 1000)
    done = _run(paced, [[10, 30]])
    assert done.step_s == pytest.approx(10 * (2 + 0.105) + 20 * (1 + 0.120))


def test_every_part_of_a_step_adds_up() -> None:
    setting = replace(_PLAIN, slots=16, prefill_s=0.5, driver_s=0.25, driver_after_s=0.125, learn_s=7.0, sync_s=3.0)
    done = _run(setting, [[50, 50]] * 8, latency=2.0)
    # 8 prompts read, 50 tokens, 16 completions one after the other, the last one's reward, 16 more, learning, sync.
    assert done.step_s == pytest.approx(8 * 0.5 + 50 * 0.01 + 16 * 0.25 + 2.0 + 16 * 0.125 + 7.0 + 3.0)
    assert done.driver_busy_s == pytest.approx(16 * 0.375)


def test_the_driver_is_a_queue_with_one_server() -> None:
    """Completions that arrive every 1 s find it free at 0.4 s each, and behind by 0.5 s more each at 1.5 s."""
    lengths = [[100 * (i + 1)] for i in range(8)]
    free, behind = (_run(replace(_PLAIN, slots=8, driver_s=s), lengths) for s in (0.4, 1.5))
    assert free.step_s == pytest.approx(8.0 + 0.4)
    assert behind.step_s == pytest.approx(1.0 + 8 * 1.5)


def test_a_random_stream_waits_at_the_driver_as_queueing_theory_says() -> None:
    """M/D/1: mean wait rho / (2 (1 - rho)) services (Pollaczek 1930), here by an engine for each arrival."""
    import numpy as np

    rho, service, number = 0.7, 0.01, 40_000
    arrivals = np.cumsum(np.random.default_rng(0).exponential(service / rho, number))
    arrived: list[float] = []

    class Timed(Cluster):
        def _arrived(self, engine: object, group: int, sample: int) -> None:
            arrived.append(self.now)
            super()._arrived(engine, group, sample)  # type: ignore[arg-type]

    setting = replace(
        _PLAIN, slots=number, prompts_per_step=number, driver_s=service, token_seconds=lambda running, context: 1e-6
    )
    lengths = [[max(1, round(t / 1e-6))] for t in arrivals]
    Timed(setting, lengths, lambda group, sample: 0.0, steps=1).run()
    waited = (np.array(arrived) - np.sort([g[0] * 1e-6 for g in lengths]) - service).mean()
    assert waited == pytest.approx(service * rho / (2 * (1 - rho)), rel=0.08)


def test_a_window_larger_than_its_share_leaves_engines_without_work() -> None:
    """64 prompts on 8 engines: handed out 64 at a time, one engine has all of them."""
    setting = replace(_PLAIN, num_engines=8, slots=64, prompts_per_step=64)
    shared, alone = (_run(replace(setting, window=w), [[50]] * 64) for w in (8, 64))
    assert alone.engines_busy_s == pytest.approx(0.5)
    assert shared.engines_busy_s == pytest.approx(8 * 0.5)


def test_ahead_by_a_step_only_the_longer_side_counts() -> None:
    setting = replace(_PLAIN, slots=64, learn_s=3.0, colocated=False, staleness=0)
    groups = [[500]] * 8
    in_turn, ahead = (_run(replace(setting, staleness=s), groups, steps=6) for s in (0, 1))
    assert in_turn.step_s == pytest.approx(5.0 + 3.0)
    assert ahead.step_s == pytest.approx(5.0)


def test_partial_rollouts_do_not_wait_for_the_longest() -> None:
    setting = replace(_PLAIN, num_engines=4, slots=8, window=2, prompts_per_step=16, learn_s=0.1)
    groups = [[2000 if i % 16 == 3 else 50] for i in range(96)]
    whole, partial = (_run(replace(setting, partial=p), groups, steps=6) for p in (False, True))
    assert partial.step_s < 0.6 * whole.step_s


_settings = st.builds(
    replace,
    st.just(_PLAIN),
    num_engines=st.integers(1, 5),
    slots=st.integers(1, 6),
    window=st.integers(1, 12),
    prompts_per_step=st.integers(1, 10),
    prefill_s=st.sampled_from([0.0, 0.3]),
    driver_s=st.sampled_from([0.0, 0.05]),
    driver_after_s=st.sampled_from([0.0, 0.02]),
    learn_s=st.sampled_from([0.0, 2.0]),
    sync_s=st.sampled_from([0.0, 0.5]),
    colocated=st.booleans(),
    staleness=st.integers(0, 2),
    partial=st.booleans(),
)


@settings(max_examples=200, deadline=None)
@given(
    setting=_settings,
    groups=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=4), min_size=1, max_size=20),
    steps=st.integers(1, 4),
    latency=st.sampled_from([0.0, 0.7]),
)
def test_every_completion_arrives_once_and_every_group_is_learned_from_once(
    setting: Setting, groups: list[list[int]], steps: int, latency: float
) -> None:
    done = _run(setting, groups, steps=steps, latency=latency)
    learned = [group for step in done.consumed for group in step]
    assert len(done.step_ends) == len(done.consumed) == steps
    assert len(learned) == len(set(learned)) == steps * setting.prompts_per_step
    assert max(Counter(done.completions).values()) == 1
    wanted = {(group, sample) for group in learned for sample in range(len(groups[group % len(groups)]))}
    assert wanted <= set(done.completions)
    assert setting.partial or wanted == set(done.completions)
    assert done.step_ends == sorted(done.step_ends)
    whole = done.step_ends[-1]
    assert done.engines_busy_s <= setting.num_engines * whole + 1e-6
    assert done.driver_busy_s + (0 if setting.staleness or setting.partial else done.learning_s) <= whole + 1e-6
