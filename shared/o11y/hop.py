"""The client of one downstream service: context, deadline, balancing, one CLIENT span an attempt.

Spans and metrics follow the HTTP client conventions (semconv http/http-spans#http-client), with the
path as `url.template`: paths of these services hold no ids. `server.address` is the replica's.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import httpx2
from opentelemetry import propagate
from opentelemetry.trace import SpanKind, StatusCode, use_span
from pydantic import BaseModel, ValidationError

from o11y import deadline, schema
from o11y.balancer import Balancer, Replica, as_is, resolve
from o11y.problems import Problem, out_of_time, unavailable
from o11y.telemetry import Telemetry

UNTRACED = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
"""A parent that isn't recorded (W3C Trace Context): what it calls isn't either."""

M = TypeVar("M", bound=BaseModel)

CONNECT_SECONDS = 2.0
ATTEMPTS = 3
MAX_CONNECTIONS = 200

UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout)
"""Nothing was sent: any call may be tried again."""

BROKEN = (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError)
"""The connection ended before the answer: nobody knows what was done."""


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
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.service = service
        self.timeout = timeout
        self._base_url = base_url.rstrip("/")
        scheme, _, rest = self._base_url.partition("://")
        self._public_url = f"{scheme}://{rest.rpartition('@')[2]}"
        self._balancer = Balancer(self._base_url, as_is if transport else resolve)
        self._tracer = telemetry.tracer
        self._duration = telemetry.histogram(schema.HTTP_CLIENT_DURATION)
        self._http = httpx2.AsyncClient(
            transport=transport,
            trust_env=False,  # a proxy for the outside is not for our own services
            limits=httpx2.Limits(
                max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS
            ),
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        attributes: Mapping[str, str] | None = None,
        seconds: float | None = None,
        idempotent: bool | None = None,
    ) -> httpx2.Response:
        """Send one call and return the answer whatever its status.

        `idempotent` says that doing it twice is doing it once; by default a GET is. Raises Problem
        503 when the service can't be reached and 504 when time is up.
        """
        repeatable = method == "GET" if idempotent is None else idempotent
        tried: list[Replica] = []
        for attempt in range(ATTEMPTS):
            left = deadline.limit(seconds or self.timeout)
            if left <= 0:
                raise out_of_time(f"no time left to call {self.service}")
            try:
                async with self._balancer.lease(tried) as replica:
                    tried.append(replica)
                    return await self._attempt(
                        replica, method, path, json, content, headers, attributes, left, attempt
                    )
            except UNSENT as error:
                replica.failed()
                if attempt + 1 == ATTEMPTS:
                    raise unavailable(f"{self.service} can't be reached") from error
            except (TimeoutError, httpx2.TimeoutException) as error:
                raise out_of_time(
                    f"{self.service} did not answer {path} within {left:.1f} s"
                ) from error
            except BROKEN as error:
                if not repeatable or attempt + 1 == ATTEMPTS:
                    raise unavailable(f"{self.service} closed the connection") from error
            except httpx2.HTTPError as error:
                raise Problem(
                    502, f"{self.service}'s answer can't be read: {error}", code="bad_upstream"
                ) from error
            except OSError as error:
                raise unavailable(f"{self.service} can't be reached: {error}") from error
        raise AssertionError("unreachable")

    async def call(self, model: type[M], method: str, path: str, **options: Any) -> M:
        """Like `request`, but what a good answer says, and a Problem for any other."""
        return parsed(model, await self.request(method, path, **options), self.service)

    async def probe(self, path: str, seconds: float) -> httpx2.Response:
        """A GET outside any trace, for health checks. Raises httpx2.HTTPError or OSError."""
        async with self._balancer.lease() as replica:
            return await self._get(replica, path, seconds)

    async def probe_all(self, path: str, seconds: float) -> dict[str, httpx2.Response | None]:
        """The same at every replica, by address; None from one that doesn't answer."""

        async def one(replica: Replica) -> httpx2.Response | None:
            try:
                return await self._get(replica, path, seconds)
            except httpx2.HTTPError:
                return None

        try:
            replicas = await self._balancer.all()
        except OSError:
            return {}
        answers = await asyncio.gather(*(one(replica) for replica in replicas))
        return {replica.address: answer for replica, answer in zip(replicas, answers, strict=True)}

    async def close(self) -> None:
        await self._balancer.close()
        await self._http.aclose()

    async def _get(self, replica: Replica, path: str, seconds: float) -> httpx2.Response:
        request = self._request(replica, "GET", path, UNTRACED, seconds)
        return await self._http.send(request)

    def _request(
        self,
        replica: Replica,
        method: str,
        path: str,
        headers: Mapping[str, str],
        seconds: float,
        json: object = None,
        content: bytes | None = None,
    ) -> httpx2.Request:
        """The request as the service's name would get it, on its way to one replica."""
        request = self._http.build_request(
            method,
            self._base_url + path,
            json=json,
            content=content,
            headers=headers,
            timeout=httpx2.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds)),
            extensions={"sni_hostname": self._balancer.host},
        )
        request.url = request.url.copy_with(host=replica.host, port=replica.port)
        return request

    async def _attempt(
        self,
        replica: Replica,
        method: str,
        path: str,
        json: object,
        content: bytes | None,
        headers: Mapping[str, str] | None,
        attributes: Mapping[str, str] | None,
        seconds: float,
        attempt: int,
    ) -> httpx2.Response:
        route: dict[str, str | int] = {
            schema.HTTP_METHOD: method,
            schema.URL_TEMPLATE: path,
            schema.SERVER_ADDRESS: replica.host,
            schema.SERVER_PORT: replica.port,
        }
        span = self._tracer.start_span(
            f"{method} {path}",
            kind=SpanKind.CLIENT,
            attributes={
                **route,
                **(attributes or {}),
                schema.URL_FULL: self._public_url + path,
                schema.PEER_SERVICE: self.service,
                **({schema.HTTP_RESEND_COUNT: attempt} if attempt else {}),
            },
        )
        started = time.perf_counter()
        outcome: dict[str, str | int] = {}
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            carrier = {deadline.HEADER: f"{seconds:.3f}", **(headers or {})}
            propagate.inject(carrier)
            try:
                async with asyncio.timeout(seconds):  # httpx2's limits begin anew with each byte
                    response = await self._http.send(
                        self._request(replica, method, path, carrier, seconds, json, content)
                    )
                outcome[schema.HTTP_STATUS] = response.status_code
                if response.status_code >= 400:
                    outcome[schema.ERROR_TYPE] = str(response.status_code)
                return response
            except BaseException as error:
                outcome[schema.ERROR_TYPE] = type(error).__qualname__
                raise
            finally:
                span.set_attributes(outcome)
                if schema.ERROR_TYPE in outcome:
                    span.set_status(StatusCode.ERROR)
                self._duration.record(time.perf_counter() - started, {**route, **outcome})


def parsed(model: type[M], response: httpx2.Response, service: str) -> M:
    """What a good answer says; for any other raises the Problem it stands for, or 502."""
    raise_for_problem(response, service)
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        raise Problem(
            502,
            f"{service}'s answer is not what was asked for: {where} {wrong['msg']}",
            code="bad_upstream",
        ) from error


def raise_for_problem(response: httpx2.Response, service: str) -> None:
    """Raise the Problem a bad answer stands for.

    What the caller can mend (400, 404, 409, 422, 429) keeps its status and words; 503 and 504 too,
    since they name the cause; anything else is 502.
    """
    if response.status_code < 400:
        return
    detail, code, errors = _reason(response)
    status = response.status_code
    if status not in (400, 404, 409, 413, 422, 429, 503, 504):
        detail, status, code = f"{service} answered {status}: {detail}", 502, "upstream_error"
    retry = response.headers.get("retry-after")
    raise Problem(
        status, detail, code=code, headers={"Retry-After": retry} if retry else None, errors=errors
    )


def _reason(response: httpx2.Response) -> tuple[str, str | None, list[dict[str, str]]]:
    """Detail, code and field errors of a problem or of OpenAI's envelope; else the status line."""
    plain: tuple[str, None, list[dict[str, str]]] = (
        response.reason_phrase or f"status {response.status_code}",
        None,
        [],
    )
    if "json" not in response.headers.get("content-type", ""):
        return plain
    try:
        body = response.json()
    except ValueError:
        return plain
    if not isinstance(body, dict):
        return plain
    error = body.get("error")
    if isinstance(error, dict):
        message = str(error.get("message", plain[0]))
        field = error.get("param")
        errors = [{"field": str(field), "message": message}] if field else []
        return message, error.get("code"), errors
    listed = body.get("errors")
    errors = [
        {"field": str(item["field"]), "message": str(item.get("message", ""))}
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict) and "field" in item
    ]
    return str(body.get("detail", plain[0])), body.get("code"), errors
