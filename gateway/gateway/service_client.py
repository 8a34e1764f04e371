"""The client of one downstream service: deadline, replicas, failures as problems."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar

import httpx2
import msgspec
from pydantic import BaseModel, SecretStr

from gateway import stage
from gateway.service_responses import parsed
from o11y.http import deadline
from o11y.http.attempts import ATTEMPT, CALL, Attempt, Call, traced
from o11y.http.balancer import (
    IDEMPOTENT,
    REPLICA,
    Balancer,
    BalancingTransport,
    Replica,
    as_is,
    resolve,
)
from o11y.http.headers import JSON, UNTRACED, USER_AGENT
from o11y.http.transport import END_SECONDS, NetworkTransport, no_cookies, nothing_was_sent
from o11y.telemetry.signals import Telemetry
from o11y.web.internal_token import sent
from o11y.web.problems import Problem, out_of_time, unavailable

M = TypeVar("M", bound=BaseModel)

CONNECT_SECONDS = 2.0
ATTEMPTS = 3


class StreamedResponse:
    """A response whose head has come. Its span, and its place at the replica, end with it."""

    def __init__(self, service: str, path: str, response: httpx2.Response) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.service = service
        self._path = path
        self._response = response
        self._attempt: Attempt = response.extensions[ATTEMPT]
        self._chunks = response.aiter_bytes()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body as it comes. Raises Problem when it breaks or time is up."""
        try:
            async for chunk in self._chunks:
                yield chunk
        except httpx2.HTTPError as error:
            raise self._as_problem(error) from error
        finally:
            await self.aclose()

    async def read(self) -> httpx2.Response:
        """The response with its whole body. Raises Problem when it breaks or time is up."""
        content = b"".join([chunk async for chunk in self.chunks()])
        return httpx2.Response(self.status_code, headers=self.headers, content=content)

    async def finish(self) -> bytes:
        """Read what is left of a response that has said what was to be said, and end the call.

        It is complete: whether and how its end comes makes no difference.
        """
        rest = b""
        if not self._attempt.ended:
            self._attempt.end()
            with contextlib.suppress(httpx2.HTTPError, TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    while chunk := await anext(self._chunks, b""):
                        rest += chunk
            await self.aclose()
        return rest

    async def aclose(self) -> None:
        """End the call; a response that has not ended is cut."""
        await self._chunks.aclose()
        await self._response.aclose()

    def _as_problem(self, error: httpx2.HTTPError) -> Problem:
        if isinstance(error, httpx2.TimeoutException):
            return out_of_time(f"{self.service} did not end {self._path} in time")
        return unavailable(f"{self.service} closed the connection")


class ServiceClient:
    """HTTP to one service by its base URL, spread over its replicas.

    A call takes at most `timeout` seconds or what is left of the request's deadline. A connection
    that can't be made is tried again, at another replica where there is one; a connection that
    breaks only for calls that are idempotent. `transport` replaces the network in tests;
    `token` is the internal one.
    """

    def __init__(
        self,
        service: str,
        base_url: str,
        telemetry: Telemetry,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
        token: SecretStr | None = None,
    ) -> None:
        self.service = service
        self.timeout = timeout
        base = httpx2.URL(base_url.rstrip("/"))
        self._base = str(base)
        self._public_url = str(base.copy_with(userinfo=b""))
        self.balancer = Balancer(self._base, as_is if transport else resolve)
        network = transport or NetworkTransport(tls=base.scheme == "https")
        attempts = traced(service, telemetry, network)
        self._client = httpx2.AsyncClient(
            transport=BalancingTransport(self.balancer, attempts, ATTEMPTS),
            # within one network it isn't worth the time to compress
            headers={"accept-encoding": "identity", **USER_AGENT, **sent(token)},
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
            cookies=no_cookies(),
        )
        self._urls: dict[str, httpx2.URL] = {}

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send one call and return the response whatever its status; options as for `open`."""
        return await self._send(method, path, whole=True, **options)

    async def open(self, method: str, path: str, **options: Any) -> StreamedResponse:
        """Send one call and return when the head of its response is here.

        `json` or `content` is the body. `idempotent` says that doing it twice is doing it once; by
        default a GET is. Raises Problem 503 when the service can't be reached and 504 when time is
        up.
        """
        response = await self._send(method, path, whole=False, **options)
        return StreamedResponse(self.service, path, response)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        whole: bool,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = None,
        idempotent: bool | None = None,
    ) -> httpx2.Response:
        if deadline.remaining() == 0:
            raise out_of_time(f"no time left to call {self.service}")
        if json is not None:
            content, headers = msgspec.json.encode(json), {**JSON, **(headers or {})}
        url = self._public_url + path
        call = Call(path, url, seconds or self.timeout, whole, attributes=stage.attributes())
        extensions = {
            CALL: call,
            IDEMPOTENT: method == "GET" if idempotent is None else idempotent,
        }
        try:
            return await self._client.send(
                self._request(method, path, extensions, headers, content), stream=True
            )
        except httpx2.HTTPError as error:
            raise self._as_problem(error, call) from error

    async def call(self, model: type[M], method: str, path: str, **options: Any) -> M:
        """Send one call and return its parsed answer. Raises Problem for any but a good one."""
        return parsed(model, await self.request(method, path, **options), self.service)

    async def probe(self, path: str, seconds: float) -> httpx2.Response | None:
        """A GET outside any trace, for health checks; None when there is no answer."""
        return await self._get(None, path, seconds)

    async def probe_all(self, path: str, seconds: float) -> dict[str, httpx2.Response | None]:
        """A GET outside any trace at every replica: responses by address, None for no response."""
        try:
            replicas = await self.balancer.all()
        except OSError:
            return {}
        responses = await asyncio.gather(*(self._get(one, path, seconds) for one in replicas))
        return {
            replica.address: response for replica, response in zip(replicas, responses, strict=True)
        }

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _get(
        self, replica: Replica | None, path: str, seconds: float
    ) -> httpx2.Response | None:
        request = self._request("GET", path, {REPLICA: replica} if replica else {}, UNTRACED)
        try:
            async with asyncio.timeout(seconds):
                return await self._client.send(request)
        except (httpx2.HTTPError, TimeoutError):
            return None

    def _request(
        self,
        method: str,
        path: str,
        extensions: dict[str, Any],
        headers: Mapping[str, str] | None,
        content: bytes | None = None,
    ) -> httpx2.Request:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = httpx2.URL(f"{self._base}{path}")
        given = [(name, value.encode("latin-1")) for name, value in (headers or {}).items()]
        return self._client.build_request(
            method,
            url,
            headers=[(name.encode("ascii"), value) for name, value in given],
            content=content,
            extensions=extensions,
        )

    def _as_problem(self, error: httpx2.HTTPError, call: Call) -> Problem:
        if nothing_was_sent(error):
            return unavailable(f"{self.service} can't be reached")
        match error:
            case httpx2.TimeoutException():
                return out_of_time(
                    f"{self.service} did not answer {call.path} within {call.left:.1f} s"
                )
            case httpx2.NetworkError():
                return unavailable(f"{self.service} closed the connection")
        return Problem(502, f"{self.service}'s answer can't be read: {error}", code="bad_upstream")
