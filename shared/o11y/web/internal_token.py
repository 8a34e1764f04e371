"""The token that services of one installation know each other by.

What stands behind the gateway believes what it is told of a caller; with a token it is told so by
the gateway alone.
"""

import hmac

from pydantic import SecretStr
from starlette.types import ASGIApp, Receive, Scope, Send

from o11y.web import problems
from o11y.web.problems import Problem

INTERNAL_TOKEN = "X-Internal-Token"
"""The header with the token."""

_HEADER = INTERNAL_TOKEN.lower().encode()


def sent(token: SecretStr | None) -> dict[str, str]:
    """The header of requests to a service of ours; none without a token."""
    return {INTERNAL_TOKEN: token.get_secret_value()} if token else {}


def is_token(given: bytes, token: SecretStr) -> bool:
    """True for the token; it takes as long for any other text of its length."""
    return hmac.compare_digest(given, token.get_secret_value().encode())


class InternalTokenMiddleware:
    """Answers 401 to a request that doesn't bring the token, once."""

    def __init__(self, app: ASGIApp, token: SecretStr) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = [value for name, value in scope["headers"] if name == _HEADER]
            if len(given) != 1 or not is_token(given[0], self._token):
                asks = {"WWW-Authenticate": "Internal"}
                words = "this service answers the gateway"
                problem = Problem(401, words, code="internal", headers=asks)
                await problems.answer(problem, scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)
