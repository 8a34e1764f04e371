"""Routes that are asked so often that they are spared FastAPI's parsing."""

from starlette.routing import Match, Route
from starlette.types import Scope


class PlainRoute(Route):
    """A route of Starlette in an application of FastAPI, whose router does not name it in the
    scope: telemetry does by its path.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the route matches, and what the scope is told of it."""
        match, found = super().matches(scope)
        return match, found if match is Match.NONE else {**found, "route": self}
