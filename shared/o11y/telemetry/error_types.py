"""`error.type`: why something failed, as a word that programs can group by."""

import asyncio

import httpx2

from o11y.http.transport import nothing_was_sent
from o11y.telemetry import schema
from o11y.web.problems import Problem


def error_type(error: BaseException) -> str:
    """The word for a call that had no answer, or not all of it, or was refused."""
    if nothing_was_sent(error):
        return schema.ERROR_CONNECT
    match error:
        case TimeoutError() | httpx2.TimeoutException():
            return schema.ERROR_TIMEOUT
        case httpx2.NetworkError():
            return schema.ERROR_CONNECTION_LOST
        case httpx2.HTTPError():
            return schema.ERROR_UNREADABLE
        case asyncio.CancelledError() | GeneratorExit():
            return schema.ERROR_CANCELLED
        case Problem():
            return error.code
    return type(error).__qualname__
