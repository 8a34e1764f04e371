"""The machine that the models run on: who has how much of its time and of its GPU's energy.

Generation and embeddings work side by side. While both do, each has half of every second, so that
what all have had together is what the machine has spent at work.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Spent(NamedTuple):
    """Seconds of the machine, and joules of its GPU; 0 of these where nothing measures them."""

    seconds: float
    joules: float


class Machine:
    """Counts the machine's time at work and at rest, and the energy in each. For any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counted_until = clock()
        self._watts = 0.0
        self._workers = 0
        self._each = self._idle = Spent(0.0, 0.0)

    def begin(self) -> Spent:
        """Note that one more works. The difference between what this returns and a later `each` or
        `end` is what this one has had.
        """
        return self._count(1)

    def end(self) -> Spent:
        """Note that one less works. Returns what `each` does."""
        return self._count(-1)

    def each(self) -> Spent:
        """The share, up to now, of one who has worked whenever anybody did."""
        return self._count(0)

    def idle(self) -> Spent:
        """The time, up to now, in which nobody worked."""
        self._count(0)
        return self._idle

    def draws(self, watts: float) -> None:
        """Note the power from now on."""
        self._count(0)
        self._watts = watts

    def _count(self, change: int) -> Spent:
        with self._lock:
            now = self._clock()
            seconds = (now - self._counted_until) / max(1, self._workers)
            self._counted_until = now
            if self._workers:
                self._each = _more(self._each, seconds, self._watts)
            else:
                self._idle = _more(self._idle, seconds, self._watts)
            self._workers += change
            return self._each


def _more(spent: Spent, seconds: float, watts: float) -> Spent:
    return Spent(spent.seconds + seconds, spent.joules + seconds * watts)


class Meter:
    """Works out a GPU's power from its counter of energy, and tells the machine, `most` watts at
    most: the counter is brought up to date in steps of its own.
    """

    def __init__(self, machine: Machine, most: float) -> None:
        self._machine = machine
        self._most = most
        self._last: tuple[float, float] | None = None

    def read(self, joules: float | None, at: float) -> None:
        """Note what the counter says at a time; None where it says nothing."""
        watts = 0.0
        if joules is not None and self._last and at > self._last[1]:
            watts = (joules - self._last[0]) / (at - self._last[1])
        self._machine.draws(min(max(0.0, watts), self._most))
        self._last = None if joules is None else (joules, at)


class Consumption:
    """The part of one call in the machine's work, which it pays for when it ends.

    It may have left by then what still works for it: that part is paid for as it comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = self._joules = 0.0
        self._pay: Callable[[Spent], None] | None = None

    def add(self, seconds: float, joules: float) -> None:
        with self._lock:
            self._seconds += seconds
            self._joules += joules
            pay = self._pay
        if pay:
            pay(Spent(seconds, joules))

    def settle(
        self, pay: Callable[[Spent], None], pay_later: Callable[[Spent], None] | None = None
    ) -> Spent:
        """Pay for all so far, which is returned, and from now on for what comes, by `pay_later` if
        that is given. That is called in the thread of whoever works.
        """
        with self._lock:
            self._pay = pay_later or pay
            spent = Spent(self._seconds, self._joules)
        pay(spent)
        return spent
