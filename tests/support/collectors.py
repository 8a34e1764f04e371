"""Backends for telemetry on real sockets: they keep what they are sent and fail when told to."""

import gzip
import socket
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import grpc  # type: ignore[import-untyped]
from google.protobuf.any_pb2 import Any as AnyMessage  # type: ignore[import-untyped]
from google.rpc.error_details_pb2 import RetryInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tests.support.certificates import Certificate

Conduct = Literal["takes", "hangs", "slow", "busy", "unavailable", "forbids", "rejects", "strict"]
"""`busy` asks to come back in a second, `unavailable` does not say when, `forbids` wants other
credentials, `rejects` takes all rows but one, `strict` finds the message wrong.
"""

HANG_SECONDS = 30.0
SLOW_SECONDS = 0.2


class Backend:
    """How a collector behaves, and what reached it."""

    def __init__(self) -> None:
        self.conduct: Conduct = "takes"
        self.asked = 0
        """Attempts that reached it, answered or not."""
        self.let_go = threading.Event()

    def wait(self) -> None:
        """Take the time an answer takes."""
        self.asked += 1
        if self.conduct == "hangs":
            self.let_go.wait(HANG_SECONDS)
        elif self.conduct == "slow":
            time.sleep(SLOW_SECONDS)

    def recover(self) -> None:
        """Behave again; who hangs gets no answer any more."""
        self.conduct = "takes"
        self.let_go.set()


class HttpCollector(ThreadingHTTPServer, Backend):
    """OTLP/HTTP: what came where, with which credentials."""

    def __init__(self, port: int = 0, tls: Certificate | None = None) -> None:
        """With `tls` it is asked over TLS, and asks its clients for the same certificate."""
        Backend.__init__(self)
        super().__init__(("127.0.0.1", port), _Receiver)
        if tls:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.certificate)
            context.load_cert_chain(*tls)
            context.verify_mode = ssl.CERT_REQUIRED
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.port: int = self.server_port
        self.received: list[tuple[str, str | None, bytes]] = []
        self.headers: list[dict[str, str]] = []
        """Of each request that was taken, names in lower case."""
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=[0.01])
        self._thread.start()

    def messages(self) -> list[Any]:
        return [_HTTP[path.rpartition("/")[2]].FromString(body) for path, _, body in self.received]

    def stop(self) -> None:
        """End as a crash would: open connections are cut."""
        self.let_go.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # gone already
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, HttpCollector)
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        hangs = server.conduct == "hangs"
        server.wait()
        if hangs:
            self.close_connection = True
            return
        match server.conduct:
            case "busy":
                self._answer(429, retry_after="1")
            case "unavailable":
                self._answer(503)
            case "forbids":
                self._answer(401)
            case "strict":
                self._answer(400)
            case conduct:
                server.headers.append({key.lower(): text for key, text in self.headers.items()})
                server.received.append((self.path, self.headers["authorization"], body))
                self._answer(200, REJECTED if conduct == "rejects" else b"")

    def _answer(self, status: int, content: bytes = b"", retry_after: str | None = None) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(content)))
        if retry_after:
            self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


_rejected = ExportTraceServiceResponse()
_rejected.partial_success.rejected_spans = 1
REJECTED = _rejected.SerializeToString()
_HTTP: dict[str, Any] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
_GRPC: dict[str, Any] = {
    "opentelemetry.proto.collector.trace.v1.TraceService": ExportTraceServiceRequest,
    "opentelemetry.proto.collector.metrics.v1.MetricsService": ExportMetricsServiceRequest,
    "opentelemetry.proto.collector.logs.v1.LogsService": ExportLogsServiceRequest,
}


class GrpcCollector(Backend):
    """OTLP/gRPC: the messages as they came, and the credentials of the last."""

    def __init__(self, port: int = 0, tls: Certificate | None = None) -> None:
        """With `tls` it is asked over TLS, and asks its clients for the same certificate."""
        super().__init__()
        self.received: list[Any] = []
        self.credentials: str | None = None
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = [
            grpc.method_handlers_generic_handler(
                service,
                {"Export": grpc.unary_unary_rpc_method_handler(self._keep, request.FromString)},
            )
            for service, request in _GRPC.items()
        ]
        self._server.add_generic_rpc_handlers(handlers)
        address = f"127.0.0.1:{port}"
        if tls:
            certificate, key = tls.certificate.read_bytes(), tls.key.read_bytes()
            asking = grpc.ssl_server_credentials([(key, certificate)], certificate, True)
            self.port: int = self._server.add_secure_port(address, asking)
        else:
            self.port = self._server.add_insecure_port(address)
        self._server.start()

    def messages(self) -> list[Any]:
        return list(self.received)

    def stop(self) -> None:
        self.let_go.set()
        self._server.stop(None).wait()

    def _keep(self, request: Any, context: Any) -> bytes:
        hangs = self.conduct == "hangs"
        self.wait()
        if hangs:
            context.abort(grpc.StatusCode.CANCELLED, "given up")
        match self.conduct:
            case "busy":
                context.set_trailing_metadata([("grpc-status-details-bin", _retry_in_a_second())])
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much")
            case "unavailable":
                context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
            case "forbids":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
            case "strict":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not understood")
        self.received.append(request)
        self.credentials = dict(context.invocation_metadata()).get("authorization")
        return REJECTED if self.conduct == "rejects" else b""


Collector = HttpCollector | GrpcCollector


def _retry_in_a_second() -> bytes:
    info = RetryInfo()
    info.retry_delay.seconds = 1
    packed = AnyMessage()
    packed.Pack(info)
    return bytes(Status(code=8, details=[packed]).SerializeToString())


def span_names(collector: Collector) -> Counter[str]:
    """The spans that arrived."""
    return Counter(span.name for span in spans(collector))


def spans(collector: Collector) -> list[Any]:
    return [
        span
        for message in collector.messages()
        if isinstance(message, ExportTraceServiceRequest)
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def log_bodies(collector: Collector) -> Counter[str]:
    """The log records that arrived."""
    return Counter(
        record.body.string_value
        for message in collector.messages()
        if isinstance(message, ExportLogsServiceRequest)
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    )


def metric_names(collector: Collector) -> set[str]:
    """The metrics that arrived."""
    return {
        metric.name
        for message in collector.messages()
        if isinstance(message, ExportMetricsServiceRequest)
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
