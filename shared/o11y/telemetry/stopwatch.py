"""The duration of an operation, the same on its span and in its metrics."""

import time


class Stopwatch:
    """Runs from its making; a span that has `start_ns` and `end_ns` lasts what was measured.

    The monotonic clock measures, the wall clock only says when it began: it may be set meanwhile.
    """

    __slots__ = ("_began", "start_ns")

    def __init__(self) -> None:
        self._began = time.perf_counter_ns()
        self.start_ns = time.time_ns()

    def seconds(self) -> float:
        """Seconds from its making until now."""
        return (time.perf_counter_ns() - self._began) / 1e9

    def end_ns(self, seconds: float) -> int:
        """The end of what took so long."""
        return self.start_ns + round(seconds * 1e9)
