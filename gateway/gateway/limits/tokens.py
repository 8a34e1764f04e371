"""The tokens that the current request has used, for its limits: told where they become known."""

from contextvars import ContextVar


class TokensUsed:
    """A sum that grows while a request is answered."""

    def __init__(self) -> None:
        self.total = 0
        self.is_known = False


_current: ContextVar[TokensUsed | None] = ContextVar("tokens_used", default=None)


def begin() -> TokensUsed:
    """Count the tokens of this request from now on."""
    used = TokensUsed()
    _current.set(used)
    return used


def end() -> None:
    """Count no more in this context."""
    _current.set(None)


def is_counted() -> bool:
    """True where a limit of tokens holds for the current request."""
    return _current.get() is not None


def add(tokens: int) -> None:
    """Count tokens of the current request, where they count."""
    used = _current.get()
    if used is not None:
        used.total += tokens
        used.is_known = True
