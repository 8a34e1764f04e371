"""Failures of the engine: the errors of its callers, and the time to give up."""

import time
from collections import deque
from collections.abc import Callable

from o11y.web.problems import Problem

MOST_FAILURES = 3
WITHIN_SECONDS = 60.0


class EngineFailed(Problem):
    """503: the step a sequence was in failed. `kind` is the error's class, for `error.type`."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error).__qualname__
        first = (str(error).strip() or self.kind).splitlines()[0]
        super().__init__(
            503, f"the engine failed: {first}", code="engine_failed", headers={"Retry-After": "1"}
        )


class StepStalled(Exception):
    """A step that takes longer than ENGINE_STALL_SECONDS. Raised in the engine's thread, so that it
    is made without arguments.
    """

    def __str__(self) -> str:
        return "a step of the engine took longer than ENGINE_STALL_SECONDS allows"


class Stall:
    """The seconds the engine's thread has been at what it does, while this process ran: one that
    was stopped, or a machine that slept, is not a stall.
    """

    def __init__(self, most_between: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = 0.0
        self._most_between = most_between
        self._clock = clock
        self._since: float | None = None
        self._looked = clock()

    def look(self, since: float | None) -> None:
        """To be called at short intervals, with when the thread began; None while it rests. Between
        two calls `most_between` seconds count at the most.
        """
        now = self._clock()
        passed = min(now - self._looked, self._most_between)
        same = since is not None and since == self._since
        self._seconds = self._seconds + passed if same else 0.0
        self._since, self._looked = since, now

    def seconds(self, since: float | None) -> float:
        """Seconds that it has been at what it began then, as far as was looked."""
        return self._seconds if since == self._since else 0.0


class Failures:
    """Counts failures: an engine that fails MOST_FAILURES times within a minute is beyond help."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MOST_FAILURES)

    def beyond_help(self) -> bool:
        """One more failure: is it one too many?"""
        now = self._clock()
        self._times.append(now)
        return len(self._times) == MOST_FAILURES and now - self._times[0] <= WITHIN_SECONDS
