"""When the engine fails: what its callers are told, and when it is time to give up."""

import time
from collections import deque
from collections.abc import Callable

from o11y.problems import Problem

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
