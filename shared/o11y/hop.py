"""The client of one downstream service: context, deadline, balancing, one CLIENT span an attempt.

Spans and metrics follow the HTTP client conventions (semconv http/http-spans#http-client), with the
path as `url.template`: paths of these services hold no ids. `server.address` is the replica's.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

import msgspec
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from pydantic import BaseModel
from yarl import URL

from o11y import deadline, schema
from o11y.answer import Answer, parsed
from o11y.balancer import Balancer, Replica, as_is, resolve
from o11y.error_types import error_type
from o11y.http1 import Http1Wire
from o11y.instruments import BoundHistogram, Labels
from o11y.problems import Problem, out_of_time, unavailable
from o11y.stopwatch import Stopwatch
from o11y.telemetry import Telemetry
from o11y.wire import Broken, Reply, Unreadable, Unsent, Wire, authority

UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""A parent that isn't recorded (W3C Trace Context): what it calls isn't either."""

M = TypeVar("M", bound=BaseModel)

CONNECT_SECONDS = 2.0
ATTEMPTS = 3

FOR_THE_WAY_BACK = 0.05
"""The share of the time left, and at most this many seconds, that is not handed on: a service out
of time should still get to say so before its caller stops to listen.
"""

END_SECONDS = 1.0
"""How long the end of an answer is waited for that has said all it has to say."""

JSON = {"content-type": "application/json"}


class Opened:
    """An answer whose head has come. Its span, and its place at the replica, end with it."""

    def __init__(self, service: str, path: str, reply: Reply, attempt: "_Attempt") -> None:
        self.status_code = reply.status
        self.headers = reply.headers
        self.service = service
        self._path = path
        self._reply = reply
        self._attempt = attempt
        self._complete = False

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Problem when it breaks or time is up."""
        try:
            while True:
                async with asyncio.timeout(deadline.remaining()):
                    chunk = await self._reply.chunk()
                if not chunk:
                    self._complete = True
                    break
                yield chunk
        except BaseException as error:
            self._attempt.end(error_type(error))
            problem = self._as_problem(error)
            if problem is None:
                raise
            raise problem from error
        finally:
            self.close()

    async def read(self) -> bytes:
        """The whole body. Raises Broken, Unreadable or TimeoutError."""
        try:
            async with asyncio.timeout_at(self._attempt.until):
                content = await self._reply.read()
            self._complete = True
            return content
        except BaseException as error:
            self._attempt.end(error_type(error))
            raise
        finally:
            self.close()

    async def finish(self) -> bytes:
        """Read what is left of an answer that has said what was to be said, and end the call.

        It is complete: whether and how its end comes makes no difference.
        """
        rest = b""
        if not self._attempt.ended:
            with contextlib.suppress(Broken, Unreadable, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    while chunk := await self._reply.chunk():
                        rest += chunk
            self._complete = True
            self.close()
        return rest

    def close(self) -> None:
        """End the call; an answer that has not ended is cut."""
        self._reply.close()
        self._attempt.end(None if self._complete else schema.ERROR_CANCELLED)

    def _as_problem(self, error: BaseException) -> Problem | None:
        match error:
            case TimeoutError():
                return out_of_time(f"{self.service} did not end {self._path} in time")
            case Broken() | Unreadable():
                return unavailable(f"{self.service} closed the connection")
        return None


class ServiceClient:
    """HTTP to one service by its base URL, spread over its replicas.

    A call takes at most `timeout` seconds or what is left of the request's deadline. A connection
    that can't be made is tried again, at another replica where there is one; a connection that
    breaks only for calls that are idempotent.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        telemetry: Telemetry,
        timeout: float,
        wire: Wire | None = None,
    ) -> None:
        self.service = service
        self.timeout = timeout
        self._base = URL(base_url.rstrip("/"))
        self._public_url = str(self._base.with_user(None))
        self._authority = authority(self._base)
        self._balancer = Balancer(str(self._base), as_is if wire else resolve)
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.HTTP_CLIENT_DURATION)
        self._known: dict[tuple[object, ...], BoundHistogram] = {}
        self._wire = wire or Http1Wire(CONNECT_SECONDS)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        """Send one call and return the answer whatever its status; options as for `open`."""
        opened, content = await self._send(method, path, read=True, **options)
        return Answer(opened.status_code, opened.headers, content)

    async def open(self, method: str, path: str, **options: Any) -> Opened:
        """Send one call and return when the head of its answer is here.

        `json` or `content` is the body. `idempotent` says that doing it twice is doing it once; by
        default a GET is. Raises Problem 503 when the service can't be reached and 504 when time is
        up.
        """
        opened, _ = await self._send(method, path, read=False, **options)
        return opened

    async def _send(
        self,
        method: str,
        path: str,
        *,
        read: bool,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        seconds: float | None = None,
        idempotent: bool | None = None,
    ) -> tuple[Opened, bytes]:
        repeatable = method == "GET" if idempotent is None else idempotent
        if json is not None:
            content, headers = msgspec.json.encode(json), {**JSON, **(headers or {})}
        tried: list[Replica] = []
        while True:
            left = deadline.limit(seconds or self.timeout)
            if left <= 0:
                raise out_of_time(f"no time left to call {self.service}")
            last = len(tried) + 1 == ATTEMPTS
            try:
                replica = await self._balancer.acquire(tried)
            except OSError as error:
                raise unavailable(f"{self.service} can't be reached: {error}") from error
            attempt = _Attempt(self, replica, method, path, attributes, len(tried), left)
            tried.append(replica)
            try:
                opened = await self._attempt(attempt, method, path, content, headers, left)
                return opened, (await opened.read()) if read else b""
            except Unsent as error:
                replica.failed()
                if last:
                    raise unavailable(f"{self.service} can't be reached") from error
            except TimeoutError as error:
                raise out_of_time(
                    f"{self.service} did not answer {path} within {left:.1f} s"
                ) from error
            except Broken as error:
                if last or not repeatable:
                    raise unavailable(f"{self.service} closed the connection") from error
            except Unreadable as error:
                raise Problem(
                    502, f"{self.service}'s answer can't be read: {error}", code="bad_upstream"
                ) from error

    async def call(self, model: type[M], method: str, path: str, **options: Any) -> M:
        """Like `request`, but what a good answer says, and a Problem for any other."""
        return parsed(model, await self.request(method, path, **options), self.service)

    async def probe(self, path: str, seconds: float) -> Answer | None:
        """A GET outside any trace, for health checks; None when there is no answer."""
        try:
            replica = await self._balancer.acquire()
        except OSError:
            return None
        try:
            return await self._get(replica, path, seconds)
        finally:
            self._balancer.release(replica)

    async def probe_all(self, path: str, seconds: float) -> dict[str, Answer | None]:
        """The same at every replica, by address; None from one that doesn't answer."""
        try:
            replicas = await self._balancer.all()
        except OSError:
            return {}
        answers = await asyncio.gather(*(self._get(one, path, seconds) for one in replicas))
        return {replica.address: answer for replica, answer in zip(replicas, answers, strict=True)}

    async def close(self) -> None:
        await self._balancer.close()
        await self._wire.close()

    def _series(self, labels: Labels, outcome: Labels) -> BoundHistogram:
        key = (*labels.values(), *outcome.items())
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._duration.of({**labels, **outcome})
        return found

    async def _get(self, replica: Replica, path: str, seconds: float) -> Answer | None:
        try:
            async with asyncio.timeout(seconds):
                reply = await self._to(replica, "GET", path, UNTRACED)
                return Answer(reply.status, reply.headers, await reply.read())
        except (Unsent, Broken, Unreadable, TimeoutError):
            return None

    async def _to(
        self,
        replica: Replica,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> Reply:
        """The request as the service's name would get it, on its way to one replica."""
        url = replica.urls.get(path)
        if url is None:
            url = URL(f"{self._base}{path}").with_host(replica.host)
            replica.urls[path] = url
        return await self._wire.send(
            method,
            url,
            {"host": self._authority, **headers},
            content,
            server_hostname=self._balancer.host,
        )

    async def _attempt(
        self,
        attempt: "_Attempt",
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        seconds: float,
    ) -> Opened:
        theirs = seconds - FOR_THE_WAY_BACK * min(seconds, 1.0)
        carrier = {deadline.HEADER: f"{theirs:.3f}", **(headers or {})}
        propagate.inject(carrier, context=set_span_in_context(attempt.span))
        try:
            async with asyncio.timeout_at(attempt.until):
                reply = await self._to(attempt.replica, method, path, carrier, content)
        except BaseException as error:
            attempt.end(error_type(error))
            raise
        attempt.answered(reply.status)
        return Opened(self.service, path, reply, attempt)


class _Attempt:
    """One try of a call: its span, its time, its place at the replica."""

    def __init__(
        self,
        client: ServiceClient,
        replica: Replica,
        method: str,
        path: str,
        attributes: Mapping[str, str] | None,
        number: int,
        seconds: float,
    ) -> None:
        self.replica = replica
        self.until = asyncio.get_running_loop().time() + seconds
        self._client = client
        self._labels: dict[str, str | int] = {
            schema.HTTP_METHOD: method,
            schema.URL_TEMPLATE: path,
            schema.SERVER_ADDRESS: replica.host,
            schema.SERVER_PORT: replica.port,
        }
        self._watch = Stopwatch()
        self.span = client._tracer.start_span(
            f"{method} {path}", kind=SpanKind.CLIENT, start_time=self._watch.start_ns
        )
        if self.span.is_recording():
            self.span.set_attributes(
                {
                    **self._labels,
                    **(attributes or {}),
                    schema.URL_FULL: client._public_url + path,
                    schema.PEER_SERVICE: client.service,
                    **({schema.HTTP_RESEND_COUNT: number} if number else {}),
                }
            )
        self.ended = False
        self._outcome: dict[str, str | int] = {}

    def answered(self, status: int) -> None:
        self._outcome[schema.HTTP_STATUS] = status
        if status >= 400:
            self._outcome[schema.ERROR_TYPE] = str(status)

    def end(self, error: str | None = None) -> None:
        if self.ended:
            return
        self.ended = True
        if error:
            self._outcome[schema.ERROR_TYPE] = error
        self.span.set_attributes(self._outcome)
        if schema.ERROR_TYPE in self._outcome:
            self.span.set_status(StatusCode.ERROR)
        seconds = self._watch.seconds()
        self._client._series(self._labels, self._outcome).record(
            seconds, self.span.get_span_context()
        )
        self.span.end(self._watch.end_ns(seconds))
        self._client._balancer.release(self.replica)
