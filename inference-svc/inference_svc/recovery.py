"""Failures of the engine: the errors that callers get, stalls, and when it is time to give up."""

import time
from collections import deque
from collections.abc import Callable

from o11y.web.problems import Problem

MOST_FAILURES = 3
WITHIN_SECONDS = 60.0


class EngineFailed(Problem):
    """The 503 for a sequence whose step failed. `kind` is the error's class, for `error.type`."""

    def __init__(self, error: BaseException) -> None:
        self.kind = type(error).__qualname__
        first = (str(error).strip() or self.kind).splitlines()[0]
        super().__init__(
            503, f"the engine failed: {first}", code="engine_failed", headers={"Retry-After": "1"}
        )


class StepStalled(Exception):
    """A step took longer than ENGINE_STALL_SECONDS. The error has no arguments, since the
    interpreter makes it when it is raised in the engine's thread.
    """

    def __str__(self) -> str:
        return "a step of the engine took longer than ENGINE_STALL_SECONDS allows"


class Stall:
    """Counts the seconds that the engine's thread spends on one piece of work while this process
    runs: a process that was stopped, or a machine that slept, is not a stall.
    """

    def __init__(self, most_between: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = 0.0
        self._most_between = most_between
        self._clock = clock
        self._since: float | None = None
        self._looked = clock()

    def look(self, since: float | None) -> None:
        """Count the time since the last call, `most_between` seconds at most. To be called at short
        intervals, with the time at which the thread began its work; None while it rests.
        """
        now = self._clock()
        passed = min(now - self._looked, self._most_between)
        same = since is not None and since == self._since
        self._seconds = self._seconds + passed if same else 0.0
        self._since, self._looked = since, now

    def seconds(self, since: float | None) -> float:
        """Seconds counted for the work that began at `since`."""
        return self._seconds if since == self._since else 0.0


class Failures:
    """Counts failures: an engine that fails MOST_FAILURES times within a minute is beyond help."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=MOST_FAILURES)

    def beyond_help(self) -> bool:
        """Count one more failure. True: the engine must end."""
        now = self._clock()
        self._times.append(now)
        return len(self._times) == MOST_FAILURES and now - self._times[0] <= WITHIN_SECONDS
