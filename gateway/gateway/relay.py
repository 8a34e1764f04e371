"""Another service's stream on its way to the caller: whole events, of which the last is marked."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from gateway.service_client import ServiceClient, StreamedResponse
from gateway.service_responses import raise_for_problem
from o11y.http import sse
from o11y.web.events import Last, LastError
from o11y.web.problems import Problem

Ending = Callable[[bytes], type[Last] | None]
"""Function that returns how an event ends its stream; None for an event that doesn't."""


async def begin(client: ServiceClient, path: str, **options: Any) -> StreamedResponse:
    """Open a stream and wait for its head; options as for `ServiceClient.open`.

    Raises Problem for any response that is not a stream of events.
    """
    opened = await client.open("POST", path, **options)
    if "event-stream" not in opened.headers.get("content-type", ""):
        raise_for_problem(await opened.read(), client.service)
        raise Problem(502, f"{client.service}'s answer is no stream", code="bad_upstream")
    return opened


async def relayed(opened: StreamedResponse, ending: Ending) -> AsyncGenerator[list[bytes], None]:
    """Yield the events that came together; a `Last` alone. Raises Problem when the stream breaks.

    The call has ended before the `Last` is yielded. An event within which the stream breaks is
    never yielded.
    """
    splitter = sse.Splitter()
    async with aclosing(opened.chunks()) as chunks:
        async for chunk in chunks:
            try:
                events = splitter.feed(chunk)
            except sse.TooLong as error:
                raise Problem(
                    502, f"{opened.service}'s stream is unreadable", code="bad_upstream"
                ) from error
            for at, each in enumerate(events):
                if last := ending(each):
                    if at:
                        yield events[:at]
                    left = b"".join(events[at + 1 :]) + splitter.rest()
                    yield [last(each + left + await opened.finish())]
                    return
            if events:
                yield events
    if rest := splitter.rest():
        yield [rest]


def openai_ending(event: bytes) -> type[Last] | None:
    """The `Ending` of OpenAI's streams."""
    content = sse.data(event)
    if content is None:
        return None
    if content == b"[DONE]":
        return Last
    return LastError if content.startswith(b'{"error"') else None


def own_ending(event: bytes) -> type[Last] | None:
    """The `Ending` of the streams of this system's own API."""
    if event.startswith(b"event: metadata\n"):
        return Last
    return LastError if event.startswith(b"event: error\n") else None
