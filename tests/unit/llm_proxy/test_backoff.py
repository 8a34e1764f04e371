"""How long a retry waits: as the provider asks, or longer each time by chance."""

import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx2
import pytest

from llm_proxy.backoff import DAY_SECONDS, FIRST_SECONDS, MOST_SECONDS, asked_for, wait

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(params=["UTC", "Pacific/Auckland"], autouse=True)
def clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is NOW, in a zone that must make no difference."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    monkeypatch.setattr("llm_proxy.backoff.time.time", NOW.timestamp)
    yield
    monkeypatch.undo()
    time.tzset()


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW.timestamp() + seconds, UTC), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "0"}, 0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": " 2 "}, 2),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1),
        ({"Retry-After": http_date(30)}, 30),
        ({"Retry-After": http_date(-30)}, 0),
        ({"Retry-After": "Mon Nov 23 12:00:30 2026"}, 30),
        ({"Retry-After": "Monday, 23-Nov-26 12:00:30 GMT"}, 30),
        ({"Retry-After": "1000000"}, DAY_SECONDS),
        ({"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}, DAY_SECONDS),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"Retry-After": "Mon, 99 Nov 2026 99:99:99 GMT"}, None),
        ({"Retry-After": "Mon, 23 Nov 2026 12:00:00 +999999999"}, None),
    ],
)
def test_a_provider_says_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_for(httpx2.Headers(headers)) == seconds
    if seconds is not None:
        assert wait(9, httpx2.Headers(headers)) == seconds


@pytest.mark.parametrize("headers", [None, {}, {"retry-after": "nonsense"}])
@pytest.mark.parametrize("retry", [0, 1, 4, 5, 10, 1000])
def test_otherwise_the_wait_is_any_up_to_twice_as_long_each_time(
    retry: int, headers: dict[str, str] | None
) -> None:
    random.seed(retry)
    most = min(MOST_SECONDS, FIRST_SECONDS * 2.0**retry)
    waits = [wait(retry, headers) for _ in range(500)]
    assert 0 <= min(waits) < most / 10
    assert most * 0.9 < max(waits) <= most
    assert sum(waits) / len(waits) == pytest.approx(most / 2, rel=0.1)
