"""Metric labels whose values come from outside."""

OVERFLOW = "_other"
"""The value that stands for every one that has no place."""

LONGEST = 256
"""Most characters of a value: each series has it, and each export of every series."""


class Bounded:
    """Gives a place to the first `limit` values that are accepted; a series lasts for ever.

    What nobody has accepted, as the name of a model that no provider has, takes no place: a caller
    can make up as many as it likes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._placed: set[str] = set()

    def __call__(self, value: str, *, accepted: bool = True) -> str:
        """The label: the value itself, or OVERFLOW."""
        if value in self._placed:
            return value
        if not accepted or len(self._placed) >= self._limit or len(value) > LONGEST:
            return OVERFLOW
        self._placed.add(value)
        return value
