"""`error.type`: why something failed, as a word that programs can group by."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2
from opentelemetry.util.genai.invocation import GenAIInvocation
from opentelemetry.util.genai.types import Error

from o11y import schema
from o11y.problems import Problem
from o11y.transport import nothing_was_sent

Invocation = TypeVar("Invocation", bound=GenAIInvocation)


def error_type(error: BaseException) -> str:
    """Of a call that had no answer, or not all of it, or was told what is wrong with it."""
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


@contextmanager
def ended(invocation: Invocation) -> Iterator[Invocation]:
    """Run the block within an invocation of the GenAI utilities, whose own context manager would
    name the error's Python class instead.
    """
    try:
        yield invocation
    except BaseException as error:
        invocation.fail(Error(str(error), error_type(error)))
        raise
    invocation.stop()
