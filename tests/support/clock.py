"""A clock that tests set."""


class Clock:
    """A time that goes on when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now
