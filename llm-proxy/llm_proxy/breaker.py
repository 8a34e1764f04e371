"""A circuit breaker: a provider that keeps failing is left alone for a while."""

import time
from collections.abc import Callable
from enum import IntEnum


class State(IntEnum):
    """The state of a breaker, by the number that its gauge shows."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after `failures` failed calls in a row, for `seconds`; then one call may try.

    That call closes it again or opens it anew. Its user decides which calls failed: those with an
    error or silence of the provider's, not those that were wrong themselves.
    """

    def __init__(
        self, failures: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = failures
        self._seconds = seconds
        self._clock = clock
        self._failed = 0
        self._opened: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        if self._opened is None:
            return State.CLOSED
        return State.HALF_OPEN if self.seconds_left() == 0 else State.OPEN

    def seconds_left(self) -> float:
        """Seconds until a call may try; 0 when one may now."""
        if self._opened is None:
            return 0.0
        return max(0.0, self._opened + self._seconds - self._clock())

    def allows(self) -> bool:
        """True: a call may be made, and has to end in one of the three methods below.

        `trying` is true there for a call allowed while the breaker was half open. Calls that began
        before it opened may end in the meantime: of these only a success changes its state.
        """
        match self.state:
            case State.CLOSED:
                return True
            case State.OPEN:
                return False
        if self._trying:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        self._failed = 0
        self._opened = None
        self._trying = False

    def failed(self, trying: bool = False) -> None:
        if trying:
            self._trying = False
        elif self._opened is not None:
            return
        self._failed += 1
        if trying or self._failed >= self._limit:
            self._opened = self._clock()

    def undecided(self, trying: bool = False) -> None:
        """Note the end of a call that shows nothing: its caller left, or the call was wrong."""
        if trying:
            self._trying = False
