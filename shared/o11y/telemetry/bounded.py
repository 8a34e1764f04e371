"""Metric labels whose values come from outside."""

OVERFLOW = "_other"
"""The value that stands for every one above the limit."""


class Bounded:
    """Lets the first `limit` different values through; every series costs memory for ever."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._seen:
            return value
        if len(self._seen) >= self._limit:
            return OVERFLOW
        self._seen.add(value)
        return value
