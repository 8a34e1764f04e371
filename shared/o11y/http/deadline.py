"""The deadline of a request, across hops.

A hop sends what is left in seconds (`X-Request-Timeout`), not a wall-clock time, so that clocks
need not agree. Inside a process the deadline is a time of the monotonic clock in a context
variable.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

HEADER = "x-request-timeout"

_deadline: ContextVar[tuple[float, float] | None] = ContextVar("o11y_deadline", default=None)
"""The deadline, and until when the caller waits, as times of the monotonic clock."""


def remaining() -> float | None:
    """Seconds left, never below zero; None when there is no deadline."""
    found = _deadline.get()
    return None if found is None else max(0.0, found[0] - time.monotonic())


def limit(seconds: float) -> float:
    """The shorter of `seconds` and what is left."""
    left = remaining()
    return seconds if left is None else min(seconds, left)


@contextmanager
def within(seconds: float, patience: float | None = None) -> Iterator[None]:
    """Run the block with at most this many seconds; an earlier deadline stays in force.

    `patience` is how long the caller would wait; a caller that doesn't say waits `seconds`.
    """
    now = time.monotonic()
    waits = now + (seconds if patience is None else patience)
    outer = _deadline.get()
    if outer is not None:
        waits = min(waits, outer[1])
    token = _deadline.set((now + limit(seconds), waits))
    try:
        yield
    finally:
        _deadline.reset(token)


def stream(seconds: float) -> None:
    """Let the rest of this request take `seconds`, or as long as its caller waits where that is
    less: a stream is read while it is written, and may last longer than anybody would wait for a
    whole answer.
    """
    found = _deadline.get()
    if found is not None:
        _deadline.set((min(time.monotonic() + seconds, found[1]), found[1]))


def parse(value: str | None) -> float | None:
    """Seconds of a header; None when it is absent or no number of seconds."""
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < 86_400 else None
