"""A place for an attempt among the calls at a provider that is well."""

import asyncio
import time

from llm_proxy.breaker import State
from llm_proxy.failures import BUSY, NOT_READABLE, OPEN, AttemptFailed
from llm_proxy.provider import Provider
from o11y.http import deadline
from o11y.telemetry import schema

NOT_SENT = "not_sent"
"""The end of an attempt that was not made: it says nothing of its provider."""

_BREAKING = frozenset(
    {schema.ERROR_CONNECT, schema.ERROR_CONNECTION_LOST, schema.ERROR_TIMEOUT, NOT_READABLE}
)
"""Failures, beside statuses from 500, that say that a provider is not well."""


async def admit(provider: Provider, *, is_last: bool) -> "Place":
    """Take a place at the provider; one that `is_last` in the list is waited for, since no other
    could answer.

    Raises AttemptFailed when no place is free, or the circuit is open.
    """
    await _take_slot(provider, provider.settings.queue_seconds if is_last else 0.0)
    if provider.breaker.allows():
        return Place(provider)
    provider.slots.release()
    wait = max(1.0, provider.breaker.seconds_left())
    detail = f"{provider.title} is left alone after failing"
    raise _refused(provider, OPEN, detail, f"{wait:.3f}")


async def _take_slot(provider: Provider, seconds: float) -> None:
    if not provider.slots.locked():
        await provider.slots.acquire()
        return
    try:
        async with asyncio.timeout(deadline.limit(seconds)):
            await provider.slots.acquire()
    except TimeoutError:
        detail = f"{provider.title} has as many calls as it may have"
        raise _refused(provider, BUSY, detail, "1") from None


def _refused(provider: Provider, error: str, detail: str, retry_after: str) -> AttemptFailed:
    headers = {"retry-after": retry_after}
    return AttemptFailed(provider.title, error, detail, again=False, headers=headers)


class Place:
    """The stay of an attempt at its provider."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._trying = provider.breaker.state is not State.CLOSED
        self._began = time.monotonic()
        self._left = False

    def leave(self, error: str | None) -> None:
        """End the stay, once: the place is free, and the breaker knows how the attempt ended.

        `error` is the attempt's `error.type`.
        """
        if self._left:
            return
        self._left = True
        self._provider.slots.release()
        breaker = self._provider.breaker
        if error is None:
            breaker.succeeded()
        elif error == schema.ERROR_TIMEOUT and self._was_hurried():
            breaker.undecided(self._trying)
        elif error in _BREAKING or (error.isdecimal() and int(error) >= 500):
            breaker.failed(self._trying)
        elif error.isdecimal() and error != "429":
            breaker.succeeded()
        else:
            breaker.undecided(self._trying)

    def _was_hurried(self) -> bool:
        """True if the caller's time was up when the provider had hardly had its own: callers say
        how long they wait, and must not take a provider away from the others by waiting too little.
        """
        took = time.monotonic() - self._began
        return deadline.remaining() == 0 and took < self._provider.settings.first_byte_seconds / 2
