"""One attempt to hand OTLP to a backend, over HTTP or gRPC, and what its answer means.

Which failures are worth another attempt is said by the OTLP specification (opentelemetry-proto,
docs/specification.md: Failures, Throttling). A backend inside (plain HTTP) is never asked for
through a proxy; one outside (TLS) is, where HTTPS_PROXY and NO_PROXY say so.
"""

import gzip
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc  # type: ignore[import-untyped]
import requests
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from urllib3.exceptions import HTTPError

from o11y import schema

LONGEST_ANSWER = 1 << 16
_AGAIN = frozenset({429, 502, 503, 504})
_CREDENTIALS = frozenset({401, 403})
_GRPC_AGAIN = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
_GRPC_CREDENTIALS = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
_GRPC_LOST = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class Failure(NamedTuple):
    """Why something did not arrive."""

    error: str
    """`error.type`."""
    said: str
    """For people: goes on after the address."""
    again: bool
    """Whether the same may arrive later."""
    wait: float | None = None
    """Seconds the backend asked to be left alone."""
    credentials: bool = False


@dataclass(frozen=True)
class Link:
    """What all signals share on their way: files in PEM."""

    headers: Mapping[str, str]
    compressed: bool = False
    certificate: Path | None = None
    """The authority that vouches for the backend."""
    client_certificate: Path | None = None
    client_key: Path | None = None


class Sender(Protocol):
    """Hands the messages of one signal to a backend, one at a time."""

    address: str

    def send(self, body: bytes, seconds: float) -> int | Failure:
        """One attempt, which may take so long; how many of its rows the backend refused."""

    def close(self) -> None:
        """Give up an attempt under way; none after it."""


class HttpSender:
    """OTLP/HTTP with protobuf."""

    def __init__(self, url: str, link: Link) -> None:
        self.address = _without_user(url)
        self._url = url
        self._headers = {**link.headers, "Content-Type": "application/x-protobuf"}
        self._compressed = link.compressed
        if link.compressed:
            self._headers["Content-Encoding"] = "gzip"
        self._session = requests.Session()
        self._options: dict[str, Any] = {"proxies": {}, "stream": True}
        if url.lower().startswith("https:"):
            verify = str(link.certificate) if link.certificate else True
            certificate = tuple(
                str(path) for path in (link.client_certificate, link.client_key) if path
            )
            self._options = self._session.merge_environment_settings(
                url,
                {},
                True,
                verify,
                certificate or None,  # type: ignore[arg-type]
            )

    def send(self, body: bytes, seconds: float) -> int | Failure:
        until = time.monotonic() + seconds
        if self._compressed:
            body = gzip.compress(body)
        try:
            try:
                return self._ask(body, seconds)
            except requests.Timeout:
                raise
            except requests.ConnectionError:  # perhaps it was a connection kept too long
                return self._ask(body, max(until - time.monotonic(), 0.01))
        except requests.Timeout:
            return Failure(schema.ERROR_TIMEOUT, f"does not answer within {seconds:.0f} s", True)
        except (requests.RequestException, HTTPError) as error:
            return Failure(schema.ERROR_CONNECT, f"can't be reached: {_cause(error)}", True)

    def _ask(self, body: bytes, seconds: float) -> int | Failure:
        # prepared without the session, which would put in what .netrc says
        request = requests.Request("POST", self._url, self._headers, data=body).prepare()
        with self._session.send(
            request, timeout=seconds, allow_redirects=False, **self._options
        ) as answer:
            content = answer.raw.read(LONGEST_ANSWER)
        status = answer.status_code
        if 200 <= status < 300:
            is_ours = answer.headers.get("content-type") == self._headers["Content-Type"]
            return _rejected(content) if is_ours else 0
        return Failure(
            str(status),
            f"answers {status} {answer.reason or ''}".rstrip(),
            status in _AGAIN,
            _seconds(answer.headers.get("retry-after")),
            status in _CREDENTIALS,
        )

    def close(self) -> None:
        self._session.close()


class GrpcSender:
    """OTLP/gRPC. A channel that failed is replaced: its own back-off grows to two minutes."""

    def __init__(self, target: str, insecure: bool, service: str, link: Link) -> None:
        self.address = _without_user(target)
        self._target = target
        self._method = f"/{service}/Export"
        self._headers = tuple((key.lower(), value) for key, value in link.headers.items())
        self._compression = grpc.Compression.Gzip if link.compressed else None
        self._credentials = None if insecure else _tls(link)
        self._lock = threading.Lock()
        self._closed = False
        self._open()

    def send(self, body: bytes, seconds: float) -> int | Failure:
        with self._lock:
            if self._closed:
                return Failure(schema.ERROR_SHUT_DOWN, "is not asked any more", False)
            call = self._export
        try:
            return _rejected(call(body, timeout=seconds, metadata=self._headers))
        except grpc.RpcError as error:
            code = error.code()
            if code in _GRPC_LOST:
                self._open_again()
            wait = _retry_delay(error)
            said = f"answers {code.name}"
            if code is grpc.StatusCode.DEADLINE_EXCEEDED:
                said = f"does not answer within {seconds:.0f} s"
            elif details := error.details():
                said += f": {details[:200]}"
            again = code in _GRPC_AGAIN or (
                code is grpc.StatusCode.RESOURCE_EXHAUSTED and wait is not None
            )
            return Failure(code.name, said, again, wait, code in _GRPC_CREDENTIALS)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._channel.close()

    def _open_again(self) -> None:
        with self._lock:
            if not self._closed:
                self._channel.close()
                self._open()

    def _open(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        if self._credentials is None:
            options.append(("grpc.enable_http_proxy", 0))
            self._channel = grpc.insecure_channel(self._target, options, self._compression)
        else:
            self._channel = grpc.secure_channel(
                self._target, self._credentials, options, self._compression
            )
        self._export = self._channel.unary_unary(self._method)


def _tls(link: Link) -> Any:
    return grpc.ssl_channel_credentials(
        *(
            path.read_bytes() if path else None
            for path in (link.certificate, link.client_key, link.client_certificate)
        )
    )


def _rejected(content: bytes) -> int:
    """Rows the backend did not take; the answers of all signals have the same field numbers."""
    try:
        return int(ExportTraceServiceResponse.FromString(content).partial_success.rejected_spans)
    except DecodeError:
        return 0


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After as seconds from now (RFC 9110, 10.2.3); None where it is none."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def _retry_delay(error: Any) -> float | None:
    """The RetryInfo of a gRPC error, in seconds."""
    status = Status()
    try:
        status.ParseFromString(
            dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
        )
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                return float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        return None
    return None


def _cause(error: BaseException) -> str:
    """What was at the bottom of it, without the layers that passed it on."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error)[:200] or type(error).__name__


def _without_user(address: str) -> str:
    """An address without the credentials it may hold."""
    scheme, separator, rest = address.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
