"""An attempt on its way: sent to its provider, and its answer read, whole or as a stream."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import httpx2

from llm_proxy import answers
from llm_proxy.admission import Place
from llm_proxy.answers import ProviderFailed, ResponseInfo
from llm_proxy.attempt import Attempt
from llm_proxy.failures import (
    AttemptFailed,
    CallRejected,
    classify_error_body,
    classify_exception,
    classify_response,
    reason,
)
from llm_proxy.provider import Provider
from llm_proxy.reading import NotReadable
from llm_proxy.requests import Request
from llm_proxy.stream import Stream
from llm_proxy.summary import summary
from llm_proxy.tokens import Tokens, guess
from o11y.contracts import CallSummary
from o11y.http.transport import nothing_was_sent

_GIVEN_UP = (asyncio.CancelledError, TimeoutError, httpx2.TimeoutException)
"""Ends of an attempt for which nobody knows what its provider goes on to do."""


@dataclass
class WholeResponse:
    """An answer, its body untouched."""

    provider: Provider
    content: bytes
    headers: Mapping[str, str]
    """Headers of the provider's response."""
    summary: CallSummary
    cost_usd: Decimal | None


class Sending:
    """One attempt from its first byte until there is an answer, or none."""

    def __init__(self, request: Request, attempt: Attempt, place: Place) -> None:
        self._request = request
        self._attempt = attempt
        self._place = place
        self._provider = attempt.provider
        self._received = bytearray()
        """The body of a whole answer, as far as it has come."""

    async def answer(self, seconds: float, resends: int) -> WholeResponse | Stream:
        """Send the request, `seconds` at most for the head of the response, and read the answer.

        Raises AttemptFailed and CallRejected, and what is no failure of the provider's.
        """
        try:
            response = await self._send(seconds, resends)
            if self._request.stream and "event-stream" in response.headers.get("content-type", ""):
                return await self._stream(response)
            return await self._whole(response)
        except BaseException as error:
            ended = reason(error)
            self._attempt.end(ResponseInfo(), self._billed_of_partial(error), ended)
            self._place.leave(ended)
            failure = classify_exception(self._provider.title, error)
            if failure is error:
                raise
            raise failure from error

    async def _send(self, seconds: float, resends: int) -> httpx2.Response:
        """A good response's head. Raises what another status means."""
        attempt, provider, request = self._attempt, self._provider, self._request
        body = request.for_provider(attempt.model, provider.settings.stream_usage)
        call, parent = attempt.call(seconds), attempt.inference.context
        response = await provider.send(request.operation.path, body, call, parent, resends)
        attempt.answered(response)
        if attempt.accepted:
            return response
        content = await self._read(response)
        raise classify_response(provider.title, response.status_code, content, response.headers)

    async def _read(self, response: httpx2.Response) -> bytes:
        try:
            async for chunk in response.aiter_bytes():
                self._received += chunk
        finally:
            await response.aclose()
        return bytes(self._received)

    async def _whole(self, response: httpx2.Response) -> WholeResponse:
        content = await self._read(response)
        try:
            info = answers.read(content)
        except ProviderFailed as failed:
            raise classify_error_body(self._provider.title, failed, response.headers) from failed
        if self._request.stream and not info.finish_reasons:
            raise NotReadable(f"{self._provider.title} does not stream")
        attempt = self._attempt
        if attempt.answer:
            attempt.answer.add(content)
        tokens = info.tokens or answers.estimate(content, self._request.input_bytes)
        attempt.end(info, tokens)
        self._place.leave(None)
        attempt.inference.end()
        summed_up = summary(attempt, info, tokens, next(iter(info.finish_reasons), None))
        usd = attempt.inference.usd
        return WholeResponse(self._provider, content, response.headers, summed_up, usd)

    async def _stream(self, response: httpx2.Response) -> Stream:
        provider = self._provider
        stream = Stream(self._request, response, self._attempt, self._place)
        try:
            await stream.begin(provider.settings.first_byte_seconds)
        except ProviderFailed as failed:
            error = classify_error_body(provider.title, failed, response.headers)
            await stream.aclose(reason(error))
            raise error from failed
        except BaseException as error:
            await stream.aclose(reason(error))
            raise
        return stream

    def _billed_of_partial(self, error: BaseException) -> Tokens | None:
        """The tokens that a provider bills for an answer that did not come, or not whole."""
        if self._attempt.accepted:
            if isinstance(error, AttemptFailed | CallRejected):
                return None
            return guess(self._request.input_bytes, len(self._received))
        if isinstance(error, _GIVEN_UP) and not nothing_was_sent(error):
            return self._attempt.unanswered
        return None
