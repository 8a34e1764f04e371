"""How long a request may still take, across hops.

A hop sends what is left in seconds (`X-Request-Timeout`), not a wall-clock time, so that clocks
need not agree. Inside a process the deadline is a time of the monotonic clock in a context
variable.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "x-request-timeout"

_deadline: ContextVar[float | None] = ContextVar("o11y_deadline", default=None)


def remaining() -> float | None:
    """Seconds left, never below zero; None when there is no deadline."""
    deadline = _deadline.get()
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def limit(seconds: float) -> float:
    """The shorter of `seconds` and what is left."""
    left = remaining()
    return seconds if left is None else min(seconds, left)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Run the block with at most this many seconds; an earlier deadline stays in force."""
    token = _deadline.set(time.monotonic() + limit(seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


def parse(value: str | None) -> float | None:
    """Seconds of a header; None when it is absent or no number of seconds."""
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
