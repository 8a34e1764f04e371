"""What is left of a request's time."""

import asyncio

import pytest

from o11y.http import deadline


def test_there_is_no_deadline_until_one_is_set() -> None:
    assert deadline.remaining() is None
    assert deadline.limit(7) == 7


@pytest.mark.parametrize(
    ("outer", "inner", "left"),
    [(10, 5, 5), (5, 10, 5), (0, 10, 0), (10, 0, 0), (10, -1, 0)],
)
def test_the_earlier_of_two_deadlines_counts(outer: float, inner: float, left: float) -> None:
    with deadline.within(outer), deadline.within(inner):
        assert deadline.remaining() == pytest.approx(left, abs=0.5)


def test_a_deadline_ends_with_its_block() -> None:
    with deadline.within(10):
        with deadline.within(1):
            pass
        assert deadline.remaining() == pytest.approx(10, abs=0.5)
    assert deadline.remaining() is None


def test_what_is_left_never_grows() -> None:
    with deadline.within(10):
        first = deadline.remaining()
        second = deadline.remaining()
    assert first is not None
    assert second is not None
    assert second <= first <= 10


def test_a_call_is_limited_by_what_is_left() -> None:
    with deadline.within(3):
        assert deadline.limit(7) == pytest.approx(3, abs=0.5)
        assert deadline.limit(1) == 1


async def test_a_task_inherits_the_deadline() -> None:
    async def left() -> float | None:
        return deadline.remaining()

    with deadline.within(4):
        assert await asyncio.create_task(left()) == pytest.approx(4, abs=0.5)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2", 2),
        ("0.25", 0.25),
        ("0", 0),
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("nan", None),
        ("inf", None),
        ("86400", None),
    ],
)
def test_a_header_that_is_no_number_of_seconds_counts_as_absent(
    text: str | None, seconds: float | None
) -> None:
    assert deadline.parse(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "patience", "streaming", "left"),
    [(10, None, 60, 10), (10, 100, 60, 60), (10, 30, 60, 30), (10, 100, 5, 5), (0, 0, 60, 0)],
)
def test_a_stream_takes_as_long_as_it_may_and_its_caller_waits(
    seconds: float, patience: float | None, streaming: float, left: float
) -> None:
    with deadline.within(seconds, patience):
        deadline.stream(streaming)
        assert deadline.remaining() == pytest.approx(left, abs=0.5)
    assert deadline.remaining() is None


def test_a_stream_within_a_shorter_deadline_does_not_outlast_its_callers_patience() -> None:
    with deadline.within(5), deadline.within(10):
        deadline.stream(60)
        assert deadline.remaining() == pytest.approx(5, abs=0.5)


def test_without_a_deadline_a_stream_has_none() -> None:
    deadline.stream(60)
    assert deadline.remaining() is None
