"""Routes that are asked so often that they are spared FastAPI's parsing."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope


class PlainRoute(Route):
    """A route of Starlette for POST in an application of FastAPI.

    FastAPI's router does not name it in the scope, where telemetry looks for its path, and does not
    describe it: `operation` does, as OpenAPI has it.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[[Request], Awaitable[Response]] | ASGIApp,
        operation: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(path, endpoint, methods=["POST"])
        self.operation = operation

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """The match, and what it adds to the scope."""
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}
