"""The circuit breaker: who may call when, and what each end of a call means."""

from collections.abc import Callable

import pytest

from llm_proxy.breaker import Breaker, State

LIMIT = 3
SECONDS = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(LIMIT, SECONDS, clock)


@pytest.fixture
def half_open(breaker: Breaker, clock: Clock) -> Breaker:
    for _ in range(LIMIT):
        breaker.failed()
    clock.now += SECONDS
    return breaker


def test_it_is_closed_until_so_many_calls_in_a_row_have_failed(breaker: Breaker) -> None:
    for _ in range(LIMIT - 1):
        breaker.failed()
    assert (breaker.state, breaker.allows(), breaker.seconds_left()) == (State.CLOSED, True, 0)
    breaker.failed()
    assert (breaker.state, breaker.allows()) == (State.OPEN, False)
    assert breaker.seconds_left() == SECONDS


def test_a_success_between_two_failures_starts_the_count_anew(breaker: Breaker) -> None:
    for _ in range(LIMIT * 3):
        breaker.failed()
        breaker.succeeded()
    assert breaker.state is State.CLOSED


def test_what_tells_nothing_neither_counts_nor_starts_anew(breaker: Breaker) -> None:
    for _ in range(LIMIT - 1):
        breaker.failed()
        breaker.undecided()
    assert breaker.allows()
    breaker.failed()
    assert breaker.state is State.OPEN


def test_it_opens_for_its_time(breaker: Breaker, clock: Clock) -> None:
    for _ in range(LIMIT):
        breaker.failed()
    clock.now += SECONDS - 1
    assert (breaker.state, breaker.allows(), breaker.seconds_left()) == (State.OPEN, False, 1)
    clock.now += 1
    assert (breaker.state, breaker.seconds_left()) == (State.HALF_OPEN, 0)


def test_half_open_it_lets_exactly_one_call_through(half_open: Breaker) -> None:
    assert [half_open.allows() for _ in range(5)] == [True] + [False] * 4


def test_the_one_that_tries_closes_it(half_open: Breaker) -> None:
    assert half_open.allows()
    half_open.succeeded()
    assert (half_open.state, half_open.allows(), half_open.allows()) == (State.CLOSED, True, True)


def test_the_one_that_tries_opens_it_anew_by_one_failure(half_open: Breaker, clock: Clock) -> None:
    assert half_open.allows()
    half_open.failed(trying=True)
    assert (half_open.state, half_open.seconds_left()) == (State.OPEN, SECONDS)
    clock.now += SECONDS
    assert half_open.allows()


def test_after_one_that_told_nothing_the_next_may_try(half_open: Breaker) -> None:
    assert half_open.allows()
    half_open.undecided(trying=True)
    assert [half_open.allows(), half_open.allows()] == [True, False]


def test_once_closed_again_it_takes_as_many_failures_as_before(half_open: Breaker) -> None:
    assert half_open.allows()
    half_open.succeeded()
    for _ in range(LIMIT - 1):
        half_open.failed()
    assert half_open.state is State.CLOSED


@pytest.mark.parametrize("end", [Breaker.failed, Breaker.undecided])
def test_calls_from_before_it_opened_change_nothing_by_failing_late(
    end: Callable[[Breaker], None], half_open: Breaker
) -> None:
    assert half_open.allows()
    end(half_open)
    assert (half_open.state, half_open.allows()) == (State.HALF_OPEN, False)


def test_late_failures_do_not_keep_it_open(breaker: Breaker, clock: Clock) -> None:
    for _ in range(LIMIT):
        breaker.failed()
    clock.now += SECONDS - 1
    breaker.failed()
    assert breaker.seconds_left() == 1
