"""The rate at which sequences end, for the `Retry-After` of a call that finds no place."""

import math
import time
from collections import deque
from collections.abc import Callable

REMEMBERED = 64
MOST_SECONDS = 60


class Pace:
    """The rate at which the last sequences ended, up to now: while an engine stalls, it falls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: deque[float] = deque(maxlen=REMEMBERED)

    def ended(self) -> None:
        self._ends.append(self._clock())

    def seconds_for(self, sequences: int) -> int:
        """Seconds (whole, 1 to 60) until `sequences` more end; 1 while nothing is known."""
        if len(self._ends) < 2:
            return 1
        took = (self._clock() - self._ends[0]) / len(self._ends)
        return min(MOST_SECONDS, max(1, math.ceil(took * sequences)))
