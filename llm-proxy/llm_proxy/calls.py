"""A call to a model: its attempts at the providers, one after the other, until one answers."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

import httpx2
from opentelemetry.metrics import Observation

from llm_proxy import answers, backoff
from llm_proxy.answers import NotReadable, ProviderFailed, ResponseInfo, Tokens
from llm_proxy.attempt import Attempt
from llm_proxy.breaker import State
from llm_proxy.failures import (
    BUSY,
    NOT_READABLE,
    OPEN,
    AttemptFailed,
    CallRejected,
    classify_error_body,
    classify_response,
    client_error,
)
from llm_proxy.inference import Inference
from llm_proxy.meters import Meters
from llm_proxy.provider import Provider
from llm_proxy.requests import Request
from llm_proxy.routing import Candidate, Routing
from llm_proxy.stream import Stream
from o11y.http import deadline
from o11y.http.sse import TooLong
from o11y.http.transport import nothing_was_sent
from o11y.telemetry import schema
from o11y.telemetry.error_types import error_type
from o11y.telemetry.signals import Telemetry
from o11y.web.problems import Problem, out_of_time

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 5.0
"""Longest wait for a provider that asks to be left alone while another one could answer."""

LAST_PATIENCE_SECONDS = 30.0
"""Longest Retry-After honoured at the last provider; beyond it the 429 goes to the caller."""

_BREAKING = frozenset(
    {schema.ERROR_CONNECT, schema.ERROR_CONNECTION_LOST, schema.ERROR_TIMEOUT, NOT_READABLE}
)
"""Failures, beside statuses from 500, that say that a provider is not well."""


@dataclass
class WholeResponse:
    """An answer, its body untouched."""

    provider: Provider
    content: bytes
    headers: Mapping[str, str]
    """Headers of the provider's response."""
    cost_usd: Decimal | None


class Calls:
    """Makes calls and tells telemetry of every attempt."""

    def __init__(self, routing: Routing, telemetry: Telemetry, times_chunks: bool = False) -> None:
        self.routing = routing
        self.meters = Meters(telemetry, routing.providers, times_chunks)
        self._retries = telemetry.counter(schema.OPENAI_RETRIES)
        self._fallbacks = telemetry.counter(schema.OPENAI_FALLBACKS)
        telemetry.observable_gauge(schema.OPENAI_CIRCUIT, self._observe_circuits)

    async def make(self, request: Request) -> "WholeResponse | Stream":
        """The answer of the first provider that has one.

        Raises CallRejected when the call itself is wrong or every provider is too busy, and a
        Problem when none could answer.
        """
        candidates = await self.routing.candidates(request)
        provider, model = candidates[0]
        call = _Call(self, request, Inference(self.meters, request, provider, model))
        try:
            for at, candidate in enumerate(candidates):
                provider = candidate[0]
                answer = await call.ask(candidate, alone=at + 1 == len(candidates))
                if answer is not None:
                    return answer
                if at + 1 < len(candidates):
                    self._fall_back(provider, candidates[at + 1][0], call.failures[-1])
            raise client_error(call.failures)
        except BaseException as error:
            if isinstance(error, CallRejected):
                error.provider = provider.name
            call.failed(error)
            raise

    def _fall_back(self, provider: Provider, following: Provider, failure: AttemptFailed) -> None:
        logger.warning("%s; trying %s", failure.detail, following.name)
        self._fallbacks.add(
            1,
            {
                schema.LABEL_PROVIDER: provider.name,
                schema.LABEL_NEXT: following.name,
                schema.LABEL_REASON: failure.error,
            },
        )

    def count_retry(self, provider: Provider, failure: AttemptFailed) -> None:
        self._retries.add(
            1, {schema.LABEL_PROVIDER: provider.name, schema.LABEL_REASON: failure.error}
        )

    def _observe_circuits(self) -> Iterable[Observation]:
        for provider in self.routing.providers:
            yield Observation(provider.breaker.state, {schema.LABEL_PROVIDER: provider.name})


class _Call:
    """One call in progress, and how its attempts failed."""

    def __init__(self, calls: Calls, request: Request, inference: Inference) -> None:
        self.failures: list[AttemptFailed] = []
        self._calls = calls
        self._request = request
        self._inference = inference

    def failed(self, error: BaseException) -> None:
        """No attempt gave an answer, and this is what the caller is told."""
        last = self.failures[-1].error if self.failures else ""
        is_client_error = isinstance(error, Problem) and last
        self._inference.fail(last if is_client_error else _reason(error), str(error))
        self._inference.end()

    async def ask(self, candidate: Candidate, alone: bool) -> WholeResponse | Stream | None:
        """One provider, several times if need be. `alone` when there is no other to ask."""
        provider, model = candidate
        self._inference.asks(provider, model)
        retry = 0
        while True:
            try:
                return await self._try(provider, model, retry, alone)
            except AttemptFailed as failure:
                self.failures.append(failure)
                if not failure.again or retry == provider.settings.retries:
                    return None
                wait = backoff.wait(retry, failure.headers)
                patience = LAST_PATIENCE_SECONDS if alone else PATIENCE_SECONDS
                left = deadline.remaining()
                if (left is not None and wait >= left) or wait > patience:
                    return None
                await asyncio.sleep(wait)
                self._calls.count_retry(provider, failure)
                retry += 1

    async def _try(
        self, provider: Provider, model: str, retry: int, alone: bool
    ) -> WholeResponse | Stream:
        """One attempt. Raises AttemptFailed, CallRejected, or a Problem when no time is left."""
        if deadline.remaining() == 0:
            late = out_of_time(f"no time left to call {provider.title}")
            raise client_error(self.failures) if self.failures else late
        ending = await self._admitted(provider, alone)
        attempt = Attempt(self._calls.meters, self._inference, self._request, provider, model)
        received = bytearray()
        try:
            response = await self._send(provider, model, attempt, received, alone, retry)
            if self._request.stream:
                return await self._stream(provider, response, attempt, ending)
            return await self._whole(provider, response, attempt, ending, received)
        except BaseException as error:
            reason = _reason(error)
            attempt.end(ResponseInfo(), self._billed_of_partial(attempt, received, error), reason)
            ending(reason)
            explained = _explained(provider, error)
            if explained is error:
                raise
            raise explained from error

    async def _admitted(self, provider: Provider, alone: bool) -> "_Ending":
        """A place among the calls at a provider that is well. Raises AttemptFailed."""
        await self._take_slot(provider, alone)
        if provider.breaker.allows():
            return _Ending(provider)
        provider.slots.release()
        wait = max(1.0, provider.breaker.seconds_left())
        raise AttemptFailed(
            provider.title,
            OPEN,
            f"{provider.title} is left alone after failing",
            again=False,
            headers={"retry-after": f"{wait:.3f}"},
        )

    def _billed_of_partial(
        self, attempt: Attempt, received: bytearray, error: BaseException
    ) -> Tokens | None:
        """The tokens that a provider bills for a good answer that did not come whole."""
        if not attempt.accepted or isinstance(error, AttemptFailed | CallRejected):
            return None
        return answers.guess(self._request.input_bytes, len(received))

    async def _take_slot(self, provider: Provider, alone: bool) -> None:
        """A place among the calls at the provider: at once, or in a while if it is the last."""
        if provider.slots.locked():
            wait = deadline.limit(provider.settings.queue_seconds) if alone else 0.0
            try:
                async with asyncio.timeout(wait):
                    await provider.slots.acquire()
                    return
            except TimeoutError:
                raise AttemptFailed(
                    provider.title,
                    BUSY,
                    f"{provider.title} has as many calls as it may have",
                    again=False,
                    headers={"retry-after": "1"},
                ) from None
        await provider.slots.acquire()

    async def _send(
        self,
        provider: Provider,
        model: str,
        attempt: Attempt,
        received: bytearray,
        alone: bool,
        retry: int,
    ) -> httpx2.Response:
        """A good answer's head. Raises what its status means otherwise.

        Where another provider may be asked it gets half of the time that is left.
        """
        settings, request = provider.settings, self._request
        seconds = deadline.limit(settings.first_byte_seconds)
        if not alone and (left := deadline.remaining()) is not None:
            seconds = min(seconds, left / 2)
        body = request.for_provider(model, settings.stream_usage)
        call = attempt.call(seconds)
        response = await provider.send(request.path, body, call, self._inference.context, retry)
        attempt.answered(response)
        if attempt.accepted:
            return response
        try:
            content = await _read(response, received)
        finally:
            await response.aclose()
        raise classify_response(provider.title, response.status_code, content, response.headers)

    async def _whole(
        self,
        provider: Provider,
        response: httpx2.Response,
        attempt: Attempt,
        ending: "_Ending",
        received: bytearray,
    ) -> WholeResponse:
        try:
            content = await _read(response, received)
            info = answers.read(content)
        except ProviderFailed as failed:
            raise classify_error_body(provider.title, failed, response.headers) from failed
        finally:
            await response.aclose()
        if attempt.answer:
            attempt.answer.add(content)
        attempt.end(info, info.tokens or answers.estimate(content, self._request.input_bytes))
        ending(None)
        self._inference.end()
        return WholeResponse(provider, content, response.headers, self._inference.usd)

    async def _stream(
        self, provider: Provider, response: httpx2.Response, attempt: Attempt, ending: "_Ending"
    ) -> Stream:
        stream = Stream(provider, self._request, response, attempt, ending)
        try:
            if "event-stream" not in response.headers.get("content-type", ""):
                raise NotReadable(f"{provider.title} does not stream")
            async with asyncio.timeout(deadline.limit(provider.settings.first_byte_seconds)):
                await stream.begin()
        except ProviderFailed as failed:
            error = classify_error_body(provider.title, failed, response.headers)
            await stream.aclose(_reason(error))
            raise error from failed
        except BaseException as error:
            await stream.aclose(_reason(error))
            raise
        return stream


class _Ending:
    """Ends an attempt's stay at its provider, once: the place is free, the breaker knows."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._trying = provider.breaker.state is not State.CLOSED
        self._began = time.monotonic()
        self._ended = False

    def __call__(self, reason: str | None) -> None:
        if self._ended:
            return
        self._ended = True
        self._provider.slots.release()
        breaker = self._provider.breaker
        if reason is None:
            breaker.succeeded()
        elif reason == schema.ERROR_TIMEOUT and self._was_hurried():
            breaker.undecided(self._trying)
        elif reason in _BREAKING or (reason.isdecimal() and int(reason) >= 500):
            breaker.failed(self._trying)
        elif reason.isdecimal() and reason != "429":
            breaker.succeeded()
        else:
            breaker.undecided(self._trying)

    def _was_hurried(self) -> bool:
        """True if the caller's time was up when the provider had hardly had its own: callers say
        how long they wait, and must not take a provider away from the others by waiting too little.
        """
        took = time.monotonic() - self._began
        return deadline.remaining() == 0 and took < self._provider.settings.first_byte_seconds / 2


async def _read(response: httpx2.Response, received: bytearray) -> bytes:
    """The whole body; what came is in `received` even where it breaks off."""
    async for chunk in response.aiter_bytes():
        received += chunk
    return bytes(received)


def _reason(error: BaseException) -> str:
    """`error.type` of an attempt."""
    match error:
        case AttemptFailed():
            return error.error
        case CallRejected():
            return str(error.status)
        case NotReadable() | TooLong():
            return NOT_READABLE
    reason = error_type(error)
    return NOT_READABLE if reason == schema.ERROR_UNREADABLE else reason


def _explained(provider: Provider, error: BaseException) -> BaseException:
    """Turn what goes wrong on the way into a failure that another attempt may make good."""
    match error:
        case _ if nothing_was_sent(error):
            detail, again = f"{provider.title} can't be reached", True
        case httpx2.NetworkError():
            detail, again = f"{provider.title} closed the connection", True
        case TimeoutError() | httpx2.TimeoutException():
            detail, again = f"{provider.title} did not answer in time", False
        case NotReadable() | httpx2.HTTPError() | TooLong():
            detail, again = f"{provider.title}'s answer can't be read: {error}", False
        case _:
            return error
    return AttemptFailed(provider.title, _reason(error), detail, again=again)
