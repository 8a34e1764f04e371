"""A streamed answer on its way from a provider to the caller."""

import asyncio
import time
from collections.abc import AsyncGenerator
from decimal import Decimal

import httpx2
import msgspec

from llm_proxy.admission import Place
from llm_proxy.answers import ProviderFailed, ResponseInfo, StreamAccumulator
from llm_proxy.attempt import Attempt
from llm_proxy.failures import NOT_READABLE
from llm_proxy.reading import NotReadable
from llm_proxy.requests import Request
from llm_proxy.summary import summary
from llm_proxy.tokens import Tokens, guess
from o11y.contracts import SUMMARY_FIELD
from o11y.http import deadline
from o11y.http.sse import MAX_EVENT, Splitter, TooLong, data
from o11y.http.transport import END_SECONDS
from o11y.telemetry import schema
from o11y.telemetry.error_types import error_type
from o11y.web.events import Last, LastError, event


class Stream:
    """The events of one attempt. `begin` before the first byte goes to the caller, then `events`.

    The attempt ends with the stream, whoever ends it. It is billed the usage that the provider
    reported; where there is none, an estimate from what was sent and received.
    """

    def __init__(
        self, request: Request, response: httpx2.Response, attempt: Attempt, place: Place
    ) -> None:
        self.provider = attempt.provider
        self.headers = response.headers
        self.attempt = attempt
        self._request = request
        self._response = response
        self._chunks = response.aiter_bytes()
        self._place = place
        self._accumulator = StreamAccumulator(request.answers)
        self._splitter = Splitter()
        self._first: list[bytes] = []
        self._ending: list[bytes] = []
        """`[DONE]`, and what comes after it."""
        self._broken: NotReadable | None = None
        self._begun = False
        self._closed = False

        self.tokens: Tokens | None = None
        """The tokens that are billed, once the stream has ended."""

    @property
    def info(self) -> ResponseInfo:
        return self._accumulator.info

    @property
    def cost_usd(self) -> Decimal | None:
        """US dollars of the call, earlier attempts included; None when a price isn't known."""
        return self.attempt.inference.usd

    async def begin(self, patience_seconds: float) -> None:
        """Wait for the first event with data, at most `patience_seconds` for each piece that comes
        before it: some providers send comments while they work.

        Raises NotReadable, TooLong, httpx2.HTTPError, TimeoutError.
        """
        received = 0
        while not self.attempt.has_arrived:
            async with asyncio.timeout(deadline.limit(patience_seconds)):
                chunk = await anext(self._chunks, b"")
            received += len(chunk)
            if received > MAX_EVENT:
                raise TooLong
            if not chunk:
                raise NotReadable("the LLM provider's stream has no events")
            self._first += self._take(chunk)
            if self._broken:
                raise self._broken
        self._begun = True

    async def events(self, *, summed_up: bool = False) -> AsyncGenerator[bytes, None]:
        """The bytes for the caller, bit by bit; the attempt has ended before the last of them.

        A stream that breaks ends with an error event; after `[DONE]` it can't break any more. With
        `summed_up`, a chunk before `[DONE]`, or after the error, says what is known at the end.
        """
        error: str | None = None
        words = b""
        held = b""
        try:
            async for events in self._passed():
                if self._accumulator.done or self._broken:
                    held += events
                else:
                    yield events
            if self._broken and not self._accumulator.done:
                error = NOT_READABLE
                if not isinstance(self._broken, ProviderFailed):
                    words = _error_event(str(self._broken))
            elif not self._accumulator.finished:
                error = schema.ERROR_CONNECTION_LOST
                words = _error_event("the LLM provider's stream ended before its answer did")
        except (httpx2.HTTPError, TimeoutError, TooLong) as broken:
            if not self._accumulator.done:
                error, words = _broken(broken)
        except (asyncio.CancelledError, GeneratorExit):
            error = schema.ERROR_CANCELLED
            raise
        finally:
            await self.aclose(error)
        summed_up_event = self._summary() if summed_up else b""
        if error:
            yield LastError(held + words + summed_up_event)
        elif last := held + summed_up_event + b"".join(self._ending):
            yield Last(last)

    async def aclose(self, error: str | None = None) -> None:
        """End the attempt and let go of the connection; an answer on its way is cut."""
        if self._closed:
            return
        self._closed = True
        try:
            self._end(error)
            await self._chunks.aclose()
            await self._response.aclose()
        finally:
            self._place.leave(error)
            if self._begun:
                self._end_call(error)

    def _summary(self) -> bytes:
        """A CallSummary in a chunk such as OpenAI's, which has the usage and no choices."""
        reason = next(iter(self._accumulator.reasons.values()), None)
        summed_up = summary(self.attempt, self.info, self.tokens, reason)
        chunk: dict[str, object] = {
            "id": self.info.id or "",
            "object": self._request.operation.chunk,
            "created": int(time.time()),
            "model": summed_up.model,
            "choices": [],
            "usage": summed_up.usage.model_dump(),
            SUMMARY_FIELD: summed_up.model_dump(),
        }
        return event(chunk)

    def _end(self, error: str | None) -> None:
        self._accumulator.end(broken=bool(error))
        reported = self.info.tokens
        if isinstance(self._broken, ProviderFailed) and not self._accumulator.text_bytes:
            self.tokens = reported  # nobody bills an error in an answer's place
        elif reported is None:
            self.tokens = guess(self._request.input_bytes, self._accumulator.text_bytes)
        else:  # a usage that every chunk reports is complete in the last one only
            self.tokens = (
                reported
                if self._accumulator.finished
                else msgspec.structs.replace(reported, estimated=True)
            )
        self.attempt.end(self.info, self.tokens, error)

    def _end_call(self, error: str | None) -> None:
        """End the whole call: no other attempt follows one that has begun to answer."""
        if error:
            self.attempt.inference.fail(error)
        self.attempt.inference.end()

    async def _passed(self) -> AsyncGenerator[bytes, None]:
        if self._first:
            yield b"".join(self._first)
        while not self._broken and (chunk := await anext(self._chunks, b"")):
            if events := self._take(chunk):
                yield events[0] if len(events) == 1 else b"".join(events)
        if rest := self._splitter.rest():  # the last event may lack its blank line
            yield b"".join(self._take(b"\n\n" if rest else b""))

    def _take(self, chunk: bytes) -> list[bytes]:
        """Read the events that end here, and keep those that are the caller's."""
        passed: list[bytes] = []
        arrived = False
        for each in self._splitter.feed(chunk):
            content = data(each)
            if content is None:
                self._keep(each, passed)
                continue
            arrived = True
            try:
                only_usage = self._accumulator.add(content)
            except ProviderFailed as failed:  # in the provider's words
                self._broken = failed
                self._keep(each, passed)
                break
            except NotReadable as unreadable:
                self._broken = unreadable
                break
            if self._accumulator.done:
                self.attempt.complete(END_SECONDS)
            if self.attempt.answer:
                self.attempt.answer.add(content)
            if not only_usage or self._request.include_usage:
                self._keep(each, passed)
        if arrived:
            self.attempt.arrived()
        return passed

    def _keep(self, event: bytes, passed: list[bytes]) -> None:
        (self._ending if self._accumulator.done else passed).append(event)


def _broken(error: Exception) -> tuple[str, bytes]:
    """The `error.type` of what breaks a stream, and the event that tells of it."""
    reason = error_type(error)
    if reason == schema.ERROR_TIMEOUT:
        words = "the LLM provider fell silent, or time is up"
    elif isinstance(error, TooLong):
        words = "an event of the stream has no end"
    else:
        words = "the connection to the LLM provider broke"
    unreadable = reason == schema.ERROR_UNREADABLE or isinstance(error, TooLong)
    return NOT_READABLE if unreadable else reason, _error_event(words)


def _error_event(message: str) -> bytes:
    """An error in the middle of a stream, in the form that OpenAI's clients raise."""
    error = {"message": message, "type": "server_error", "param": None, "code": "stream_broken"}
    return event({"error": error})
