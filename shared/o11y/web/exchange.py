"""A request and how far its response is, as the middlewares around an application share it."""

from starlette.types import Message, Scope

from o11y.telemetry.stopwatch import Stopwatch

_KEY = "exchange"


class Exchange:
    """One request and its response: it begins with the first middleware, which puts it in the
    request's state.
    """

    __slots__ = ("error", "method", "started", "status", "watch")

    def __init__(self, scope: Scope, method: str) -> None:
        self.method = method
        """The method as telemetry names it: `_OTHER` for an unusual one."""
        self.watch = Stopwatch()
        self.status = 500
        """The status that was sent, or 500 where none was."""
        self.started = False
        """True once a status was sent."""
        self.error: str | None = None
        """The `error.type` of what went wrong beside the status."""
        scope.setdefault("state", {})[_KEY] = self

    def fail(self, error: str) -> None:
        """Give the exchange an `error.type`; the first one stays."""
        if self.error is None:
            self.error = error


def exchange_of(scope: Scope) -> Exchange:
    """The exchange a scope belongs to."""
    exchange: Exchange = scope["state"][_KEY]
    return exchange


def is_last(message: Message) -> bool:
    """True for the message that completes a response."""
    return message["type"] == "http.response.body" and not message.get("more_body")


def route_of(scope: Scope) -> str | None:
    """The path of the route that matched a request."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path
