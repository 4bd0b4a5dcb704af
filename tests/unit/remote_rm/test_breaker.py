"""The circuit breaker's three states, with a clock of our own."""

import pytest

from remote_rm.judges.protocol import BreakerOpen, CircuitBreaker


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def breaker(clock: _Clock) -> CircuitBreaker:
    return CircuitBreaker(max_failures=3, reset_s=10.0, clock=clock)


def _fail(breaker: CircuitBreaker, times: int) -> None:
    for _ in range(times):
        breaker.admit()
        breaker.failed()


def test_fewer_failures_than_the_bound_keep_it_closed(breaker: CircuitBreaker) -> None:
    _fail(breaker, 2)
    breaker.admit()


def test_it_opens_at_the_bound_and_says_when_it_tries_again(breaker: CircuitBreaker, clock: _Clock) -> None:
    _fail(breaker, 3)
    clock.now += 4.0
    with pytest.raises(BreakerOpen, match=r"failed 3 times in a row; next trial in 6\.0 s"):
        breaker.admit()


def test_a_success_in_between_starts_the_count_again(breaker: CircuitBreaker) -> None:
    _fail(breaker, 2)
    breaker.succeeded()
    _fail(breaker, 2)
    breaker.admit()


def test_after_the_pause_exactly_one_trial_is_let_through(breaker: CircuitBreaker, clock: _Clock) -> None:
    _fail(breaker, 3)
    clock.now += 10.0
    breaker.admit()
    with pytest.raises(BreakerOpen, match="a trial is under way"):
        breaker.admit()


def test_a_successful_trial_closes_it(breaker: CircuitBreaker, clock: _Clock) -> None:
    _fail(breaker, 3)
    clock.now += 10.0
    breaker.admit()
    breaker.succeeded()
    _fail(breaker, 2)
    breaker.admit()


def test_a_failed_trial_opens_it_for_another_pause(breaker: CircuitBreaker, clock: _Clock) -> None:
    _fail(breaker, 3)
    clock.now += 10.0
    _fail(breaker, 1)
    clock.now += 9.0
    with pytest.raises(BreakerOpen, match=r"next trial in 1\.0 s"):
        breaker.admit()


def test_stragglers_that_fail_after_it_opened_do_not_postpone_the_trial(breaker: CircuitBreaker, clock: _Clock) -> None:
    for _ in range(5):
        breaker.admit()
    for _ in range(3):
        breaker.failed()
    clock.now += 9.0
    breaker.failed()
    breaker.failed()
    clock.now += 1.0
    breaker.admit()
