"""What callers are told who find no place."""

import pytest

from inference_svc.pace import Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("every", "sequences", "seconds"),
    [(0.01, 1, 1), (0.5, 5, 3), (2.0, 1, 2), (2.0, 5, 10), (100.0, 5, 60)],
)
def test_the_wait_follows_the_measured_rate(every: float, sequences: int, seconds: int) -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(100):
        pace.ended()
        clock.now += every
    assert pace.seconds_for(sequences) == seconds


def test_nothing_is_known_at_first() -> None:
    pace = Pace()
    assert pace.seconds_for(5) == 1
    pace.ended()
    assert pace.seconds_for(5) == 1


def test_an_engine_that_stalls_makes_callers_wait_longer() -> None:
    clock = Clock()
    pace = Pace(clock)
    for _ in range(10):
        pace.ended()
        clock.now += 1
    clock.now += 90
    assert pace.seconds_for(1) == 10
